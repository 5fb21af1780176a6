"""The CUDA C++ backend, ``csrc/cuda``, for NVIDIA GPUs from sm_80 on. It is a separate library that
links no CUDA library, so it loads with every torch."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .call import NAMES, NATIVE, Gradients, PairCall, mask
from .encode import encode
from .h_blocks import HBlocks, allows_tf32, dot_gradients, fp16_gain
from .network import SORT, SortCall, comparators
from .topk import SELECTION, Selection

__all__ = [
    "DECLINES",
    "OPEN",
    "absent",
    "gather_scores_backward",
    "gather_scores_forward",
    "missing",
    "pair_stats_backward",
    "pair_stats_forward",
    "pair_topk",
    "sort_network_backward",
    "sort_network_forward",
    "source",
    "unfit",
    "why_not",
]

#: features that this backend does not support
DECLINES: frozenset[str] = frozenset()
#: whether it serves without times of ``python -m contrastloss tune``
OPEN = False
#: what fits in a kernel's parameters: kMax... in csrc/cuda/plan.h
CHANNELS, TESTS, TERMS, IDS = 12, 24, 12, 12
#: wires of a sorting network that fit in a block's shared memory
WIRES = 1024
#: gradients that are sums over G
SCALES = frozenset(("scale", "row_scale", "col_scale"))
SUMS = SCALES | {"row_bias", "col_bias"}
#: bytes for the candidate lists of a top-k
LIST_BYTES = 128 << 20

#: the library and its device type; tests replace both by their emulation on the CPU
LIBRARY = Path(__file__).parent.parent / "_cuda.so"
DEVICE = "cuda"

_PASS = f"{NATIVE}, Tensor[] outputs, Tensor[] grads, int live, int needs, bool tf32"
_BLOCKS = f"{_PASS}, int block_rows, int block_cols"
torch.library.define("contrastloss::cuda_forward", f"({NATIVE}, bool tf32) -> Tensor[]")
torch.library.define("contrastloss::cuda_measure", f"({NATIVE}) -> Tensor[]")
torch.library.define(
    "contrastloss::cuda_backward", f"({_PASS}, Tensor? gain, bool narrow, int width) -> Tensor[]"
)
torch.library.define("contrastloss::cuda_begin", f"({_BLOCKS}) -> Tensor[]")
torch.library.define(
    "contrastloss::cuda_h_block",
    f"({_BLOCKS}, Tensor(a!)[] state, Tensor? gain, Tensor(b!) h, int i, int j) -> ()",
)
torch.library.define("contrastloss::cuda_totals", f"({_BLOCKS}, Tensor[] state) -> Tensor[]")
torch.library.define(
    "contrastloss::cuda_finish",
    "(Tensor sums, Tensor x, Tensor? inverse, Tensor? gain, bool narrow, int width) -> Tensor",
)
torch.library.define(
    "contrastloss::cuda_topk", f"({NATIVE}, {SELECTION}, int list_bytes) -> Tensor[]"
)
_SORT = f"{SORT}, Tensor starts"
torch.library.define("contrastloss::cuda_sort", f"({_SORT}) -> Tensor[]")
torch.library.define(
    "contrastloss::cuda_sort_backward",
    f"({_SORT}, Tensor grad_sorted, Tensor grad_mass, int needs) -> Tensor[]",
)
torch.library.define("contrastloss::cuda_gather", f"({NATIVE}, Tensor index) -> Tensor")
torch.library.define(
    "contrastloss::cuda_gather_backward",
    f"({NATIVE}, Tensor index, Tensor grad, Tensor? order, Tensor? starts, Tensor[] measured, "
    "int needs) -> Tensor[]",
)


@lru_cache(maxsize=1)
def absent() -> str | None:
    """Why the library is not there, or does not load; None: it is loaded."""
    if not LIBRARY.exists():
        return "the package was built without its CUDA library"
    try:
        torch.ops.load_library(str(LIBRARY))
    except OSError as error:
        return f"its CUDA library does not load: {error}"
    return None


@lru_cache(maxsize=1)
def missing() -> str | None:
    if reason := absent():
        return reason
    library = ctypes.CDLL(str(LIBRARY))
    return unfit(library.contrastloss_cuda_driver(), library.contrastloss_cuda_runtime(), source())


def source() -> str | None:
    """Where the loaded library has PyTorch's streams from; None: this torch has no CUDA."""
    ask = ctypes.CDLL(str(LIBRARY)).contrastloss_cuda_stream_source
    ask.restype = ctypes.c_char_p
    found = ask()
    return None if found is None else found.decode()


