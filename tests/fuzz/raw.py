"""Malformed calls of the registered operators give an error or a result, but never a crash.

Every operand is placed between guard pages. A case is a valid call with some changes.
"""

import itertools

import torch
from hypothesis import strategies as st
from layouts import column_major
from oracle import VECTORS, problem
from programs import DTYPES, OPERANDS, channels

from contrastloss.backends import Operands, PairCall, Selection, SortCall, cpu
from contrastloss.channel import COL, MAX, ROW, SUM
from contrastloss.program import Program

from .draws import running, sizes
from .guard import Guards

SEEDS = st.integers(0, (1 << 30) - 1)
EXTREMES = (0, 1, -1, 2, 63, 64, 1 << 31, -(1 << 31), (1 << 63) - 1, -(1 << 63))


def call_of(program, options):
    """The arguments of a call for the operators of ops, and the call object for the backends."""
    call = problem(program, **options)
    rows, cols = call["rows"], call["cols"]
    operands = Operands(
        call["x"], call["y"], *(call.get(name) for name in VECTORS), (*rows.values(),),
        (*cols.values(),),
    )  # fmt: skip
    program = Program(call["channels"], tuple(rows), tuple(cols))
    given = PairCall(operands, program, call["cosine"], call["x"].dtype)
    return given.arguments(), given.lifted()


def native(name, program, options):
    """The arguments of the C++ backend's operator ``name``, all valid."""
    if name.startswith("cpu_sort"):
        return _sort(name, options)
    if name == "cpu_scale":
        return _scale(options)
    if name == "cpu_pair_loss":
        return _pair_loss(program, options)
    if name == "cpu_topk":
        program = (MAX(pairs=program[0].pairs),)
    if name.startswith("cpu_gather"):
        program = ()
    _, call = call_of(program, options)
    arguments, stat = list(cpu._arguments(call)), call.stat_dtype
    m, g = call.x.shape[-2], torch.Generator().manual_seed(options["seed"])
    if name == "cpu_backward":
        outputs = torch.ops.contrastloss.cpu_forward(*arguments)
        live = sum(1 << k for k, v in enumerate(outputs) if v.is_floating_point())
        grads = [torch.ones_like(v) for v in outputs if v.is_floating_point()]
        return [*arguments, outputs, grads, live, 127]
    if name == "cpu_topk":
        lower = torch.full(call.x.shape[:-1], -9.0, dtype=stat)
        counts = torch.randint(0, 3, (call.x.shape[:-1].numel(),), generator=g)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        columns = torch.cat([torch.arange(int(c)) for c in counts] or [offsets[:0]])
        chosen = Selection(3, lower, lower + 18, (offsets, columns.long()))
        return [*arguments, *chosen.native()]
    if name.startswith("cpu_gather"):
        n = max(call.length(COL), 1)
        index = torch.randint(-1, n, (*call.x.shape[:-1], 4), generator=g).clamp(max=n - 1)
        if name == "cpu_gather":
            return [*arguments, index]
        return [*arguments, index, torch.ones(index.shape, dtype=stat), 127]
    assert name == "cpu_forward", m
    return arguments


def _pair_loss(program, o):
    """Of the channels of rows that have losses: in strips, or at once where all are sums."""
    own = [c for c in program if c.kind in ("LSE", "SUM") and c.axis == ROW]
    sums = o["seed"] % 2 and all(c.kind == "SUM" for c in own)
    channels = tuple([c for c in own if sums or getattr(c, "shift", None) is None]) or (SUM(),)
    _, call = call_of(channels, {**o, "lead": ()})
    m = call.x.shape[0]
    strip = 0 if sums else 32 if o["seed"] % 3 and not o["symmetric"] else max(m, 1)
    code = torch.tensor([(int(not sums), k, -1) for k in range(len(channels))])
    weight = torch.rand(m, dtype=call.stat_dtype) if o["seed"] % 5 else None
    parts = code, torch.ones(len(channels), dtype=torch.float64)
    return [*cpu._arguments(call), strip, *parts, weight, 3.0, 127]


def _scale(o):
    """By one factor, or one for each row."""
    dtype = torch.float64 if o["dtype"] == torch.float64 else torch.float32
    rows = [torch.ones(o["m"], k, dtype=dtype) for k in (o["d"], 1)]
    factors = max(o["m"], 1) if o["seed"] % 2 else 1
    return [torch.full((factors,), 1.5, dtype=dtype), rows]


def _sort(name, o):
    g = torch.Generator().manual_seed(o["seed"])
    dtype = torch.float64 if o["dtype"] == torch.float64 else torch.float32
    x = torch.randn(o["m"], o["d"], generator=g).to(dtype)
    t = torch.randn(o["m"], 2, o["d"], generator=g).to(dtype)
    call = SortCall(x, t, torch.ones(o["m"], dtype=dtype), 0.25, "odd_even", "cauchy")
    arguments = list(cpu._sort_arguments(call))
    return arguments if name == "cpu_sort" else [*arguments, x, t, 7]


NAMES = (
    "cpu_forward", "cpu_backward", "cpu_pair_loss", "cpu_scale", "cpu_topk", "cpu_gather",
    "cpu_gather_backward", "cpu_sort", "cpu_sort_backward", "pair_stats", "gather_scores",
    "pair_topk",
)  # fmt: skip


@st.composite
def calls(draw, least=0):
    """An operator's name, a program and its options."""
    cosine = draw(st.booleans())
    options = {
        "m": draw(sizes(70, least)),
        "n": draw(sizes(130, least)),
        "d": draw(sizes(40, 1)),
        "lead": draw(st.sampled_from([(), (), (3,)])),
        "dtype": draw(st.sampled_from(DTYPES)),
        "symmetric": draw(st.booleans()),
        "vectors": draw(st.sampled_from(OPERANDS)),
        "cosine": cosine,
        "seed": draw(SEEDS),
    }
    program = tuple(draw(st.lists(channels(), min_size=1, max_size=3)))
    isa = draw(st.sampled_from(cpu.instruction_sets()))
    return draw(st.sampled_from(NAMES)), program, options, isa


