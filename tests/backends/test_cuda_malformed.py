"""The CUDA operators called without the Python layer. Every wrong operand raises RuntimeError, and
no number in a table makes a kernel access memory outside the tensors."""

import pytest
import torch

from contrastloss.backends import Operands, PairCall, Selection, SortCall, cuda, position_keys
from contrastloss.backends.call import NATIVE
from contrastloss.backends.network import SORT
from contrastloss.backends.topk import SELECTION
from contrastloss.channel import (
    COL,
    EXPECT,
    INDEX,
    LSE,
    MAX,
    SUM,
    differs,
    distance,
    form,
    row_weight,
    same,
    within,
)
from contrastloss.program import Program

pytestmark = pytest.mark.usefixtures("cuda_backend")

M, N, D, B, K = 5, 7, 4, 2, 3
PROGRAM = Program(
    (
        LSE(2.0, pairs=(same("label"), within(INDEX, 3)), weight=(row_weight("u"), form("soft"))),
        SUM("relu", shift="margin", weight=(distance("age"),)),
        EXPECT(axis=COL),
        MAX(pairs=(differs("label"),)),
    ),
    ("label", "u", "soft", "margin", "age"),
    ("label", "soft", "age"),
)
OPERATORS = (
    "forward", "measure", "backward", "begin", "h_block", "totals", "finish",
    "topk", "gather", "gather_backward", "sort", "sort_backward",
)  # fmt: skip
VALUES = 6  # how many values the program returns


def names(schema):
    return [part.split()[-1] for part in schema.split(", ")]


def operands(device, program):
    def floats(*shape):
        return torch.randn(B, *shape, device=device)

    rows = {"label": torch.arange(M), "u": floats(M), "soft": floats(M, 2), "margin": floats(M)}
    cols = {"label": torch.arange(N) % 3, "soft": floats(N, 2), "age": floats(N)}
    rows["age"] = floats(M)
    for side in (rows, cols):
        side["label"] = side["label"].to(device).expand(B, -1).contiguous()
    operands = Operands(
        floats(M, D), floats(N, D), torch.tensor(1.5, device=device), floats(M), floats(N),
        floats(M), floats(N), tuple(rows[n] for n in program.rows),
        tuple(cols[n] for n in program.cols),
    )  # fmt: skip
    return PairCall(operands, program, True, torch.float32)


def valid(operator, device):
    """The operator, and valid arguments by name."""
    torch.manual_seed(0)
    ops = torch.ops.contrastloss
    best = Program((MAX(pairs=(differs("label"),)),), ("label",), ("label",))
    program = best if operator in ("topk", "gather", "gather_backward") else PROGRAM
    call = operands(device, program)
    given = dict(zip(names(NATIVE), cuda._arguments(call), strict=True))
    measured = ops.cuda_measure(*given.values())
    if operator == "forward":
        given["tf32"] = False
    if operator in ("backward", "begin", "h_block", "totals"):
        outputs = ops.cuda_forward(*given.values(), False)
        live = [k for k, v in enumerate(outputs) if v.is_floating_point()]
        flags = sum(1 << k for k in live)
        given |= {"outputs": outputs, "grads": [outputs[k].clone() for k in live], "live": flags}
        given |= {"needs": 127, "tf32": False}
        gain, h = torch.ones((), device=device), torch.empty(B, M, 8, device=device)[..., :N]
        if operator == "backward":
            given |= {"gain": gain, "narrow": True, "width": D - 1}
        else:
            given |= {"block_rows": M, "block_cols": N}
        if operator in ("h_block", "totals"):
            given["state"] = ops.cuda_begin(*given.values())
        if operator == "h_block":
            given |= {"gain": gain, "h": h, "i": 0, "j": 0}
    elif operator == "finish":
        inverse = measured[1].view(2, B, M)[0].contiguous()
        given = {"sums": torch.randn(B, M, D, device=device), "x": call.x, "inverse": inverse}
        given |= {"gain": torch.ones((), device=device), "narrow": True, "width": D - 1}
    elif operator == "topk":
        keys = [
            position_keys(torch.arange(n, device=device).expand(B, -1), 1, a)
            for a, n in enumerate((M, N))
        ]
        offsets = torch.arange(B * M + 1, device=device)
        low = torch.full((B, M), -9.0, device=device)
        chosen = Selection(K, low, -low, (offsets, offsets[:-1] % N), 0.5, *keys)
        given |= dict(zip(names(SELECTION), chosen.native(), strict=True))
        given["list_bytes"] = 1 << 20
    elif operator.startswith("gather"):
        given["index"] = torch.randint(-1, N, (B, M, K), device=device)
        if operator == "gather_backward":
            order, starts = cuda._by_column(given["index"], N)
            given |= {"grad": torch.randn(B, M, K, device=device), "order": order}
            given |= {"starts": starts.long(), "measured": measured, "needs": 127}
    elif operator.startswith("sort"):
        x, t = torch.randn(M, N, device=device), torch.randn(M, 2, N, device=device)
        sort = SortCall(x, t, torch.ones(M, device=device), 0.25, "bitonic", "cauchy")
        given = dict(zip((*names(SORT), "starts"), cuda._sort_arguments(sort), strict=True))
        if operator == "sort_backward":
            given |= {"grad_sorted": x, "grad_mass": t, "needs": 7}
    return getattr(ops, f"cuda_{operator}"), given