def unfit(driver: int, runtime: int, streams: str | None) -> str | None:
    """Why a library of this CUDA runtime cannot run with a driver and a torch; versions are 1000
    major + 10 minor, 0 for none."""
    if driver // 1000 < runtime // 1000:
        there = f"the NVIDIA driver serves CUDA {_dotted(driver)}" if driver else "no NVIDIA driver"
        return f"its CUDA library needs CUDA {_dotted(runtime)}: {there}"
    if streams is None:
        return (
            "this torch has no CUDA: neither torch_stream_native_handle nor libtorch_cuda.so with "
            "aoti_torch_get_current_cuda_stream"
        )
    return None


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


@lru_cache(maxsize=16)
def _capability(device: torch.device) -> tuple[int, int]:
    return torch.cuda.get_device_capability(device)


def why_not(call: PairCall | SortCall) -> str | None:
    if call.x.device.type != DEVICE:
        return f"the tensors are on {call.x.device}"
    if DEVICE == "cuda" and (torch.version.hip or _capability(call.x.device) < (8, 0)):
        return "it serves NVIDIA GPUs of compute capability 8.0 and later"
    if isinstance(call, SortCall):
        return call.beyond(WIRES)
    if (call.x.dtype == torch.float64) != (call.compute_dtype == torch.float64):
        return f"it does not multiply {call.x.dtype} as {call.compute_dtype}"
    if declined := call.features & DECLINES:
        return f"it does not serve {', '.join(sorted(declined))}"
    return _too_long(call.program.text, call.y is None)


@lru_cache(maxsize=1024)
def _too_long(program: str, symmetric: bool) -> str | None:
    code = encode(program)
    groups = code.groups
    terms = [term for _, weight in groups for term in weight]
    differing = [name for term in terms if term.kind == "differing" for name in term.names]
    tests = len(differing) + sum(len(pairs) + symmetric for pairs, _ in groups)
    ids = {*differing, *(test.name for pairs, _ in groups for test in pairs)}
    for what, found, most in (
        ("channels", len(code.program.channels), CHANNELS),
        ("tests", tests, TESTS),
        ("weights", len(terms), TERMS),
        ("ids", len(ids), IDS),
    ):
        if found > most:
            return f"it takes at most {most} {what}, not {found}"
    return None


def _arguments(call: PairCall) -> tuple:
    x, y, scale, *rest = call.native()
    if scale is not None:
        scale = scale.to(x.device)
    x, y = (v if v is None else v.to(call.compute_dtype) for v in (x, y))
    return (x, y, scale, *rest)


def _tiled(call: PairCall) -> tuple:
    """The arguments of operators that read tiles: rows begin at multiples of 16 bytes, with zeros
    behind their features where needed."""
    x, y, *rest = _arguments(call)
    return (*(v if v is None else _wide(v) for v in (x, y)), *rest)