# ---- changes ------------------------------------------------------------------------------------

CHANGES = {
    "another dtype": lambda v, k: v.to(_OTHERS[k % len(_OTHERS)]),
    "shorter": lambda v, k: v[..., :-1].contiguous() if v.ndim else v,
    "fewer rows": lambda v, k: v[: k % 2].contiguous() if v.ndim else v,
    "longer": lambda v, k: torch.cat([v, v[..., :1]], -1) if v.ndim else v.expand(3).contiguous(),
    "one dimension more": lambda v, k: v.unsqueeze(k % (v.ndim + 1)),
    "one dimension less": lambda v, k: v.flatten(0, 1) if v.ndim > 1 else v.flatten(),
    "0-dim": lambda v, k: v.flatten()[0].clone() if v.numel() else v.new_zeros(()),
    "empty": lambda v, k: v.flatten()[:0].clone(),
    "transposed": lambda v, k: column_major(v),
    "expanded": lambda v, k: v[:1].expand(v.shape) if v.ndim and v.shape[0] else v,
    "on meta": lambda v, k: v.to("meta"),
    "no features": lambda v, k: v.new_empty(*v.shape[:-1], 0) if v.ndim else v,
    "an extreme": lambda v, k: _with(v, k, EXTREMES),
    "another number": lambda v, k: _with(v, k, (1, 2, 3, -1, 7)),
}  # fmt: skip
_OTHERS = (torch.float64, torch.float32, torch.float16, torch.int64, torch.int32, torch.uint8)


def _with(value, k, numbers):
    """A copy with one number replaced."""
    if not value.numel():
        return value
    value = value.clone(memory_format=torch.contiguous_format)
    number = numbers[k % len(numbers)]
    if value.is_floating_point():
        number = (float(number), torch.nan, torch.inf)[k % 3]
    elif value.dtype != torch.int64:
        number = max(min(number, torch.iinfo(value.dtype).max), torch.iinfo(value.dtype).min)
    value.view(-1)[k // 7 % value.numel()] = number
    return value


@st.composite
def malformed(draw):
    change = st.tuples(
        st.integers(0, 40), st.sampled_from(sorted(CHANGES)), st.integers(0, (1 << 20) - 1)
    )
    return draw(calls()), draw(st.lists(change, min_size=1, max_size=3))


def leaves_of(arguments):
    """The position of every tensor, list, number and None: (argument, place in a list or None)."""
    for k, value in enumerate(arguments):
        if isinstance(value, list):
            yield from ((k, i) for i in range(len(value)))
        yield k, None


def changed(arguments, changes):
    """The arguments with all changes applied."""
    arguments = [list(v) if isinstance(v, (list, tuple)) else v for v in arguments]
    for which, change, number in changes:
        places = list(leaves_of(arguments))
        k, i = places[which % len(places)]
        value = arguments[k] if i is None else arguments[k][i]
        new = _replaced(value, change, number)
        if i is None:
            arguments[k] = new
        else:
            arguments[k][i] = new
    return arguments


def _replaced(value, change, number):
    if isinstance(value, torch.Tensor):
        return CHANGES[change](value, number)
    if isinstance(value, list):
        return [value[:-1], [], value + value[:1]][number % 3]
    if isinstance(value, torch.dtype):
        return _OTHERS[number % len(_OTHERS)]
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return EXTREMES[number % len(EXTREMES)]
    if isinstance(value, float):
        return (torch.nan, torch.inf, -1.0, 1e300)[number % 4]
    return None


def arguments_of(name, program, options):
    if name.startswith("cpu_"):
        return native(name, program, options)
    given, call = call_of(() if name == "gather_scores" else program, options)
    if name == "pair_stats":
        return list(given)
    if name == "gather_scores":
        return [*given, torch.zeros(*call.x.shape[:-1], 2, dtype=torch.int64).clamp(max=0)]
    given = list(call_of((MAX(pairs=program[0].pairs),), options)[0])
    return [*given, 3, None, None, [], None, 0]


def placed(arguments, guards):
    return [
        [guards.place(v) for v in value] if isinstance(value, list) else guards.place(value)
        for value in arguments
    ]


def check_malformed(case):
    (name, program, options, isa), changes = case
    with running(isa, 2), Guards() as guards:
        arguments = placed(changed(arguments_of(name, program, options), changes), guards)
        try:
            getattr(torch.ops.contrastloss, name)(*arguments)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, NotImplementedError,
                OverflowError, MemoryError):  # fmt: skip
            return  # an error or a result is allowed; ending the process is not


def _results(name, arguments):
    found = getattr(torch.ops.contrastloss, name)(*arguments)
    if name == "cpu_scale":
        return arguments[1]
    return [found] if isinstance(found, torch.Tensor) else found


def check_guarded(case):
    """Between guard pages a valid call gives the usual result, bit for bit."""
    name, program, options, isa = case
    if not name.startswith("cpu_"):
        return
    with running(isa, 2), Guards() as guards:
        torch.manual_seed(options["seed"])
        arguments = native(name, program, options)
        guarded = placed(arguments, guards)
        want, got = _results(name, arguments), _results(name, guarded)
        for a, b in itertools.zip_longest(want, got):
            assert torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0)), name


TARGETS = {"guarded": (calls(1), check_guarded), "malformed": (malformed(), check_malformed)}