#: ways to make a tensor invalid
MUTATIONS = {
    "dtype": lambda t: t.to(torch.int32 if t.dtype != torch.int32 else torch.int64),
    "wide": lambda t: t.to(torch.float64 if t.dtype != torch.float64 else torch.float32),
    "device": lambda t: t.to("meta"),
    "shorter": lambda t: t[..., :-1].contiguous() if t.ndim else t.new_empty(0),
    "longer": lambda t: torch.cat([t, t], -1) if t.ndim else t.expand(2).contiguous(),
    "strided": lambda t: torch.stack([t, t], -1)[..., 0],
    "empty": lambda t: t.new_empty(0),
}


def tensors(given):
    """(name, place in a list or None) of every tensor."""
    for name, value in given.items():
        if isinstance(value, torch.Tensor):
            yield name, None
        elif isinstance(value, list):
            yield from ((name, k) for k in range(len(value)))


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_tensor(device, operator):
    """Replaces each tensor in turn by one of another dtype, device, shape or layout."""
    function, given = valid(operator, device)
    function(*given.values())
    accepted = []
    for name, place in tensors(given):
        for wrong, mutate in MUTATIONS.items():
            changed = dict(given)
            value = given[name] if place is None else given[name][place]
            mutated = mutate(value)
            if wrong == "strided" and (mutated.is_contiguous() or name == "h"):
                continue
            if place is None:
                changed[name] = mutated
            else:
                changed[name] = [*given[name]]
                changed[name][place] = mutated
            try:
                function(*changed.values())
            except RuntimeError:
                continue
            accepted.append((name, place, wrong))
    # values that no code refers to are not read; some lists and tables may have any length
    fits = {("values", None, "longer"), ("code", None, "longer"), ("ignore", 1, "empty")}
    free = {"topk": ("ignore", 1), "gather": ("index", None)}.get(operator, ("starts", None))
    if operator != "gather_backward":
        fits |= {(*free, wrong) for wrong in ("shorter", "longer")}
    assert set(accepted) <= fits


