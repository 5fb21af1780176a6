"""What calls say of this rank's rows (positives, weights, corrections, negatives, ids) gives the
value and the gradients of one process on the whole batch."""

import pytest
import torch
from ranks import compare
from spread import own_step

from contrastloss.losses import LOSSES

STRATEGIES = ("gather", "ring")
WORLDS = [pytest.param(world, marks=pytest.mark.extra) for world in (1, 2, 4)]
#: rows of x and rows of y on every rank
SIZES = {
    1: ([5], [7]),
    2: ([4, 5], [6, 2]),
    3: ([3, 0, 5], [2, 4, 1]),
    4: ([2, 3, 0, 4], [3, 0, 4, 1]),
}
D = 4


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def listed(form, ms, ns):
    """Positives of every rank, and those of the whole batch."""
    masks = [torch.rand(m, n) < 0.5 for m, n in zip(ms, ns, strict=True)]
    if form == "index":
        parts = [torch.randint(-1, n, (m,)) for m, n in zip(ms, ns, strict=True)]
        starts = torch.tensor([0, *ns]).cumsum(0)
        moved = [torch.where(p < 0, p, p + s) for p, s in zip(parts, starts[:-1], strict=True)]
        return parts, torch.cat(moved)
    whole = torch.block_diag(*masks).bool()
    if form == "pairs":
        return [mask.nonzero() for mask in masks], whole.nonzero()
    return [offsets_of(mask) for mask in masks], offsets_of(whole)


def offsets_of(mask):
    first = torch.zeros(1, dtype=torch.int64)
    return torch.cat([first, mask.sum(1).cumsum(0)]), mask.nonzero()[:, 1]


#: a loss, its options, how positives are said, and what else comes with each row of x (M), each row
#: of y (N), or as three rows of every rank (K)
ROWS = {"row_weight": "M", "log_q": "N"}
GIVEN = {"negatives": "K D", "negatives_log_q": "K"}
CASES = [
    ("info_nce", {"label_smoothing": 0.2}, "index", {**ROWS, **GIVEN}),
    ("info_nce", {"variant": "in"}, "pairs", {"log_q": "N", "negatives": "M 2 D"}),
    ("info_nce", {"in_batch_negatives": False}, "ids", {**GIVEN, "row_weight": "M"}),
    ("info_nce", {"label_smoothing": 0.2}, "aligned", {**ROWS, **GIVEN, "ids": "M int"}),
    ("clip", {"label_smoothing": 0.1}, "ids", {**GIVEN, "log_q": "N", "x_log_q": "M"}),
    ("clip", {"label_smoothing": 0.1}, "offsets", {"x_negatives": "K D", "x_log_q": "M"}),
    ("clip", {"variant": "in", "in_batch_negatives": False}, "index", {"x_negatives": "N 2 D"}),
    ("clip", {"label_smoothing": 0.1}, "aligned", {"x_log_q": "M", **ROWS, "x_negatives": "K D"}),
    ("siglip", {"positive_weight": "inverse_count"}, "ids", {"row_weight": "M"}),
    ("siglip", {"positive_weight": "inverse_count"}, "pairs", {"negatives": "K D"}),
    ("nt_xent", {}, "aligned", {**ROWS, **GIVEN, "ids": "M int"}),
    ("supcon", {"label_smoothing": 0.2}, "labels", {**ROWS, **GIVEN, "ids": "M int"}),
    ("cross_supcon", {}, "both", {"row_weight": "M", "ids": "M int"}),
    ("gist", {}, "aligned", {"row_weight": "M", "ids": "M int"}),
    ("gist", {"margin": -0.1}, "aligned", {"guide": "self", "negatives": "K D", "ids": "M int"}),
    ("gist", {"margin": 0.1}, "aligned", {"guide": "self", "negatives": "M 2 D"}),
]


def draw(form, more, ms, ns):
    """The arguments of every rank, and of one process with all rows."""
    square = form in ("aligned", "labels", "both")
    ns = ms if square else ns
    sides = {"z": ms} if form == "labels" else {"x": ms, "y": ns}
    whole = {name: [leaf(size, D) for size in sizes] for name, sizes in sides.items()}
    if form in ("labels", "both"):
        whole["labels"] = [torch.randint(0, 3, (m,)) for m in ms]
    if form == "ids":
        whole["x_ids"] = [torch.randint(0, 5, (m,)) for m in ms]
        whole["y_ids"] = [torch.randint(0, 5, (n,)) for n in ns]
    for name, spec in more.items():
        if spec == "self":
            continue
        first, *rest = spec.split()
        sizes = {"M": ms, "N": ns, "K": [3] * len(ms)}[first]
        if rest == ["int"]:
            whole[name] = [torch.randint(0, 4, (size,)) for size in sizes]
        else:
            tail = [D if word == "D" else int(word) for word in rest]
            whole[name] = [leaf(size, *tail) for size in sizes]
    pieces = [{name: v[rank] for name, v in whole.items()} for rank in range(len(ms))]
    joined = {name: torch.cat(v) for name, v in whole.items()}
    if form in ("index", "pairs", "offsets"):
        parts, joined["positives"] = listed(form, ms, ns)
        pieces = [{**own, "positives": p} for own, p in zip(pieces, parts, strict=True)]
    return pieces, joined


@pytest.mark.parametrize("world", [*WORLDS, 3])
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize(("name", "options", "form", "more"), CASES)
def test_a_step_is_that_of_one_process(ranks, name, options, form, more, strategy, world):
    cls = LOSSES[name]
    pieces, joined = draw(form, more, *SIZES[world])
    common = {name: spec for name, spec in more.items() if spec == "self"}
    leaves = {n: v.requires_grad_() for n, v in joined.items() if floating(v)}
    value = cls(temperature=0.3, **options)(**joined, **common)
    assert value.abs() > 0.05
    want = value.detach(), torch.autograd.grad(value, tuple(leaves.values())), {}
    given = {"temperature": 0.3, **options, "strategy": strategy}
    found = ranks.run(own_step, world, cls, given, pieces, common)
    compare(found, want, world, f"{name} {form}")


def floating(value):
    return isinstance(value, torch.Tensor) and value.is_floating_point()
