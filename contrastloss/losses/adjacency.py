"""Contrastive loss with the neighbours in a graph as positives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ..channel import LSE
from ..ops.check import check_device
from ..ops.merge import log_sum_exp
from ..options import NonNegative, Temperature, shape
from .base.loss import ScoreLoss, nan_rows, softplus
from .base.scores import wide

__all__ = ["AdjacencyContrastiveLoss"]

#: number of neighbours per chunk; a row with more neighbours has several chunks
_WIDTH = 16
_CHANNELS = (LSE(),)


class AdjacencyContrastiveLoss(ScoreLoss, name="adjacency_contrastive"):
    r"""Contrastive loss on a graph: neighbours are positives, weighted by their edges.

    :math:`\ell_i = -\log\Bigl(\frac{\sum_{j \ne i} A_{ij} e^{s_{ij}}}
    {\sum_{j \ne i} e^{s_{ij}}} + \epsilon\Bigr), \qquad s_{ij} = \cos(z_i, z_j) / \tau`

    A is sparse. Rows are split into chunks of 16 edges, so memory is O((N + edges / 16) D + edges)
    for any degrees. The weights of repeated entries add up; entries with weights that are not
    positive are ignored. Weights get no gradient.

    Args:
        temperature: tau, positive. The paper multiplies the scores by its temperature, which is
            1 / tau. Default: 1.
        self_score: True sets the diagonal of the scores to 0, as in the released code, which adds
            :math:`e^0` to the denominator and :math:`A_{ii} e^0` to the numerator. False ignores
            self loops. Default: False.
        eps: epsilon >= 0; the released code has 1e-8. Default: 0.

    Shared options:
        loss_weight: multiplies the loss.
        backend: the name of a backend; None chooses.
        reduction: ``'mean'`` | ``'sum'`` | ``'none'``.
        normalize: scores are cosines (``eps=1e-12``, as ``F.normalize``), else plain products.
        validate: raise ValueError on NaN or infinite embeddings (this synchronises a GPU).

    Shape:
        z: (N, D).
        adjacency: a sparse (N, N) tensor in CSR or COO layout (COO is sorted first); or a tuple
        (crow, col) or (crow, col, values) of CSR tensors (N + 1,), (E,) and (E,), with which the
        loss can be compiled. Without values, all weights are 1.
        Loss: (), or (N,) for ``reduction='none'``. A row without neighbours has loss 0 and is not
        counted in the mean.

    Source: Kulatilleke et al., SCGC: Self-Supervised Contrastive Graph Clustering, 2022.
    """

    temperature: Temperature = 1.0
    self_score: bool = False
    eps: NonNegative = 0.0

    #: channel tests cannot exclude neighbours from the denominator, and its gradient for them
    #: mostly cancels that of the numerator
    WIDE_PRODUCTS = True

    inputs: ClassVar[dict[str, str]] = {"z": "N D"}
    without: ClassVar[dict[str, str]] = {
        "group": "its graph numbers the rows of one process",
        "memory": "its graph has no edges to stored columns",
        "return_stats": "its positives are weighted by edges",
    }

    def prepare(self) -> None:
        super().prepare()
        self._floor = math.log(self.eps) if self.eps else -math.inf

    def forward(self, z: Tensor, adjacency: Tensor | Sequence[Tensor]) -> Tensor:
        crow, col, values = _csr(adjacency, z)
        z = wide(z)  # so that the gradients of both sums are added in fp32
        (everything,) = self.scores(z, None).stats(_CHANNELS)
        near = self._neighbours(z, crow, col, values)
        some = near != -torch.inf
        if self.self_score:
            everything = softplus(everything)
        ratio = torch.where(some, near, 0.0) - torch.where(some, everything, 0.0)
        if self.eps:
            ratio = torch.logaddexp(ratio, torch.full_like(ratio, self._floor))
        return self.reduce(-ratio, some, nan_rows(z))

    def _neighbours(self, z: Tensor, crow: Tensor, col: Tensor, values: Tensor | None) -> Tensor:
        """``log sum_j A_ij e^{s_ij}``, (N,). Rows of any degree are split into chunks of equal
        width, at most N + E / width, so that no shape depends on the degrees."""
        n, edges = z.shape[0], col.shape[0]
        chunks = (crow.diff() + (_WIDTH - 1)).div(_WIDTH, rounding_mode="floor")
        ends = chunks.cumsum(0)
        chunk = torch.arange(n + edges // _WIDTH, device=z.device)
        row = torch.searchsorted(ends, chunk, right=True)
        used = row < n
        row = row.clamp_max(n - 1)
        turn = chunk - (ends - chunks)[row]
        place = (crow[row] + turn * _WIDTH)[:, None] + torch.arange(_WIDTH, device=z.device)
        used = used[:, None] & (place < crow[row + 1][:, None])
        place = torch.where(used, place, edges)  # the padding position, after the last edge
        column = torch.nn.functional.pad(col, (0, 1), value=-1)[place]
        own = column == row[:, None]
        index = torch.where(own, -1, column)
        scores = self.scores(z[row], z).gather(index)
        if values is not None:
            weight = torch.nn.functional.pad(values.detach().to(z.dtype), (0, 1))[place]
            weight = torch.where(weight > 0, weight, 0.0).log()
        else:
            weight = torch.where(used, 0.0, -torch.inf).to(z.dtype)
        if self.self_score:
            scores = torch.where(own, 0.0, scores)
        mass = log_sum_exp((scores + weight).mT)
        top = torch.full((n,), -torch.inf, dtype=z.dtype, device=z.device)
        top = top.scatter_reduce(0, row, mass.detach(), "amax")
        top = torch.where(top == -torch.inf, 0.0, top)
        total = torch.zeros_like(top).index_add(0, row, torch.exp(mass - top[row]))
        some = total != 0
        return torch.where(some, torch.where(some, total, 1.0).log() + top, -torch.inf)

    @staticmethod
    def example(n: int, d: int, generator: torch.Generator) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """A ring graph with additional longer links."""
        z = torch.randn(n, d, generator=generator, dtype=torch.float64)
        place = torch.arange(n)
        near = [(place + step) % max(n, 1) for step in (1, 2, 5, n - 1)]
        crow = len(near) * torch.arange(n + 1)
        return z, (crow, torch.stack(near, 1).sort(1).values.flatten())

    @staticmethod
    def reference(
        z: Tensor,
        crow: Tensor,
        col: Tensor,
        values: Tensor,
        *,
        scale: Tensor,
        bias: Tensor,
        self_score: bool,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        """The losses, and a mask of the rows that count in the mean."""
        n = len(z)
        row = torch.arange(n, device=z.device).repeat_interleave(crow.diff())
        weights = z.new_zeros(n, n).index_put(
            (row, col), values.to(z.dtype).clamp_min(0), accumulate=True
        )
        s = scale * (z @ z.mT) + bias
        s = s.fill_diagonal_(0.0 if self_score else -torch.inf)
        if not self_score:
            weights = weights.fill_diagonal_(0.0)
        some = (weights > 0).any(1)
        near = (s + weights.log())[some].logsumexp(1)
        ratio = near - s[some].logsumexp(1)
        if eps:
            ratio = torch.logaddexp(ratio, torch.full_like(ratio, eps).log())
        return torch.zeros_like(s[:, 0]).masked_scatter(some, -ratio), some


def _csr(adjacency: Tensor | Sequence[Tensor], z: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Check ``adjacency``; return row pointers, columns and weights."""
    name, n = "adjacency", z.shape[0]
    if isinstance(adjacency, Tensor):
        if adjacency.layout not in (torch.sparse_csr, torch.sparse_coo):
            raise TypeError(f"{name}: got layout {adjacency.layout}, expected sparse CSR or COO")
        if adjacency.shape != (n, n):
            raise ValueError(f"{name}: got shape {shape(adjacency)}, expected ({n}, {n})")
        matrix = adjacency.detach()
        matrix = matrix.to_sparse_csr() if matrix.layout == torch.sparse_coo else matrix
        parts: Sequence[Tensor] = (matrix.crow_indices(), matrix.col_indices(), matrix.values())
    else:
        parts = adjacency
    if not isinstance(parts, (tuple, list)) or len(parts) not in (2, 3):
        got = type(parts).__name__
        raise TypeError(f"{name}: got {got}, expected a sparse tensor, (crow, col[, values])")
    for part, value in zip(("crow", "col", "values"), parts, strict=False):
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: got {type(value).__name__} as {part}, expected a tensor")
        if part != "values" and value.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"{name}: got {value.dtype} as {part}, expected int32 or int64")
        expected = (n + 1,) if part == "crow" else parts[1].shape
        if value.shape != expected or value.ndim != 1:
            fits = f"({n + 1},)" if part == "crow" else "(E,)"
            raise ValueError(f"{name}: got shape {shape(value)} as {part}, expected {fits}")
        check_device(name, value, "z", z)
    return parts[0].long(), parts[1].long(), parts[2] if len(parts) == 3 else None
