"""What backends are checked and timed with: one small program for each kind of call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor

from .. import ops
from ..channel import COL, INDEX, LSE, SUM, differs, same
from ..ops import Part

__all__ = ["KINDS", "Case", "Inputs", "checked", "results", "step", "timed"]

#: rows, columns and features of the checks: no multiple of any tile, and rows that are not aligned
RAGGED = {"cpu": ((130, 150, 24), (130, 150, 17)), "cuda": ((3000, 2999, 192),)}
#: rows and features of the times
ROWS = {"cpu": (32, 128, 512, 2048), "cuda": (256, 1024, 4096, 16384)}
DIMS = {"cpu": (128,), "cuda": (128, 512)}
#: columns per row of a top-k and of gathered scores
PICKED = 16
#: what the times of a sorting network are measured with; other operators have dtypes of products
SORTED = "float32"


class Inputs(NamedTuple):
    """The tensors of a case. ``y`` is None for a batch that is compared with itself."""

    x: Tensor
    y: Tensor | None
    row_labels: Tensor
    col_labels: Tensor
    picked: Tensor

    @property
    def columns(self) -> Tensor:
        return self.x if self.y is None else self.y

    def exact(self) -> Inputs:
        """The same numbers in fp64."""
        y = None if self.y is None else self.y.double()
        return self._replace(x=self.x.double(), y=y)


class Case(NamedTuple):
    """A call: its kind as in :class:`~contrastloss.backends.table.Time`, and its size."""

    kind: str
    symmetric: bool
    dtype: str
    rows: int
    cols: int
    dim: int

    @property
    def label(self) -> str:
        within = ", with itself" if self.symmetric else ""
        return f"{self.kind}{within}, {self.rows} x {self.cols} x {self.dim}, {self.dtype}"

    def inputs(self, device: torch.device) -> Inputs:
        """Random numbers, the same in every process."""
        g = torch.Generator().manual_seed(20)
        dtype = getattr(torch, self.dtype)
        x, y = (torch.randn(n, self.dim, generator=g) for n in (self.rows, self.cols))
        most = max(self.rows // 4, 1)  # four rows of each label
        labels = [torch.randint(most, (n,), generator=g) for n in (self.rows, self.cols)]
        index = torch.randint(self.cols, (self.rows, min(PICKED, self.cols)), generator=g)
        tensors = [x.to(dtype), y.to(dtype), *labels, index]
        found = Inputs(*(v.to(device) for v in tensors))
        if self.symmetric:
            found = found._replace(y=None, col_labels=found.row_labels)
        return found


_OTHERS, _OWN = (differs(INDEX),), (same(INDEX),)
#: the statistics of CLIP and of SigLIP, and their losses as terms of these
_CLIP = LSE(pairs=_OTHERS), LSE(axis=COL, pairs=_OTHERS), SUM(pairs=_OWN)
_SIGLIP = SUM("softplus", pairs=_OTHERS), SUM(pairs=_OWN)
LOSSES = {
    "softmax": (_CLIP, (Part(0, 2, 0.5, softplus=True), Part(1, 2, 0.5, softplus=True))),
    "sums": (_SIGLIP, (Part(0), Part(None, 1, softplus=True))),
}


def _softmax(given: Inputs, backend: str) -> Sequence[Tensor]:
    return ops.pair_stats(given.x, given.y, _CLIP, scale=8.0, cosine=True, backend=backend)


def _labels(given: Inputs, backend: str) -> Sequence[Tensor]:
    """The statistics of SupCon, and of NT-Xent, whose labels are instances."""
    own = (same("label"),)
    channels = LSE(pairs=(differs("label"),)), SUM("one", pairs=own), SUM(pairs=own)
    return ops.pair_stats(
        *(given.x, given.y, channels),
        rows={"label": given.row_labels},
        cols={"label": given.col_labels},
        scale=8.0,
        cosine=True,
        backend=backend,
    )


def _sums(given: Inputs, backend: str) -> Sequence[Tensor]:
    return ops.pair_stats(given.x, given.y, _SIGLIP, scale=8.0, cosine=True, backend=backend)


def _topk(given: Inputs, backend: str) -> Sequence[Tensor]:
    return ops.pair_topk(given.x, given.y, given.picked.shape[1], backend=backend)


def _gather(given: Inputs, backend: str) -> Sequence[Tensor]:
    return [ops.gather_scores(given.x, given.y, given.picked, backend=backend)]


def _sort(given: Inputs, backend: str) -> Sequence[Tensor]:
    return [ops.sort_network(given.x, backend=backend)[0]]


KINDS: dict[str, Callable[[Inputs, str], Sequence[Tensor]]] = {
    "softmax": _softmax,
    "labels": _labels,
    "sums": _sums,
    "pair_topk": _topk,
    "gather_scores": _gather,
    "sort_network": _sort,
}


def step(case: Case, given: Inputs, backend: str) -> list[Tensor]:
    """What training runs: the loss of a kind that has one, of as many columns as rows, which a
    backend may find in one pass with its gradients; else :func:`results`."""
    if case.kind not in LOSSES:
        return results(case, given, backend)
    given, leaves = _differentiable(given)
    n, terms = min(case.rows, case.cols), LOSSES[case.kind]
    x, y = given.x[:n], given.y if given.y is None else given.y[:n]
    loss, values = ops.pair_loss(x, y, *terms, scale=8.0, cosine=True, backend=backend)
    return [loss.detach()[None], *values, *torch.autograd.grad(loss, leaves)]


def _differentiable(given: Inputs) -> tuple[Inputs, list[Tensor]]:
    leaves = [v.detach().requires_grad_() for v in given[:2] if v is not None]
    return given._replace(x=leaves[0], y=None if given.y is None else leaves[1]), leaves


def results(case: Case, given: Inputs, backend: str) -> list[Tensor]:
    """What one forward and backward pass returns: the operator's values, then gradients."""
    given, leaves = _differentiable(given)
    outputs = KINDS[case.kind](given, backend)
    live = [o for o in outputs if o.requires_grad]
    weights = [torch.linspace(0.5, 1.5, o.numel()).view(o.shape).to(o) for o in live]
    found = torch.autograd.grad(live, leaves, weights, materialize_grads=True)
    return [*(o.detach() for o in outputs), *found]


def checked(device: str, dtypes: Sequence[str]) -> Iterator[Case]:
    """The checks on a type of device."""
    sizes = RAGGED["cpu"] + (RAGGED["cuda"] if device == "cuda" else ())
    yield from _every(dtypes, sizes)


def timed(
    device: str, dtypes: Sequence[str], rows: Sequence[int], dims: Sequence[int]
) -> Iterator[Case]:
    """What is timed on a type of device; without ``rows`` or ``dims`` its usual ones."""
    kind = "cuda" if device == "cuda" else "cpu"
    sizes = [(n, n, d) for n, d in product(rows or ROWS[kind], dims or DIMS[kind])]
    yield from _every(dtypes, sizes)


def _every(dtypes: Sequence[str], sizes: Sequence[tuple[int, int, int]]) -> Iterator[Case]:
    for kind, (rows, cols, dim) in product(KINDS, sizes):
        if kind == "sort_network":
            yield Case(kind, False, SORTED, rows, 1, dim)
            continue
        for dtype in dtypes:
            yield Case(kind, False, dtype, rows, cols, dim)
            yield Case(kind, True, dtype, rows, rows, dim)
