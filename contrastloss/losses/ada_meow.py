"""Contrastive loss with negatives weighted by a small network (AdaMEOW)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from .. import ops
from ..ops.opaque import opaque
from ..options import Temperature
from .base.loss import ScoreLoss
from .base.scores import wide

__all__ = ["AdaMEOWLoss"]

#: limit on the hidden values of pairs in memory at once
_HELD = 1 << 21
#: its hyperbolic tangent is 1 in every dtype
_ALWAYS = 64.0


class AdaMEOWLoss(ScoreLoss, name="ada_meow"):
    r"""Contrastive loss with pairs weighted by a two-layer network (AdaMEOW).

    :math:`\ell_i = -\log \frac{e^{s_{ii}}}{\sum_j w_{ij} e^{s_{ij}}},
    \qquad s_{ij} = \cos(x_i, y_j) / \tau, \quad
    w_{ij} = \sigma\bigl(v^\top \tanh(W (\hat x_i + \hat y_j) + b) + c\bigr)`

    :math:`\hat x` and :math:`\hat y` are the normalised vectors, or x and y with
    ``normalize=False``. As in the authors' code, the sum includes j = i. The weights are computed
    as logarithms and cannot underflow. Embeddings and network get gradients.

    The loss takes O(N^2 h) time for h hidden units. Only some rows of pairs are in memory at a
    time; the backward pass recomputes them.

    Args:
        temperature: tau, positive. Default: 0.5.
        backend: ignored; the loss runs in plain PyTorch.

    Shared options:
        loss_weight: multiplies the loss.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        x, y: (N, D).
        weight: (h, D), the network's W; the paper has h = 16.
        bias, v: (h,), the network's b and v.
        v_bias: (1,), its c, which the authors' code has; None for 0.
        Loss: (), or (N,) for ``reduction='none'``.

    Source: Yu et al., Heterogeneous Graph Contrastive Learning with Meta-path Contexts and
    Adaptively Weighted Negative Samples, 2022.
    """

    temperature: Temperature = 0.5

    inputs: ClassVar[dict[str, str]] = {
        "x": "N D",
        "y": "N D",
        "weight": "H>=1 D",
        "bias": "H",
        "v": "H",
        "v_bias": "1",
    }
    without: ClassVar[dict[str, str]] = dict.fromkeys(
        ("group", "memory", "return_stats"),
        "a network weighs every pair, in plain PyTorch and in one process",
    )

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        weight: Tensor,
        bias: Tensor,
        v: Tensor,
        *,
        v_bias: Tensor | None = None,
    ) -> Tensor:
        if v_bias is not None:  # a hidden unit that is always 1
            weight = torch.cat([weight, torch.zeros_like(weight[:1])])
            bias = torch.cat([bias, torch.full_like(bias[:1], _ALWAYS)])
            v = torch.cat([v, v_bias])
        rows, cols, scores = wide(x), wide(y), self.scores(x, y)
        with ops.without_autocast(x.device):
            if self.normalize:
                rows, cols = (ops.unit(u) for u in (rows, cols))
            weight, bias, v = (p.to(rows.dtype) for p in (weight, bias, v))
            by_row = rows.mm(weight.mT) + bias
            by_col = cols.mm(weight.mT)
        (losses,) = _losses(rows, by_row, cols, by_col, v, scores.factor(rows))
        return self.reduce(losses)

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
        normalize: bool,
        v_bias: Tensor | float = 0.0,
    ) -> Tensor:
        if normalize:
            x, y = (torch.nn.functional.normalize(u, dim=-1) for u in (x, y))
        s = scale * (x @ y.mT) + bias
        hidden = torch.tanh((x @ weight.mT)[:, None] + y @ weight.mT + offset)
        return (s + logsigmoid(hidden @ v + v_bias)).logsumexp(1) - s.diag()


class _Losses(torch.autograd.Function):
    """The losses, some rows at a time. Results are written into preallocated tensors: small
    allocations between the large temporary ones would keep the allocator from reusing these."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        by_row: Tensor,
        cols: Tensor,
        by_col: Tensor,
        v: Tensor,
        scale: Tensor,
    ) -> Tensor:
        ctx.save_for_backward(rows, by_row, cols, by_col, v, scale)
        ctx.size = size = max(1, _HELD // max(1, by_row.numel()))
        losses = rows.new_empty(rows.shape[0])
        for q, a, b, loss in _parts(size, rows, by_row, losses):
            scores = a.mm(cols.mT) * scale
            gate = torch.tanh(b.unsqueeze(1) + by_col).matmul(v)
            positive = scores.gather(1, q).squeeze(1)
            loss.copy_((scores + logsigmoid(gate)).logsumexp(1) - positive)
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, by_row, cols, by_col, v, scale = ctx.saved_tensors
        d_rows, d_by_row = torch.empty_like(rows), torch.empty_like(by_row)
        d_cols, d_by_col = torch.zeros_like(cols), torch.zeros_like(by_col)
        d_v, d_scale = torch.zeros_like(v), torch.zeros_like(scale)
        with ops.without_autocast(rows.device):
            for q, a, b, d_a, d_b, grad in _parts(
                ctx.size, rows, by_row, d_rows, d_by_row, grads[0]
            ):
                cosines = a.mm(cols.mT)
                hidden = torch.tanh(b.unsqueeze(1) + by_col)
                gate = hidden.matmul(v)
                grad = grad.unsqueeze(1)
                mass = (cosines * scale + logsigmoid(gate)).softmax(1) * grad
                d_scores = mass.scatter_add(1, q, -grad)
                d_gate = mass * torch.sigmoid(-gate)
                d_a.copy_(d_scores.mm(cols) * scale)
                d_cols += d_scores.mT.mm(a) * scale
                d_scale += (d_scores * cosines).sum()
                d_v += hidden.flatten(0, 1).mT.mv(d_gate.flatten())
                d_sum = d_gate.unsqueeze(2) * v * (1 - hidden.square())
                d_b.copy_(d_sum.sum(1))
                d_by_col += d_sum.sum(0)
        return d_rows, d_by_row, d_cols, d_by_col, d_v, d_scale


@opaque(
    "ada_meow",
    "Tensor rows, Tensor by_row, Tensor cols, Tensor by_col, Tensor v, Tensor scale",
    lambda rows, *others: [rows.new_empty(rows.shape[0])],
)
def _losses(*tensors: Tensor) -> list[Tensor]:
    return [_Losses.apply(*tensors)]


def _parts(size: int, *values: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Yield row indices (C, 1) and these rows of each tensor, ``size`` rows at a time."""
    n = values[0].shape[0]
    numbers = torch.arange(n, device=values[0].device).unsqueeze(1)
    for first in range(0, n, size):
        yield tuple(value[first : first + size] for value in (numbers, *values))