WRONG = {
    "rank of y": ("forward", {"y": lambda y: y[0]}, "y: got 2 dimensions, expected 3"),
    "batch of y": ("forward", {"y": lambda y: y[:1]}, "y: "),
    "no features": ("forward", {"x": lambda x: x[..., :0], "y": lambda y: y[..., :0]}, "x: "),
    "a code that ends": ("forward", {"code": lambda c: c[:-1]}, "program: "),
    "an output less": ("begin", {"outputs": lambda o: o[1:]}, "outputs: got 5 tensors, expected 6"),
    "an output more": ("h_block", {"outputs": lambda o: [*o, o[0]]}, "outputs: got 7 tensors"),
    "no outputs": ("totals", {"outputs": lambda _: []}, "outputs: got 0 tensors, expected 6"),
    "a gradient less": ("h_block", {"grads": lambda g: g[1:]}, "grads: got 4 tensors, expected 5"),
    "live below 0": ("begin", {"live": lambda _: -1}, "live: got -1, expected 0 to 63"),
    "live beyond": ("begin", {"live": lambda _: 1 << 40}, f"live: got {1 << 40}, expected 0 to 63"),
    "a live index": ("begin", {"live": lambda _: 1 << 5, "grads": lambda g: g[:1]}, "live: got an"),
    "no rows": ("begin", {"block_rows": lambda _: 0}, "block_rows: got 0, expected 1 to 5"),
    "huge blocks": ("begin", {"block_cols": lambda _: 1 << 62}, "block_cols: got .* 1 to 7"),
    "other slices": ("totals", {"block_rows": lambda _: 1 << 20}, "block_rows: got .* 1 to 5"),
    "no norms of columns": ("h_block", {"state": lambda s: s[:4]}, "state: got 4 tensors, exp.* 5"),
    "bounds only": ("h_block", {"state": lambda s: s[2:3]}, "state: got 1 tensors, expected 5"),
    "sums of none": ("totals", {"state": lambda _: []}, "state: got 0 tensors, expected 5"),
    "above": ("h_block", {"i": lambda _: -1}, "i: got -1, expected 0 to 0"),
    "below": ("h_block", {"i": lambda _: 1 << 32}, "i: got 4294967296, expected 0 to 0"),
    "to the right": ("h_block", {"j": lambda _: 1}, "j: got 1, expected 0 to 0"),
    "unaligned rows": ("h_block", {"h": lambda h: h.contiguous()}, "h: got strides"),
    "rows that overlap": ("h_block", {"h": lambda h: h[:, :1].expand(B, M, N)}, "h: got strides"),
    "a block of another rank": ("h_block", {"h": lambda h: h[0]}, "h: expected 3 dimensions"),
    "rows of 20 bytes": (
        "forward",
        {
            "x": lambda x: torch.cat([x, x[..., :1]], -1),
            "y": lambda y: torch.cat([y, y[..., :1]], -1),
        },
        "x, y: expected rows that begin at multiples of 16 bytes, got 5 features",
    ),
    "a width of 0": ("finish", {"width": lambda _: 0}, "width: got 0, expected 1 to 4"),
    "k of 0": ("topk", {"k": lambda _: 0}, "k: got 0, expected 1 to"),
    "a huge k": ("topk", {"k": lambda _: 1 << 31}, "k: got 2147483648, expected 1 to"),
    "keys of rows": ("topk", {"col_keys": lambda _: None}, "keys: got only row keys or only"),
    "offsets only": ("topk", {"ignore": lambda v: v[:1]}, "ignore: got 1 tensors, expected 2"),
    "flat keys": ("topk", {"row_keys": lambda k: k.flatten()}, "row_keys: got shape"),
    "a flat index": ("gather", {"index": lambda k: k.flatten(1)}, "index: "),
    "an index of a row": ("gather", {"index": lambda k: k[:, :1].contiguous()}, "index: got shape"),
    "no order": ("gather_backward", {"order": lambda _: None}, "order, starts: expected"),
    "no starts": ("gather_backward", {"starts": lambda _: None}, "order, starts: expected"),
    "no norms": ("gather_backward", {"measured": lambda _: []}, "measured: got 0 tensors"),
    "a distribution below": ("sort", {"distribution": lambda _: -1}, "distribution: got -1"),
    "a distribution beyond": ("sort", {"distribution": lambda _: 6}, "distribution: got 6"),
    "no layers": ("sort", {"starts": lambda s: s[:0]}, "layers: got -1, expected 0 to"),
    "flat comparators": ("sort", {"ends": lambda e: e.flatten()}, "comparators: expected"),
    "masses of others": ("sort", {"t": lambda t: t[:3]}, "t: got shape"),
    "a vector of x": ("finish", {"x": lambda x: x.flatten()}, "x: got 1 dimensions, expected 3"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong(device, case):
    """The error message names the wrong argument."""
    operator, changes, message = WRONG[case]
    function, given = valid(operator, device)
    changed = {**given, **{name: change(given[name]) for name, change in changes.items()}}
    with pytest.raises(RuntimeError, match=message):
        function(*changed.values())


def test_a_row_longer_than_a_block_holds(device):
    function, given = valid("sort", device)
    wires = cuda.WIRES + 1
    given |= {"x": torch.ones(M, wires, device=device), "t": torch.ones(M, 2, wires, device=device)}
    with pytest.raises(RuntimeError, match=f"x: numbers of a row: got {wires}, expected 1 to"):
        function(*given.values())


def test_a_program_of_columns_has_no_best(device):
    function, given = valid("topk", device)
    code = given["code"].clone()
    assert code[-7] == 0  # the channel's axis
    code[-7] = 1
    with pytest.raises(RuntimeError, match="program: expected one MAX channel of rows"):
        function(*{**given, "code": code}.values())


@pytest.mark.parametrize(
    "operator", ["forward", "backward", "begin", "h_block", "totals", "topk", "gather"]
)
def test_programs(device, operator):
    """Any number in place of another gives a valid program or an error."""
    function, given = valid(operator, device)
    refused = 0
    for place in range(len(given["code"])):
        for number in (-(2**63), -2, -1, 0, 1, 3, 99, 2**31, 2**40, 2**63 - 1):
            code = given["code"].clone()
            code[place] = number
            try:
                function(*{**given, "code": code}.values())
            except RuntimeError:
                refused += 1
    assert refused > len(given["code"])


def test_extents_whose_products_wrap(device):
    """In 64 bits, 4 times 2^62 wraps to 0, and 2^63 + 1 times an even number wraps to that
    number."""
    x, empty = torch.ones(4, 2, device=device), torch.empty(0, 2**62, device=device)
    program = Program((LSE(weight=(form("f"),)),), ("f",), ("f",))
    call = PairCall(Operands(x, x, rows=(empty,), cols=(empty,)), program, False, x.dtype)
    with pytest.raises(RuntimeError, match=f"operand: got a form of extent {2**62}, expected"):
        cuda.pair_stats_forward(call)
    program = Program((LSE(weight=(row_weight("u"),)),), ("u",), ())
    call = PairCall(Operands(x, x, rows=(x[:, 0].contiguous(),)), program, False, x.dtype)
    given = dict(zip(names(NATIVE), cuda._arguments(call), strict=True))
    code = given["code"].clone()
    assert code[5] == 1  # how many names the weight has
    code[5] = 1 - 2**63
    with pytest.raises(
        RuntimeError, match=f"program: got a weight with {1 - 2**63} names, expected 1"
    ):
        torch.ops.contrastloss.cuda_forward(*{**given, "code": code}.values(), False)


#: integers for tables that only the device reads, so that they are not checked beforehand
ODD = (-(2**31), -1, 0, 1, 2, 6, 7, 1000, 2**31 - 1)


@pytest.mark.parametrize(
    ("operator", "table"),
    [
        ("gather", "index"),
        ("gather_backward", "index"),
        ("gather_backward", "order"),
        ("gather_backward", "starts"),
        ("sort", "ends"),
        ("sort", "starts"),
        ("sort_backward", "ends"),
        ("sort_backward", "starts"),
        ("topk", "ignore"),
    ],
)
def test_tables(device, operator, table):
    """Tables of invalid numbers: results have the right shapes, and no memory outside the tensors
    is read or written, which AddressSanitizer checks."""
    function, given = valid(operator, device)
    want = function(*given.values())
    odd = torch.tensor(ODD, device=device)

    def scrambled(value, seed):
        g = torch.Generator().manual_seed(seed)
        picked = torch.randint(len(ODD), value.shape, generator=g).to(device)
        return odd[picked].to(value.dtype)

    for seed in range(20):
        value = given[table]
        changed = (
            [scrambled(v, seed) for v in value]
            if isinstance(value, list)
            else scrambled(value, seed)
        )
        found = function(*{**given, table: changed}.values())
        pairs = zip(*((v if isinstance(v, list) else [v]) for v in (found, want)), strict=True)
        assert all(a.shape == b.shape and a.dtype == b.dtype for a, b in pairs)
