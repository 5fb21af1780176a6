"""GISTEmbed: in-batch negatives filtered by a guide model."""

from __future__ import annotations

from copy import copy
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .. import ops
from ..channel import INDEX, LSE, Channel, at_most, differs, not_above
from ..ops.check import check_device, check_embeddings
from ..ops.merge import log_sum_exp
from ..options import Temperature, shape
from .base.blocks import BATCH, ID, Block, Own, Ragged
from .base.loss import softplus
from .base.negatives import Negatives
from .base.positive_loss import BY_ROW, CrossLoss
from .base.scores import Scores, wide

__all__ = ["GISTLoss"]

GUIDE, BOUND = "guide", "bound"
_OTHERS = (differs(INDEX),)
_GUIDED = LSE(pairs=_OTHERS, weight=(at_most(GUIDE),))
_SELF_GUIDED = LSE(pairs=_OTHERS, weight=(not_above(BOUND),))
#: operands of rows and columns, by name
_Operands = tuple[dict[str, Tensor], dict[str, Tensor]]


class GISTLoss(CrossLoss, name="gist"):
    r"""InfoNCE that drops negatives which a guide model considers positives.

    With g the cosines of the guide's embeddings, and negatives both across and within the sides,

    :math:`\ell_i = -\log \frac{e^{s(x_i, y_i)}}{e^{s(x_i, y_i)} +
    \sum_{j \in A_i} e^{s(x_i, y_j)} + \sum_{j \in B_i} e^{s(x_i, x_j)} +
    \sum_{j \in C_i} e^{s(y_i, y_j)}}`

    where :math:`j \ne i` is in :math:`A_i, B_i, C_i` if :math:`g(x_i, y_j)`, :math:`g(x_i, x_j)` or
    :math:`g(y_i, y_j)` is at most :math:`g(x_i, y_i) - \text{margin}` (``'absolute'``) or
    :math:`g(x_i, y_i) - |g(x_i, y_i)| \, \text{margin}` (``'relative'``). Excesses of at most
    :math:`\max(8, \sqrt E)` eps of the guide's dtype are rounding: ties stay negatives, e.g. a
    document that occurs twice. The statistics of ``return_stats`` compare x with y and ignore the
    guide.

    With ``guide='self'``, g are the cosines of x and y themselves, or their products where
    ``normalize=False``, as constants: the masks of
    Qwen3 Embedding are ``GISTLoss(margin=-0.1)(x, y, negatives, guide="self")``.

    Args:
        temperature: tau, positive. Default: 0.01.
        margin: how far below the positive the guide has to score a negative. Default: 0.
        margin_strategy: ``'absolute'`` or ``'relative'``. Default: ``'absolute'``.
        contrast_anchors: whether to include the sum over :math:`B_i`. Default: True.
        contrast_positives: whether to include the sum over :math:`C_i`. Default: True.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        group: a ProcessGroup, 1-D DeviceMesh or ``'world'`` spreads the batch over its ranks; None:
            it is this process's.
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        x, y: (N, D).
        negatives: (K, D), shared by all rows of x, or (N, K, D), one set per row, or (L, D) with
        offsets: further negatives of the rows of x.
        guide: two tensors (N, E), the guide's embeddings of x and y, which get no gradient, and
        with negatives a third one, (K, E), (N, K, E) or (L, E); or ``'self'``, which takes no
        second product; None keeps all negatives.
        negatives_mask: (K,) or (N, K), bool, False for no negative; None: all are there.
        negatives_offsets: (N + 1,), integers: row i's negatives are those from offset i to before
        offset i + 1.
        negatives_ids: integers, one for each negative; those of the row's own id are left out.
        ids: (N,), integers: rows with equal ones are no pair, neither positive nor negative.
        row_weight: (N,), multiplies the rows' losses; 'mean' still divides by N. None for 1.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Solatorio, GISTEmbed: Guided In-sample Selection of Training Negatives, 2024; margins:
    sentence-transformers; 'self': Zhang et al., Qwen3 Embedding: Advancing Text Embedding and
    Reranking Through Foundation Models, 2025.
    """

    temperature: Temperature = 0.01
    margin: float = 0.0
    margin_strategy: Literal["absolute", "relative"] = "absolute"
    contrast_anchors: bool = True
    contrast_positives: bool = True

    without: ClassVar[dict[str, str]] = {"memory": "a queue holds no embeddings of the guide"}

    def channels(self) -> tuple[Channel, ...]:
        return BY_ROW, _GUIDED, _SELF_GUIDED

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        y: Tensor,
        negatives: Tensor | None = None,
        *,
        guide: tuple[Tensor, ...] | Literal["self"] | None = None,
        negatives_mask: Tensor | None = None,
        negatives_offsets: Tensor | None = None,
        negatives_ids: Tensor | None = None,
        ids: Tensor | None = None,
        row_weight: Tensor | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        further = Negatives(negatives, negatives_mask, negatives_offsets, negatives_ids)
        given = self.given(x, further, ids)
        guide = _checked(guide, x, negatives)
        scores = self.scores(x, y, logit_scale, logit_bias, blocks=(BATCH, *given))
        scores.apart, scores.row_weight = ids, row_weight
        which, operands = self._guided(scores, guide, given)
        channel = (self._channels if ids is None else self._channels_by_ids)[which]

        def called(row: int, col: int) -> _Operands:
            own = {} if ids is None else {ID: ids}
            return {**own, **operands[row][0]}, {**own, **operands[col][1]}

        parts = []
        for side, wanted in enumerate((self.contrast_anchors, self.contrast_positives)):
            if wanted:  # before the pass of both sides, to whose gradients these add one at a time
                own = scores.between((x, y)[side], None)
                parts += own.stats((channel,), *called(side, side))
        (negative, positive), extra = self.measure(scores, (channel, self.positive), *called(0, 1))
        negative = log_sum_exp(torch.stack([negative, *parts]))
        extra = self.with_positive(scores, extra, positive)
        return self.finish(scores.weighted(softplus(negative - positive)), extra, positive)

    def _guided(
        self, scores: Scores, guide: Any, given: tuple[Block, ...]
    ) -> tuple[int, list[_Operands]]:
        """Which of the channels, and its operands of x and of y. The scores are left with given
        blocks of what the guide considers negative."""
        if guide is None:
            return 0, [({}, {})] * 2
        if isinstance(guide, str):
            bound = self._own_bound(scores)
            scores.blocks = (BATCH, *[_up_to(block, bound) for block in given])
            return 2, [({BOUND: bound}, {})] * 2
        gx, gy, *others = guide
        bounded = self._bounded(gx, gy)
        kept = [_negative(block, bounded[0][0], others[0]) for block in given]
        scores.blocks = (BATCH, *kept)
        return 1, [({GUIDE: row}, {GUIDE: col}) for row, col in bounded]

    @torch.no_grad()
    def _own_bound(self, scores: Scores) -> Tensor:
        """The largest score of a negative of each row."""
        positive = scores.aligned()
        if self.margin_strategy == "absolute":
            below = self.margin * scores.inverse_temperature
        else:
            below = self.margin * scores.inverse_temperature * scores.cosines(positive).abs()
        return positive - below + scores.slack()

    def _bounded(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The guide's unit vectors of x and y as row and column operands of ``at_most``; a row's
        bound is an extra feature."""
        x, y = (ops.unit(v) for v in (x, y))
        cosine = (x * y).sum(1, keepdim=True)
        if self.margin_strategy == "absolute":
            bound = cosine - self.margin
        else:
            bound = cosine - self.margin * cosine.abs()
        bound = bound + ops.rounding(x)  # kernels may sum the positive's products in another order
        one = torch.ones_like(bound)
        return [(torch.cat([v, -bound], 1), torch.cat([v, one], 1)) for v in (x, y)]

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        margin: float,
        margin_strategy: str,
        contrast_anchors: bool,
        contrast_positives: bool,
        negatives: Tensor | None = None,
        negatives_mask: Tensor | None = None,
        guide: tuple[Tensor, ...] | Literal["self"] | None = None,
    ) -> Tensor:
        sides = [(0, 1)] + [(0, 0)] * contrast_anchors + [(1, 1)] * contrast_positives
        given = (x, y)
        if guide == "self":
            guide = tuple([v.detach() for v in (x, y, negatives) if v is not None])
        positive = (scale * (x @ y.mT) + bias).diag()[:, None]
        logits = [positive]
        if guide is not None:
            q = (guide[0] * guide[1]).sum(1, keepdim=True)
            bound = q - margin * (1 if margin_strategy == "absolute" else q.abs())
            bound = bound + ops.rounding(x)
        for a, b in sides:
            s = (scale * (given[a] @ given[b].mT) + bias).fill_diagonal_(-torch.inf)
            if guide is not None:
                s = s.masked_fill(guide[a] @ guide[b].mT > bound, -torch.inf)
            logits.append(s)
        if negatives is not None:
            own = negatives.expand(len(x), *negatives.shape[-2:])
            s = scale * torch.einsum("nd,nkd->nk", x, own) + bias
            if guide is not None:
                near = guide[2].expand(len(x), *guide[2].shape[-2:])
                g = torch.einsum("nd,nkd->nk", guide[0], near)
                s = s.masked_fill(g > bound, -torch.inf)
            if negatives_mask is not None:
                s = s.masked_fill(~negatives_mask, -torch.inf)
            logits.append(s)
        return torch.cat(logits, 1).logsumexp(1) - positive.squeeze(1)


def _up_to(block: Block, bound: Tensor) -> Block:
    """Of each row's own columns, those whose scores are not above its bound. Shared ones have the
    test of a channel."""
    if not isinstance(block, (Own, Ragged)):
        return block
    kept = copy(block)
    kept.upper, kept.passing, kept.unguided = bound, frozenset({BOUND}), block
    return kept


def _negative(block: Block, rows: Tensor, guide: Tensor) -> Block:
    """What the guide does not consider positive: of its rows' operands of ``at_most``, and its
    embeddings of the columns."""
    guide = ops.unit(guide)
    cols = torch.cat([guide, torch.ones_like(guide[..., :1])], -1)
    kept = copy(block)
    if isinstance(kept, (Own, Ragged)):
        of = rows[:, None] if isinstance(kept, Own) else rows[kept.met_by.squeeze(1)]
        there = (of * cols).sum(-1) <= 0
        kept.mask = there if kept.mask is None else there & kept.mask
        kept.passing, kept.unguided = frozenset({GUIDE}), block
    else:
        kept.ids = {**kept.ids, GUIDE: cols}
    return kept


def _checked(guide: Any, x: Tensor, negatives: Tensor | None) -> Any:
    """The argument, its tensors widened and without gradient."""
    if guide is None:
        return None
    if isinstance(guide, str):
        if guide != "self":
            raise ValueError(f"guide: got {guide!r}, expected 'self', tensors or None")
        return guide
    wanted = 2 if negatives is None else 3
    if not isinstance(guide, (tuple, list)) or len(guide) != wanted:
        got = f"{len(guide)} tensors" if isinstance(guide, (tuple, list)) else type(guide).__name__
        like = "x and y" if negatives is None else "x, y and the negatives"
        raise TypeError(f"guide: got {got}, expected {wanted} tensors, of {like}")
    for value, of in zip(guide, (x, x, negatives), strict=False):
        check_embeddings("guide", value)
        assert of is not None
        size = (*of.shape[:-1], guide[0].shape[-1])
        if value.ndim != of.ndim or value.shape != size:
            raise ValueError(f"guide: got shape {shape(value)}, expected {size}")
        check_device("guide", value, "x", x)
    return [wide(value.detach()) for value in guide]