def _wide(x: Tensor) -> Tensor:
    missing = -x.shape[-1] % (16 // x.itemsize)
    if missing:
        return pad(x, (0, missing))
    return x if x.data_ptr() % 16 == 0 else x.clone()


def pair_stats_forward(call: PairCall) -> list[Tensor]:
    """The values of every channel in order, (B, M) or (B, N) each, or (M,) or (N,)."""
    return torch.ops.contrastloss.cuda_forward(*_tiled(call), allows_tf32())


def pair_stats_backward(
    call: PairCall,
    outputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
    needs: frozenset[str],
) -> Gradients:
    """The gradients named in ``needs`` (see :data:`~.call.NAMES`), and those of all shifts."""
    operands = _tiled(call)
    x: Tensor = call.add_batch(operands[0])
    y: Tensor = x if call.y is None else call.add_batch(operands[1])
    blocks = HBlocks(x, y, call.y is None, step=128)
    gain = fp16_gain(grads, x.dtype)
    given = (
        *operands,
        [o.contiguous() for o in outputs],
        [g.contiguous() for g in grads if g is not None],
        mask([g is not None for g in grads]),
        mask([name in needs for name in NAMES]),
        allows_tf32(),
    )
    compute = _whole if blocks.single else _by_blocks
    dx, dy, totals, measured = compute(call, blocks, given, gain, needs)
    # inverse norms, and the row factors that include them
    norms: tuple[Tensor | None, Tensor | None] = None, None
    factors = call.add_batch(call.operands.row_scale)
    if measured and needs & SCALES:
        left, factors = measured[0].view(2, len(x), -1)
        norms = left, measured[1].view(2, len(y), -1)[0]
    sums = iter(map(call.add_batch, totals))
    found = _sums(call, needs, sums, factors, norms)
    rows, cols = call.at_shifts(lambda axis, name: next(sums))
    return Gradients(x=dx, y=dy, **found, rows=rows, cols=cols).map(call.drop_batch)


#: the gradients of x and y, the sums over G, and with cosines the inverse norms and factors of rows
#: and of columns, (2, B M) and (2, B N)
Found = tuple[Tensor | None, Tensor | None, list[Tensor], list[Tensor]]


def _whole(
    call: PairCall, blocks: HBlocks, given: tuple, gain: Tensor | None, needs: frozenset[str]
) -> Found:
    """One block of H: one operator does all."""
    narrow, width = call.x.dtype == blocks.x.dtype, call.x.shape[-1]
    found = torch.ops.contrastloss.cuda_backward(*given, gain, narrow, width)
    wanted = [name in needs for name in ("x", "y")]
    wanted[1] &= call.y is not None
    dx, dy = (found.pop(0).to(call.x.dtype) if want else None for want in wanted)
    end = len(found) - 2 if call.cosine else len(found)
    return dx, dy, found[:end], found[end:]


def _by_blocks(
    call: PairCall, blocks: HBlocks, given: tuple, gain: Tensor | None, needs: frozenset[str]
) -> Found:
    ops, x, y, width = torch.ops.contrastloss, blocks.x, blocks.y, call.x.shape[-1]
    given = (*given, blocks.rows, blocks.cols)
    state = ops.cuda_begin(*given)
    measured = state[3:]

    def write(h: Tensor, i: slice, j: slice) -> None:
        ops.cuda_h_block(*given, state, gain, h, i.start, j.start)

    def finish(total: Tensor, side: str, part: slice) -> Tensor:
        own, norms = (x, measured[:1]) if side == "x" else (y, measured[1:])
        norm = norms[0].view(2, len(x), -1)[0, :, part].contiguous() if norms else None
        plain = norm is None and gain is None and total.dtype == call.x.dtype
        if plain and total.shape[-1] == width:
            return total
        narrow = call.x.dtype == x.dtype
        total, own = total.contiguous(), own[:, part].contiguous()
        return ops.cuda_finish(total, own, norm, gain, narrow, width).to(call.x.dtype)

    dx, dy = blocks.gradients(needs, write, finish)
    summed = needs & SUMS or any(call.program.shifts.values())
    return dx, dy, ops.cuda_totals(*given, state) if summed else [], measured


def _sums(
    call: PairCall,
    needs: frozenset[str],
    totals: Iterator[Tensor],
    a: Tensor | None,
    norms: tuple[Tensor | None, Tensor | None],
) -> dict[str, Any]:
    """The gradients of biases and scales, from the next of ``totals``. With cosines, a includes the
    inverse ``norms``."""
    found = {name: next(totals) for name in ("row_bias", "col_bias") if name in needs}
    row_dot = next(totals) if needs & {"scale", "row_scale"} else None
    col_dot = next(totals) if "col_scale" in needs else None
    return found | dot_gradients(call, needs, row_dot, col_dot, a, norms)


def pair_topk(call: PairCall, selection: Selection) -> tuple[Tensor, Tensor]:
    """The k best of every row, (B, M, k): their scores, or keys if sampled, and their columns."""
    values, index = torch.ops.contrastloss.cuda_topk(*_tiled(call), *selection.native(), LIST_BYTES)
    return values, index


def _sort_arguments(call: SortCall) -> tuple:
    _, starts = comparators(call.network, call.x.shape[1], call.x.device)
    return (*call.native(), starts)


def sort_network_forward(call: SortCall) -> tuple[Tensor, Tensor]:
    """Sorted rows (R, n) and masses P t (R, T, n)."""
    values, mass = torch.ops.contrastloss.cuda_sort(*_sort_arguments(call))
    return values, mass


def sort_network_backward(
    call: SortCall, grad_sorted: Tensor, grad_mass: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """The gradients of x, t and steepness; None where ``needs`` is false."""
    found = iter(
        torch.ops.contrastloss.cuda_sort_backward(
            *_sort_arguments(call), grad_sorted.contiguous(), grad_mass.contiguous(), mask(needs)
        )
    )
    return tuple(next(found) if need else None for need in needs)


def gather_scores_forward(call: PairCall, index: Tensor) -> Tensor:
    """The scores of every row with the columns in its row of ``index``, (B, M, K)."""
    return torch.ops.contrastloss.cuda_gather(*_arguments(call), index.contiguous())


def gather_scores_backward(
    call: PairCall, index: Tensor, grad: Tensor, needs: frozenset[str]
) -> Gradients:
    """The gradients named in ``needs`` (see :data:`~.call.NAMES`)."""
    ops = torch.ops.contrastloss
    operands = _arguments(call)
    x: Tensor = call.add_batch(operands[0])
    y: Tensor = x if call.y is None else call.add_batch(operands[1])
    columns = needs & {"y", "col_scale", "col_bias"} or (call.y is None and "x" in needs)
    order, starts = _by_column(call.add_batch(index), y.shape[1]) if columns else (None, None)
    measured = ops.cuda_measure(*operands) if call.cosine else []
    wanted = mask([name in needs for name in NAMES])
    index, grad = index.contiguous(), grad.contiguous()
    found = ops.cuda_gather_backward(*operands, index, grad, order, starts, measured, wanted)
    sums = iter(map(call.add_batch, found))

    # inverse norms, and the row factors that include them
    norms: tuple[Tensor | None, Tensor | None] = None, None
    factors = call.add_batch(call.operands.row_scale)
    if call.cosine:
        left, factors = measured[1].view(2, *x.shape[:2])
        norms = left, measured[2].view(2, *y.shape[:2])[0]
    result: dict[str, Any] = {}
    for name, own, norm in (("x", x, norms[0]), ("y", y, norms[1])):
        if name not in needs or (name == "y" and call.y is None):
            continue
        total = next(sums)
        if norm is not None:
            narrow = call.x.dtype == own.dtype
            total = ops.cuda_finish(total, own, norm, None, narrow, own.shape[-1])
        result[name] = total.to(call.x.dtype)
    result |= _sums(call, needs, sums, factors, norms)
    return Gradients(**result).map(call.drop_batch)


def _by_column(index: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    """The entries of ``index``, (B, M, K), sorted by column, (B M K,), and where the entries of
    each column begin and end in that order, (B columns + 1,). Entries without a valid column come
    last; entries of the same column keep their order."""
    every = len(index) * columns
    dtype = torch.int32 if every < 2**31 - 1 else torch.int64  # the sort takes half the time
    first = torch.arange(len(index), device=index.device).view(-1, 1, 1) * columns
    exists = (index >= 0) & (index < columns)
    column = torch.where(exists, index + first, every).to(dtype)
    ranked, order = column.flatten().sort(stable=True)
    ends = torch.arange(every + 1, device=index.device, dtype=dtype)
    return order, torch.searchsorted(ranked, ends)
