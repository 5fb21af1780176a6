"""Matryoshka representation learning: a loss of several prefixes of the embeddings."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from typing import Any

import torch
from torch import Tensor, nn

from ..inputs import parsed
from ..memory import EmbeddingQueue
from ..options import Count, brief, checked
from .base.loss import Loss

__all__ = ["MatryoshkaLoss"]

#: arguments of losses that hold embeddings
_QUEUES = {"bank", "memory", "queue"}


class MatryoshkaLoss(nn.Module):
    r"""A weighted sum of a loss over prefixes of the embeddings, each normalised by itself:

    :math:`\sum_d w_d \, \ell(x_{:, :d}, y_{:, :d}, \dots)`

    Args:
        loss: any loss. Of a loss of this package, the inputs that have the length D of embeddings
            are shortened, and queues; of another callable, all floating tensors of at least two
            dimensions whose last one is as long as the first one's. They are views, not copies.
        dims: the lengths d, at most D, each once.
        weights: one finite number for each of them; None for 1. Default: None.
        n_dims_per_step: how many of them a call takes, drawn anew for each call, the same on every
            rank that has made as many calls; -1 for all. Default: -1.

    ``forward`` takes what the loss takes. With ``return_stats=True`` of the loss it returns its sum
    and a dict of the statistics by length.

    Raises:
        TypeError, ValueError: an option does not fit, or a length exceeds D.

    Source: Kusupati et al., Matryoshka Representation Learning, 2022.
    """

    def __init__(
        self,
        loss: Callable[..., Any],
        dims: Sequence[int],
        weights: Sequence[float] | None = None,
        n_dims_per_step: int = -1,
    ) -> None:
        super().__init__()
        if not callable(loss):
            raise TypeError(f"loss: got {type(loss).__name__}, expected a callable")
        found: tuple[int, ...] = checked("dims", dims, Sequence[Count])
        if not found or len(set(found)) < len(found):
            raise ValueError(f"dims: got {list(found)}, expected different numbers, at least one")
        factors = checked("weights", weights, Sequence[float] | None)
        factors = (1.0,) * len(found) if factors is None else factors
        if len(factors) != len(found):
            raise ValueError(f"weights: got {len(factors)} numbers, expected {len(found)}")
        drawn = checked("n_dims_per_step", n_dims_per_step, int)
        if drawn != -1 and not 1 <= drawn <= len(found):
            expected = f"-1, or from 1 to {len(found)}"
            raise ValueError(f"n_dims_per_step: got {brief(drawn)}, expected {expected}")
        self.loss, self.n_dims_per_step = loss, drawn
        self.dims, self.weights = found, factors
        #: the number of calls, of those with ``n_dims_per_step``
        self.steps = 0

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        names = [self._name(k) for k in range(len(args))]
        embeddings = self._embeddings(dict(zip(names, args, strict=True)) | kwargs)
        places, parts = self._places(), []
        for d in (self.dims[k] for k in places):
            ends = {name: d if name in embeddings else None for name in (*names, *kwargs)}
            short = [prefix(v, ends[name]) for name, v in zip(names, args, strict=True)]
            parts.append(self.loss(*short, **{n: prefix(v, ends[n]) for n, v in kwargs.items()}))
        weights = [self.weights[k] for k in places]
        if not isinstance(parts[0], tuple):
            return _weighted(weights, parts)
        *values, last = zip(*parts, strict=True)
        sums = [_weighted(weights, column) for column in values]
        if isinstance(last[0], Mapping):
            return *sums, {self.dims[k]: stats for k, stats in zip(places, last, strict=True)}
        return *sums, _weighted(weights, last)

    def _name(self, place: int) -> str:
        """Of a positional argument."""
        if not isinstance(self.loss, Loss):
            return f"args[{place}]"
        name = self.loss.positional[min(place, len(self.loss.positional) - 1)]
        return f"{name[1:]}[{place}]" if name.startswith("*") else name

    def _embeddings(self, given: Mapping[str, Any]) -> set[str]:
        """The names of the arguments to be shortened."""
        if isinstance(self.loss, Loss):
            inputs = self.loss.inputs
            specs = {name: inputs.get(name.partition("[")[0]) for name in given}
            wide = {n for n, s in specs.items() if s and all(p.names[-1] == "D" for p in parsed(s))}
            found = {name: v for name, v in given.items() if name in wide | _QUEUES}
        else:
            found = {name: v for name, v in given.items() if _may_be_embeddings(v)}
        lengths = {n: v.shape[-1] for n, v in found.items() if isinstance(v, Tensor) and v.ndim}
        if not lengths:
            raise TypeError("inputs: got no embeddings, expected floating tensors (N, D)")
        first, length = next(iter(lengths.items()))
        if length < max(self.dims):
            raise ValueError(f"dims: got {max(self.dims)}, expected at most {first}'s {length}")
        if isinstance(self.loss, Loss):
            return set(found)
        return {name for name, own in lengths.items() if own == length}

    def _places(self) -> list[int]:
        """The places in ``dims`` of this call's lengths."""
        if self.n_dims_per_step == -1:
            return list(range(len(self.dims)))
        self.steps += 1
        drawn = random.Random(self.steps).sample(range(len(self.dims)), self.n_dims_per_step)  # nosec
        return sorted(drawn)

    def get_extra_state(self) -> dict[str, int]:
        return {"steps": self.steps}

    def set_extra_state(self, state: Mapping[str, int]) -> None:
        self.steps = state["steps"]

    def extra_repr(self) -> str:
        return f"dims={self.dims}, weights={self.weights}, n_dims_per_step={self.n_dims_per_step}"


def prefix(value: Any, length: int | None) -> Any:
    """Embeddings, or a queue of them, or several, shortened, but for a length of None."""
    if length is None:
        return value
    if isinstance(value, Tensor):
        return value if value.shape[-1] == length else value[..., :length]
    if isinstance(value, EmbeddingQueue):
        queue = copy(value)  # with its own dict of buffers, of which the others are the same
        queue._buffers = {**value._buffers, "embeddings": value.embeddings[:, :length]}
        queue.dim = length
        return queue
    return (
        tuple([prefix(part, length) for part in value])
        if isinstance(value, (tuple, list))
        else value
    )


def _may_be_embeddings(value: Any) -> bool:
    return isinstance(value, Tensor) and value.ndim > 1 and value.is_floating_point()


def _weighted(weights: Sequence[float], values: Sequence[Tensor]) -> Tensor:
    found = torch.stack([w * value for w, value in zip(weights, values, strict=True)])
    return found.sum(0)
