"""GISTEmbed: in-batch negatives filtered by a guide model."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from .. import ops
from ..channel import INDEX, LSE, at_most, differs
from ..ops.check import check_device, check_embeddings
from ..ops.merge import log_sum_exp
from ..options import Temperature, shape
from .base.loss import softplus
from .base.positive_loss import BY_ROW, CrossLoss
from .base.scores import wide

__all__ = ["GISTLoss"]

GUIDE = "guide"
_OTHERS = (differs(INDEX),)
_GUIDED = LSE(pairs=_OTHERS, weight=(at_most(GUIDE),))


class GISTLoss(CrossLoss, name="gist"):
    r"""InfoNCE that drops negatives which a guide model considers positives.

    With g the cosines of the guide's embeddings, and negatives both across and within the sides,

    .. math:: \ell_i = -\log \frac{e^{s(x_i, y_i)}}{e^{s(x_i, y_i)} +
        \sum_{j \in A_i} e^{s(x_i, y_j)} + \sum_{j \in B_i} e^{s(x_i, x_j)} +
        \sum_{j \in C_i} e^{s(y_i, y_j)}}

    where :math:`j \ne i` is in :math:`A_i, B_i, C_i` if :math:`g(x_i, y_j)`, :math:`g(x_i, x_j)` or
    :math:`g(y_i, y_j)` is at most :math:`g(x_i, y_i) - \text{margin}` (``'absolute'``) or
    :math:`g(x_i, y_i)\, (1 - \text{margin})` (``'relative'``). Excesses of at most 8 eps of the
    guide's dtype are rounding: ties stay negatives, e.g. a document that occurs twice. The
    statistics of ``return_stats`` compare x with y and ignore the guide.

    Args:
        temperature: tau, positive. Default: 0.01.
        margin: how far below the positive the guide has to score a negative. Default: 0.
        margin_strategy: ``'absolute'`` or ``'relative'``. Default: ``'absolute'``.
        contrast_anchors: whether to include the sum over :math:`B_i`. Default: True.
        contrast_positives: whether to include the sum over :math:`C_i`. Default: True.

    Shape:
        x, y: (N, D).
        guide: two tensors (N, E), the guide's embeddings of x and y, which get no gradient; None
        keeps all negatives.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Solatorio, GISTEmbed: Guided In-sample Selection of Training Negatives, 2024; margins:
    sentence-transformers.
    """

    temperature: Temperature = 0.01
    margin: float = 0.0
    margin_strategy: Literal["absolute", "relative"] = "absolute"
    contrast_anchors: bool = True
    contrast_positives: bool = True

    without: ClassVar[dict[str, str]] = {"memory": "a queue holds no embeddings of the guide"}

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        y: Tensor,
        *,
        guide: tuple[Tensor, Tensor] | None = None,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        bounded = None if guide is None else self._bounded(*_checked(guide, x))
        channel = BY_ROW if bounded is None else _GUIDED

        def operands(row: int, col: int) -> dict[str, Any]:
            if bounded is None:
                return {}
            return {"rows": {GUIDE: bounded[row][0]}, "cols": {GUIDE: bounded[col][1]}}

        scores = self.scores(x, y, logit_scale, logit_bias)
        (negative, positive), extra = self.measure(
            scores, (channel, self.positive), **operands(0, 1)
        )
        parts = [negative]
        for side, wanted in enumerate((self.contrast_anchors, self.contrast_positives)):
            if wanted:
                own = scores.between((x, y)[side], None)
                parts += own.stats((channel,), **operands(side, side))
        negative = log_sum_exp(torch.stack(parts))
        return self.finish(softplus(negative - positive), extra, positive)

    def _bounded(self, x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The guide's unit vectors of x and y as row and column operands of ``at_most``; a row's
        bound is an extra feature."""
        x, y = (ops.unit(v) for v in (x, y))
        cosine = (x * y).sum(1, keepdim=True)
        if self.margin_strategy == "absolute":
            bound = cosine - self.margin
        else:
            bound = cosine * (1 - self.margin)
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
        guide: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        sides = [(0, 1)] + [(0, 0)] * contrast_anchors + [(1, 1)] * contrast_positives
        given = (x, y)
        positive = (scale * (x @ y.mT) + bias).diag()[:, None]
        logits = [positive]
        for a, b in sides:
            s = (scale * (given[a] @ given[b].mT) + bias).fill_diagonal_(-torch.inf)
            if guide is not None:
                q = (guide[0] * guide[1]).sum(1, keepdim=True)
                bound = q - margin if margin_strategy == "absolute" else q * (1 - margin)
                bound = bound + 8 * torch.finfo(q.dtype).eps
                s = s.masked_fill(guide[a] @ guide[b].mT > bound, -torch.inf)
            logits.append(s)
        return torch.cat(logits, 1).logsumexp(1) - positive.squeeze(1)


def _checked(guide: tuple[Tensor, Tensor], x: Tensor) -> list[Tensor]:
    if not isinstance(guide, (tuple, list)) or len(guide) != 2:
        raise TypeError(f"guide: got {type(guide).__name__}, expected two tensors (N, E)")
    for value in guide:
        check_embeddings("guide", value)
        if value.ndim != 2 or len(value) != len(x) or value.shape != guide[0].shape:
            shapes = " and ".join(shape(v) for v in guide)
            raise ValueError(f"guide: got shapes {shapes}, expected two of ({len(x)}, E)")
        check_device("guide", value, "x", x)
    return [wide(value.detach()) for value in guide]
