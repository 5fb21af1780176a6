"""What to watch while embeddings are trained, logged to the tool that is in use."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .inputs import takes
from .metrics import alignment, mean_similarities, uniformity
from .options import Count, checked

__all__ = ["Monitor"]


class Monitor:
    r"""Logs alignment, uniformity, mean similarities, temperature and gradient norm at some steps.

    Call :meth:`log` at every step, after the backward pass; it computes something at every
    ``every``-th of them. Its values are those of this process's batch; with several ranks, one of
    them is enough. Embeddings take two or three passes over the pairs of the batch.

    ============================  ================================================================
    ``alignment``                 mean squared distance of positive pairs, as unit vectors
    ``uniformity``                :func:`contrastloss.metrics.uniformity`, the mean of both sides
    ``positive_similarity``       mean cosine of positive pairs
    ``negative_similarity``       mean cosine of all other pairs
    ``temperature``               as it is given
    ``gradient_norm``             of all parameters together
    ``accuracy``, ...             the statistics of a loss with ``return_stats=True``
    ============================  ================================================================

    Args:
        to: where values go. Its own method says which tool it is:

            - ``add_scalar``: TensorBoard's ``SummaryWriter``;
            - ``log_metrics``: a Logger of Lightning, such as ``trainer.logger``;
            - ``log_dict``: Lightning's ``Fabric``;
            - ``log``: a run of W&B, or the module ``wandb``;
            - a function of a dict of floats and a step;
            - None: only :attr:`history` keeps them.
        every: how many steps lie between two that are logged. Default: 1.
        prefix: goes before each name in the tool. Default: ``'contrastive/'``.

    Attributes:
        history: for each name, without the prefix, a list of (step, value): what
            :mod:`contrastloss.plots` draws.

    Raises:
        TypeError: ``to`` has none of these methods, or is a module, whose logger is meant.
    """

    def __init__(self, to: Any = None, *, every: int = 1, prefix: str = "contrastive/") -> None:
        self._write = _writer(to)
        self.every = checked("every", every, Count)
        self.prefix = checked("prefix", prefix, str)
        self.history: dict[str, list[tuple[int, float]]] = {}

    @torch.no_grad()
    def log(
        self,
        step: int,
        x: Tensor | None = None,
        y: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        stats: Mapping[str, Tensor | float] | None = None,
        temperature: Tensor | float | None = None,
        parameters: Iterable[Tensor] | None = None,
    ) -> dict[str, float]:
        """Log the values of one step; each argument brings its own.

        Args:
            step: the number of the step, counted from 0.
            x, y: (N, D), embeddings whose rows are positive pairs.
            labels: (N,), integers, in place of y: rows of x with the same label are positives.
            stats: the second result of a loss with ``return_stats=True``, or values of your own.
            temperature: with ``LogitScale``, ``1 / logit_scale()``.
            parameters: those whose gradients are measured, before they are set to None.

        Returns:
            The values by name; at a step that is not logged, nothing.

        Raises:
            TypeError, ValueError: an argument does not fit; the message names it.
        """
        step = checked("step", step, int)
        if step % self.every:
            return {}
        found: dict[str, Any] = {}
        if x is not None:
            found |= _of_embeddings(x, y, labels)
        elif y is not None or labels is not None:
            raise TypeError("x: got None with y or labels, expected a tensor")
        if temperature is not None:
            found["temperature"] = temperature
        if parameters is not None:
            found["gradient_norm"] = _gradient_norm(parameters)
        if stats is not None:
            if not isinstance(stats, Mapping):
                raise TypeError(f"stats: got {type(stats).__name__}, expected a dict of numbers")
            found |= stats
        values = {name: _number(name, value) for name, value in found.items()}
        for name, value in values.items():
            self.history.setdefault(name, []).append((step, value))
        if values:
            self._write({self.prefix + name: value for name, value in values.items()}, step)
        return values


@takes(x="N D", y="N D", labels="N int")
def _of_embeddings(
    x: Tensor, y: Tensor | None = None, labels: Tensor | None = None
) -> dict[str, Tensor]:
    if (y is None) == (labels is None):
        got = "neither y nor labels" if y is None else "y and labels"
        raise ValueError(f"y: got {got}, expected one of them")
    positive, negative = mean_similarities(x, y, labels=labels)
    sides = [uniformity(z) for z in (x, y) if z is not None]
    return {
        "alignment": 2 - 2 * positive if y is None else alignment(x, y),
        "uniformity": torch.stack(sides).mean(),
        "positive_similarity": positive,
        "negative_similarity": negative,
    }


def _gradient_norm(parameters: Any) -> Tensor:
    alone = isinstance(parameters, Tensor) or not isinstance(parameters, Iterable)
    members = [parameters] if alone else list(parameters)
    for value in members:
        if not isinstance(value, Tensor):
            got = type(value).__name__
            raise TypeError(f"parameters: got {got}, expected tensors, as of module.parameters()")
    return nn.utils.get_total_norm([p.grad for p in members if p.grad is not None])


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError, RuntimeError):
        got = type(value).__name__
        raise TypeError(f"{name}: got {got}, expected a number or a tensor with one") from None


def _writer(to: Any) -> Callable[[dict[str, float], int], object]:
    """A function that passes values and their step on, by the tool's own method."""
    if to is None:
        return lambda values, step: None
    # their methods of these names are others
    if not isinstance(to, (nn.Module, Tensor, logging.Logger)):
        if callable(getattr(to, "add_scalar", None)):
            return lambda values, step: [to.add_scalar(*item, step) for item in values.items()]
        for method in ("log_metrics", "log_dict", "log"):
            if callable(getattr(to, method, None)):
                write = getattr(to, method)
                return lambda values, step: write(values, step=step)
        if callable(to):
            return to
    expected = "a SummaryWriter, a Logger of Lightning, Fabric, a run of W&B or a function"
    raise TypeError(f"to: got {type(to).__name__}, expected {expected}")
