"""Negatives that a small network weighs."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from torch.utils.checkpoint import checkpoint

from .. import ops
from ..ops.check import check_device, check_embeddings, shape
from .check import check_finite, check_pair
from .loss import ScoreLoss
from .scores import wide

__all__ = ["AdaMEOWLoss"]

#: hidden values of pairs that are held at once
_HELD = 1 << 21


class AdaMEOWLoss(ScoreLoss, name="ada_meow"):
    r"""Rows of x against rows of y, weighed by what a network of two layers makes of the pair.

    .. math:: \ell_i = -\log \frac{e^{s_{ii}}}{\sum_j w_{ij} e^{s_{ij}}},
        \qquad s_{ij} = \cos(x_i, y_j) / \tau, \quad
        w_{ij} = \sigma\bigl(v^\top \tanh(W (\hat x_i + \hat y_j) + b)\bigr)

    with the vectors as they are compared: of unit length, unless ``normalize=False``. As in the
    authors' code the sum has j = i, too. The weights are kept as logarithms and cannot underflow.
    Embeddings and network get gradients.

    This takes O(N^2 h) time for h hidden units, and in memory some rows of pairs at a time, which
    the backward pass computes again.

    Args:
        temperature: tau, 0.5.
        backend: not used; pairs with such weights are plain PyTorch.

    Shape:
        x, y: (N, D). weight: (h, D), bias and v: (h,), the network's Parameters W, b and v; the
        paper has h = 16. Loss: (), or (N,) for ``reduction='none'``.

    Source: Yu et al., Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples, 2022.
    """

    temperature: float | Tensor = 0.5

    def forward(self, x: Tensor, y: Tensor, weight: Tensor, bias: Tensor, v: Tensor) -> Tensor:
        check_pair(self, x, y, None, None)
        _check_network(weight, bias, v, x)
        if self.validate:
            check_finite(weight=weight)
        n, hidden = x.shape[0], weight.shape[0]
        rows, cols, scale = wide(x), wide(y), self.scores(x, y).scale
        with torch.autocast(x.device.type, enabled=False):
            if self.normalize:
                rows, cols = (u * ops.inverse_norm(u).unsqueeze(1) for u in (rows, cols))
            weight, bias, v = (p.to(rows.dtype) for p in (weight, bias, v))
            by_row = rows.mm(weight.mT) + bias
            by_col = cols.mm(weight.mT)
            size = max(1, _HELD // max(1, n * hidden))
            by_part = (torch.arange(n, device=x.device), rows, by_row)
            losses = [
                checkpoint(_part, *part, cols, by_col, v, scale, use_reentrant=False)
                for part in zip(*(u.split(size) for u in by_part), strict=True)
            ]
        return self.reduce(torch.cat(losses))

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator).double()

        centre = normal(n, d)
        return centre + normal(n, d), centre + normal(n, d), normal(5, d), normal(5), 2 * normal(5)

    @staticmethod
    def reference(
        x: Tensor,
        y: Tensor,
        weight: Tensor,
        offset: Tensor,
        v: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
    ) -> Tensor:
        s = scale * (x @ y.mT) + bias
        hidden = torch.tanh((x @ weight.mT)[:, None] + y @ weight.mT + offset)
        return (s + logsigmoid(hidden @ v)).logsumexp(1) - s.diag()


def _part(
    q: Tensor,
    rows: Tensor,
    by_row: Tensor,
    cols: Tensor,
    by_col: Tensor,
    v: Tensor,
    scale: Tensor | float,
) -> Tensor:
    """The losses of the rows q, of which ``rows`` and ``by_row`` are."""
    hidden = torch.tanh(by_row.unsqueeze(1) + by_col)
    scores = rows.mm(cols.mT) * scale
    denominator = (scores + logsigmoid(hidden.matmul(v))).logsumexp(1)
    return denominator - scores.gather(1, q.unsqueeze(1)).squeeze(1)


def _check_network(weight: Tensor, bias: Tensor, v: Tensor, x: Tensor) -> None:
    check_embeddings("weight", weight)
    check_device("weight", weight, "x", x)
    if weight.ndim != 2 or weight.shape[1] != x.shape[1] or weight.shape[0] < 1:
        raise ValueError(f"weight: got shape {shape(weight)}, expected (h, {x.shape[1]})")
    for name, value in (("bias", bias), ("v", v)):
        check_embeddings(name, value)
        check_device(name, value, "x", x)
        if value.shape != weight.shape[:1]:
            raise ValueError(f"{name}: got shape {shape(value)}, expected ({weight.shape[0]},)")
