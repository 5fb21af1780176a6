"""SimCTG's contrastive loss between the tokens of a sequence."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from ..channel import SUM, same
from ..options import Temperature
from .base.pair_loss import PairLoss

__all__ = ["SimCTGLoss"]

BOUND, VALID = "bound", "valid"
OTHERS = SUM("relu", shift=BOUND)
#: valid rows with valid columns; the losses of padding rows are ignored
VALID_ONLY = SUM("relu", shift=BOUND, pairs=(same(VALID),))


class SimCTGLoss(PairLoss, name="simctg"):
    r"""SimCTG: pushes the tokens of a sequence apart, up to a margin.

    :math:`\ell_i = \sum_{j \ne i} [\rho - s_{ii} + s_{ij}]_+,
    \qquad s_{ij} = \cos(h_i, h_j) / \tau`

    where j runs over the valid tokens of i's sequence. ``reduction='mean'`` divides the sum over
    all sequences by their number of ordered pairs of valid tokens.

    Args:
        temperature: tau, positive. Default: 1.
        margin: rho. Default: 0.5.
        group: distributes the sequences over ranks, for the mean and its gradient.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).
        strategy: ``'gather'`` holds the columns of all ranks at once, ``'ring'`` those of two;
            ``'auto'`` gathers up to 256 MB.
        equal_sizes: True promises equal parts and the same call on every rank, and saves the
            exchange in which sizes and options are compared.
        return_stats: return ``(loss, stats)``, stats a dict of statistics from the same pass.

    Shape:
        h: (B, T, D).
        valid: (B, T), bool, False for padding; None for all True.
        Loss: (), or (B, T) for ``reduction='none'``. Padding and single tokens have loss 0, without
        gradient.

    Source: Su et al., A Contrastive Framework for Neural Text Generation, 2022; Su and Collier,
    Contrastive Search Is What You Need For Neural Text Generation, 2023.
    """

    temperature: Temperature = 1.0
    margin: float = 0.5

    inputs: ClassVar[dict[str, str]] = {"h": "B T D", "valid": "B T bool"}
    VECTORS: ClassVar[frozenset[str]] = frozenset()
    without: ClassVar[dict[str, str]] = {
        "memory": "tokens are compared with those of their own sequence only",
        "return_stats": "a token's positive is the token itself",
    }

    def forward(
        self,
        h: Tensor,
        valid: Tensor | None = None,
        *,
        logit_scale: Tensor | float | None = None,
        logit_bias: Tensor | float | None = None,
    ) -> Any:
        scores = self.scores(h, None, logit_scale, logit_bias, alone=True)
        own = scores.aligned()
        rows, nan = {BOUND: own - self.margin}, own.isnan()
        if valid is None:
            (losses,) = scores.stats((OTHERS,), rows)
            return self.reduce(losses, torch.full_like(losses, max(h.shape[1] - 1, 0)), nan)
        rows[VALID] = valid.long()
        (losses,) = scores.stats((VALID_ONLY,), rows)
        others = valid.sum(1, keepdim=True) - 1
        return self.reduce(losses, torch.where(valid, others, 0), nan & valid)

    @staticmethod
    def reference(
        h: Tensor, valid: Tensor | None = None, *, scale: Tensor, bias: Tensor, margin: float
    ) -> tuple[Tensor, Tensor]:
        """The losses, and the number of terms in each."""
        s = scale * (h @ h.mT) + bias
        own = s.diagonal(dim1=1, dim2=2).unsqueeze(2)
        pairs = torch.ones_like(s, dtype=torch.bool)
        if valid is not None:
            pairs = valid[:, :, None] & valid[:, None]
        pairs = pairs & ~torch.eye(h.shape[1], dtype=torch.bool, device=h.device)
        return (pairs * torch.relu(margin - own + s)).sum(2), pairs.sum(2)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor]:
        """Two sequences of nearly equal tokens: no margin is met at any temperature."""
        h, common = (torch.randn(2, m, d, generator=generator, dtype=torch.float64) for m in (n, 1))
        return (common + 0.1 * torch.rand(2, n, 1, generator=generator).double() * h,)
