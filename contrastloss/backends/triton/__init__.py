"""The Triton backend: NVIDIA and AMD GPUs and, with ``TRITON_INTERPRET=1``, tensors on the CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from ..call import Gradients, PairCall
from ..gather import gather_scores_backward, gather_scores_forward
from ..network import SortCall
from ..topk import Selection

__all__ = [
    "DECLINES",
    "OPEN",
    "gather_scores_backward",
    "gather_scores_forward",
    "missing",
    "pair_stats_backward",
    "pair_stats_forward",
    "pair_topk",
    "sort_network_backward",
    "sort_network_forward",
    "why_not",
]

#: types of devices for which Triton compiles; AMD's are called "cuda", too
DEVICES = frozenset({"cuda", "xpu"})
#: features that this backend does not support
DECLINES: frozenset[str] = frozenset()
#: whether it serves without times of ``python -m contrastloss tune``
OPEN = False
#: the most numbers per row that ``sort_network`` sorts
WIRES = 1024


def interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


@lru_cache(maxsize=1)
def missing() -> str | None:
    try:
        found = find_spec("triton")
    except ImportError as error:  # raised by an import hook
        return f"triton cannot be imported: {error}"
    return "triton is not installed" if found is None else None


def why_not(call: PairCall | SortCall) -> str | None:
    device = call.x.device.type
    if device not in DEVICES and not (device == "cpu" and interpreted()):
        return f"the tensors are on {call.x.device}"
    if isinstance(call, SortCall):
        return call.beyond(WIRES)
    if torch.float64 in (call.x.dtype, call.compute_dtype):
        return "it does not serve float64"
    if device == "cpu" and torch.bfloat16 in (call.x.dtype, call.compute_dtype):
        return "Triton's interpreter does not multiply bfloat16"
    if declined := call.features & DECLINES:
        return f"it does not serve {', '.join(sorted(declined))}"
    return None


@contextmanager
def _launching(x: Tensor) -> Iterator[None]:
    """The device of x is the current one. While a CUDA graph is captured, no kernel is compiled."""
    if x.device.type == "cpu":
        yield
        return
    with torch.accelerator.device_index(x.device.index):
        if not (x.is_cuda and torch.cuda.is_current_stream_capturing()):
            yield
            return
        from triton import knobs

        with knobs.runtime.scope():
            knobs.runtime.jit_cache_hook = _refuse
            yield


def _refuse(*, fn: Any, **about: Any) -> None:
    """Triton calls this before it compiles a kernel or loads a compiled one."""
    raise RuntimeError(
        f"backend: triton would compile {fn.name} while a CUDA graph is captured: take a step of "
        "the same sizes and dtypes before the capture. `python -m contrastloss warmup` compiles "
        "kernels ahead of it"
    )


def pair_stats_forward(call: PairCall) -> list[Tensor]:
    """The values of every channel in order, (B, M) or (B, N) each, or (M,) or (N,)."""
    from .forward import pair_stats_forward as run

    with _launching(call.x):
        return run(call)


def pair_stats_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needs: frozenset[str],
) -> Gradients:
    """The gradients named in ``needs`` (see :data:`~..call.NAMES`), and those of all shifts."""
    from .backward import pair_stats_backward as run

    with _launching(call.x):
        return run(call, outputs, grads, needs)


def pair_topk(call: PairCall, selection: Selection) -> tuple[Tensor, Tensor]:
    """The k best of every row, (B, M, k): their scores, or keys if sampled, and their columns."""
    from .topk import pair_topk as run

    with _launching(call.x):
        return run(call, selection)


def sort_network_forward(call: SortCall) -> tuple[Tensor, Tensor]:
    """Sorted rows (R, n) and masses P t (R, T, n)."""
    from .sort import sort_network_forward as run

    with _launching(call.x):
        return run(call)


def sort_network_backward(
    call: SortCall, grad_sorted: Tensor, grad_mass: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of x, t and steepness; None where ``needs`` is false."""
    from .sort import sort_network_backward as run

    with _launching(call.x):
        return run(call, grad_sorted, grad_mass, needs)
