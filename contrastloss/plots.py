"""Plots of embeddings and of their training. They need ``pip install 'contrastloss[plots]'``.

Every function draws on ``ax``, matplotlib Axes, or on those of a new figure if it is None, and
returns them. What it draws comes from :mod:`contrastloss.metrics`, from ``history`` of a
:class:`contrastloss.Monitor`, and from :func:`contrastloss.ops.pair_topk`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .metrics import Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["alignment_uniformity", "curves", "neighbors", "similarities"]

#: for each name, steps and values
History = Mapping[str, Sequence[tuple[int, float]]]
#: of an image in a grid whose cells have size 1
SIZE = 0.9


def similarities(histogram: Histogram, ax: Axes | None = None) -> Axes:
    """The distributions of the scores of positive and of negative pairs, each with area 1.

    Args:
        histogram: of :func:`contrastloss.metrics.similarity_histogram`.
    """
    if not isinstance(histogram, Histogram):
        raise TypeError(f"histogram: got {type(histogram).__name__}, expected a Histogram")
    ax = _axes(ax)
    edges = histogram.edges.cpu().double()
    for name, counts in (("positives", histogram.positives), ("negatives", histogram.negatives)):
        share = counts.cpu().double() / max(int(counts.sum()), 1) / edges.diff()
        ax.stairs(share.numpy(), edges.numpy(), fill=True, alpha=0.5, label=name)
    ax.set(xlabel="similarity", ylabel="density")
    ax.legend()
    return ax


def curves(history: History, names: Sequence[str], ax: Axes | None = None) -> Axes:
    """Values over steps, a line for each name: the temperature, the gradient norm, the
    similarities.

    Args:
        history: of a :class:`contrastloss.Monitor`.
        names: of some of its values.
    """
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise TypeError(f"names: got {type(names).__name__}, expected a list of strings")
    lines = [(name, *_series(history, name)) for name in names]
    ax = _axes(ax)
    for name, steps, values in lines:
        ax.plot(steps, values, label=name)
    ax.set(xlabel="step")
    if lines:
        ax.legend()
    return ax


def alignment_uniformity(history: History, ax: Axes | None = None) -> Axes:
    """The path of a training: alignment against uniformity, coloured by step. It is better the
    further down and left it ends; see Wang and Isola, 2020.

    Args:
        history: of a :class:`contrastloss.Monitor` that was given embeddings.
    """
    steps, across = _series(history, "uniformity")
    steps_up, up = _series(history, "alignment")
    if steps != steps_up:
        raise ValueError("history: got other steps of alignment, expected those of uniformity")
    ax = _axes(ax)
    ax.plot(across, up, color="0.8", zorder=1)
    ax.scatter(across, up, c=steps, zorder=2)
    ax.set(xlabel="uniformity", ylabel="alignment")
    return ax


def neighbors(
    queries: Any,
    corpus: Any,
    index: Tensor,
    ax: Axes | None = None,
    *,
    labels: Tensor | None = None,
    corpus_labels: Tensor | None = None,
) -> Axes:
    """A grid of images: in each row a query, and to its right its nearest neighbours.

    Args:
        queries: images (N, H, W) or (N, H, W, 3), tensors or arrays; the first rows of the grid.
        corpus: images (M, H, W) or (M, H, W, 3).
        index: (N, k), int64, columns of the corpus, padded with -1: the indices of
            :func:`contrastloss.ops.pair_topk`.
        labels, corpus_labels: (N,) and (M,); a neighbour with the query's label gets a green
            frame, another one a red, dashed one.
    """
    rows, columns = _images("queries", queries), _images("corpus", corpus)
    if not isinstance(index, Tensor):
        raise TypeError(f"index: got {type(index).__name__}, expected a tensor")
    if index.ndim != 2 or len(index) != len(rows):
        expected = f"({len(rows)}, k)"
        raise ValueError(f"index: got shape {tuple(index.shape)}, expected {expected}")
    if (labels is None) != (corpus_labels is None):
        raise ValueError("corpus_labels: got labels of one side alone, expected both or neither")
    ax = _axes(ax)
    ends = [v for part in (rows, columns) if part.numel() for v in part.aminmax()]
    grays: dict[str, Any] = {
        "cmap": "gray",
        "vmin": min(ends, default=0),
        "vmax": max(ends, default=1),
    }
    for i, found in enumerate(index.tolist()):
        ax.imshow(rows[i].numpy(), extent=(0, SIZE, i + SIZE, i), **grays)
        for k, j in enumerate(found):
            if j < 0:
                continue
            left = k + 1.25
            ax.imshow(columns[j].numpy(), extent=(left, left + SIZE, i + SIZE, i), **grays)
            if labels is not None and corpus_labels is not None:
                _frame(ax, left, i, bool(labels[i] == corpus_labels[j]))
    ax.set(xlim=(-0.1, index.shape[1] + 1.35), ylim=(len(rows) + 0.1, -0.1))
    ax.set_axis_off()
    return ax


def _images(name: str, value: Any) -> Tensor:
    expected = "images (N, H, W) or (N, H, W, 3)"
    try:
        found = torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"{name}: got {type(value).__name__}, expected {expected}") from None
    if found.ndim not in (3, 4):
        raise ValueError(f"{name}: got shape {tuple(found.shape)}, expected {expected}")
    return found


def _frame(ax: Axes, left: float, top: float, right: bool) -> None:
    from matplotlib.patches import Rectangle

    color, style = ("tab:green", "-") if right else ("tab:red", "--")
    look: dict[str, Any] = {"fill": False, "edgecolor": color, "linestyle": style, "linewidth": 2}
    ax.add_patch(Rectangle((left, top), SIZE, SIZE, **look))


def _series(history: History, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one name."""
    if not isinstance(history, Mapping):
        raise TypeError(f"history: got {type(history).__name__}, expected Monitor.history")
    if name not in history:
        known = ", ".join(history) or "nothing"
        raise ValueError(f"history: got {known}, expected values of {name}")
    return [step for step, _ in history[name]], [value for _, value in history[name]]


def _axes(ax: Axes | None) -> Axes:
    if ax is not None:
        return ax
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            "contrastloss.plots needs matplotlib: pip install 'contrastloss[plots]'"
        ) from error
    return pyplot.subplots()[1]
