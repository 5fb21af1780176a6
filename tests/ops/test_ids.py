"""Comparisons of ids agree with Python's integers: for every integer dtype, its extreme values, and
large widths."""

import itertools

import pytest
import torch

from contrastloss.channel import COL, INDEX, ROW, SUM, differing, differs, precedes, same, within
from contrastloss.ops import pair_stats, pair_topk

DTYPES = [
    getattr(torch, name)
    for name in ("bool", "uint8", "int8", "int16", "int32", "int64", "uint16", "uint32")
]
WIDTHS = (0, 1, 200, 2**31, 2**63 - 1, -1, -(2**63))
#: tests of an id, and the same comparison of two Python integers
TESTS = [
    (same, lambda a, b: a == b),
    (differs, lambda a, b: a != b),
    (precedes, lambda a, b: a < b),
    *((lambda name, w=w: within(name, w), lambda a, b, w=w: abs(a - b) <= w) for w in WIDTHS),
]


def extremes(dtype):
    if dtype == torch.bool:
        return [0, 1]
    info = torch.iinfo(dtype)
    return sorted({info.min, info.min + 1, -1 if info.min else 1, 0, 127, info.max - 1, info.max})


def vector(numbers, dtype, device):
    return torch.tensor(numbers, dtype=torch.int64).to(dtype).to(device)


def wrong(name, rows, cols, axis, backend, device, given=(ROW, COL)):
    """Descriptions of the channels that select other pairs than Python does. Column (or row) j has
    the score 2^j with everything, so a sum shows which pairs were selected."""
    powers = [
        torch.tensor([[2.0**k] for k in range(len(v))], dtype=torch.float64, device=device)
        for v in (rows, cols)
    ]
    one = [torch.ones_like(v) for v in powers]
    x, y = (one[0], powers[1]) if axis == ROW else (powers[0], one[1])
    operands = {f"{a}s": {name: v} for a, v in ((ROW, rows), (COL, cols)) if a in given}
    channels = [SUM("id", pairs=(test(name),), axis=axis) for test, _ in TESTS]
    rules = [passes for _, passes in TESTS]
    if len(given) == 2:
        channels.append(SUM("id", weight=(differing(name),), axis=axis))
        rules.append(lambda a, b: a != b)
    found = []
    for channel, passes in zip(channels, rules, strict=True):
        (got,) = pair_stats(x, y, (channel,), backend=backend, **operands)
        hits = [[passes(a, b) for b in cols.tolist()] for a in rows.tolist()]
        lines = hits if axis == ROW else zip(*hits, strict=True)
        want = [float(sum(hit << place for place, hit in enumerate(line))) for line in lines]
        if got.tolist() != want:
            what = f"{rows.dtype}, {cols.dtype}, {channel.pairs or channel.weight}"
            found.append(f"{what}: {got.tolist()}, expected {want}")
    return found


@pytest.mark.parametrize("axis", [ROW, COL])
@pytest.mark.parametrize("name", ["label", INDEX])
def test_ids_are_integers(backend, device, name, axis):
    found = []
    for kinds in itertools.product(DTYPES, DTYPES):
        rows, cols = (vector(extremes(kind), kind, device) for kind in kinds)
        found += wrong(name, rows, cols, axis, backend, device)
    assert not found, f"{len(found)} wrong\n" + "\n".join(found[:20])


@pytest.mark.parametrize("axis", [ROW, COL])
def test_positions_are_integers(backend, device, axis):
    """Given positions, up to the limits of int64, compare correctly with each other and with
    default positions."""
    low, high = (torch.arange(9, device=device) + end for end in (-(2**63), 2**63 - 9))
    counted, found = torch.arange(9, device=device), []
    for ends in itertools.product((low, high, None), repeat=2):
        given = [side for side, end in zip((ROW, COL), ends, strict=True) if end is not None]
        rows, cols = (counted if end is None else end for end in ends)
        found += wrong(INDEX, rows, cols, axis, backend, device, given)
    assert not found, f"{len(found)} wrong\n" + "\n".join(found[:20])


@pytest.mark.parametrize("width", WIDTHS)
def test_candidates_within_a_width(backend, device, width):
    numbers = extremes(torch.int64)
    ids, n = vector(numbers, torch.int64, device), len(numbers)
    x, y = torch.ones(n, 1, device=device), -torch.arange(n, device=device)[:, None].float()
    options = {"rows": {"a": ids}, "cols": {"a": ids}, "backend": backend}
    found = pair_topk(x, y, n, pairs=(within("a", width),), **options).indices
    for row, a in zip(found.tolist(), numbers, strict=True):
        near = [j for j, b in enumerate(numbers) if abs(a - b) <= width]
        assert row == near + [-1] * (n - len(near))


def test_bad_ids():
    x, ids = torch.ones(2, 1), torch.tensor([0, 2**64 - 1], dtype=torch.uint64)
    with pytest.raises(TypeError, match=r"^rows\['a'\]: got dtype torch.uint64, expected"):
        pair_stats(x, None, (SUM("one", pairs=(same("a"),)),), rows={"a": ids})
    for width in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError, match=r"^width: got .*, expected one that fits in it"):
            within("a", width)
    for width in (1.5, "1"):
        with pytest.raises(TypeError, match=r"^width: got .*, expected an integer"):
            within("a", width)
