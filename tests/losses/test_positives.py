"""Several positives, rectangles, weights and smoothing: InfoNCE, CLIP and SigLIP against formulas
over dense scores, with whatever else a call may say."""

import pytest
import torch
from dense import mean_of, products, sigmoid_loss, softmax_loss

from contrastloss import CLIPLoss, InfoNCELoss, SigLIPLoss, functional
from contrastloss.memory import EmbeddingQueue

D, TAU = 6, 0.3
PLACE = torch.tensor([0, 1, -1, 3])
SHAPES = [(7, 7), (5, 9), (9, 4), (1, 3), (33, 65)]
FORMS = ("index", "pairs", "offsets", "ids")


def draw(m, n, form):
    """Which pairs are positives, and the arguments that say it."""
    if form == "index":
        index = torch.randint(-1, n, (m,))
        return index[:, None] == torch.arange(n), {"positives": index}
    if form == "ids":
        x_ids, y_ids = torch.randint(0, n // 2 + 1, (m,)), torch.randint(0, n // 2 + 1, (n,))
        return x_ids[:, None] == y_ids, {"x_ids": x_ids, "y_ids": y_ids}
    positive = torch.rand(m, n) < 2 / n
    pairs = positive.nonzero()
    if form == "pairs":
        return positive, {"positives": pairs[torch.randperm(len(pairs))]}
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), positive.sum(1).cumsum(0)])
    return positive, {"positives": (offsets, pairs[:, 1])}


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def further(kind, m):
    """Negatives of a call, for the loss and for the formula."""
    if kind == "none":
        return {}, {}
    if kind == "shared":
        values, log_q = leaf(3, D), leaf(3)
        return {"negatives": values, "negatives_log_q": log_q}, {
            "negatives": values, "negatives_log_q": log_q,
        }  # fmt: skip
    values, mask, log_q = leaf(m, 4, D), torch.rand(m, 4) < 0.6, leaf(m, 4)
    if kind == "own":
        return (
            {"negatives": values, "negatives_mask": mask, "negatives_log_q": log_q},
            {"negatives": values, "mask": mask, "negatives_log_q": log_q},
        )
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    ragged = {"negatives": values[mask], "negatives_offsets": offsets}
    return (
        {**ragged, "negatives_log_q": log_q[mask]},
        {"negatives": values, "mask": mask, "negatives_log_q": log_q},
    )


def compare(found, want, leaves):
    """The values and the gradients of all leaves."""
    torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-11)
    got = torch.autograd.grad(found, leaves, retain_graph=True, materialize_grads=True)
    expected = torch.autograd.grad(want, leaves, retain_graph=True, materialize_grads=True)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


CASES = [
    (shape, form, variant, in_batch, kind)
    for k, shape in enumerate(SHAPES)
    for j, form in enumerate(FORMS)
    for variant in ("out", "in")
    for in_batch in (True, False)
    for kind in [("none", "shared", "own", "ragged")[(k + j + in_batch) % 4]]
]


@pytest.mark.parametrize(("shape", "form", "variant", "in_batch", "kind"), CASES)
@pytest.mark.parametrize("cls", [InfoNCELoss, CLIPLoss])
def test_softmax_losses(cls, shape, form, variant, in_batch, kind, backend):
    m, n = shape
    both, smoothing = cls is CLIPLoss, 0.2 if (m + n) % 2 == 0 else 0.0
    positive, said = draw(m, n, form)
    x, y, log_q, x_log_q, weight, more = (
        leaf(m, D),
        leaf(n, D),
        leaf(n),
        leaf(m),
        leaf(m),
        leaf(2, D),
    )
    ours, dense = further(kind, m)
    common = {"log_q": log_q, **({"x_log_q": x_log_q, "x_negatives": more} if both else {})}
    own = {} if both else {"row_weight": weight}
    found = softmax_loss(
        x, y, positive, both=both, temperature=TAU, variant=variant, in_batch=in_batch,
        label_smoothing=smoothing, **common, **own, **dense,
    )  # fmt: skip
    leaves = [x, y, *common.values(), *own.values()]
    leaves += [v for k, v in dense.items() if k != "mask"]
    options = {
        "temperature": TAU, "variant": variant, "in_batch_negatives": in_batch,
        "label_smoothing": smoothing, "backend": backend,
    }  # fmt: skip
    given = {**said, **ours, **common, **own}
    rows = cls(**options, reduction="none")(x, y, **given)
    for value, (want, _) in zip(rows if both else [rows], found, strict=True):
        torch.testing.assert_close(value, want, rtol=1e-10, atol=1e-11)
    mean, total = (cls(**options, reduction=r)(x, y, **given) for r in ("mean", "sum"))
    compare(mean, sum(mean_of(*row) for row in found) / len(found), leaves)
    compare(total, sum(losses.sum() for losses, _ in found) / len(found), leaves)


@pytest.mark.parametrize(("shape", "form", "variant", "in_batch", "kind"), CASES)
def test_sigmoid_losses(shape, form, variant, in_batch, kind, backend):
    m, n = shape
    positive, said = draw(m, n, form)
    x, y, weight = leaf(m, D), leaf(n, D), leaf(m)
    ours, dense = further(kind, m)
    ours.pop("negatives_log_q", None)
    dense.pop("negatives_log_q", None)
    scheme = "one" if variant == "out" else "inverse_count"
    want = sigmoid_loss(
        x, y, positive, temperature=TAU, weight=scheme, in_batch=in_batch, row_weight=weight,
        **dense,
    )  # fmt: skip
    loss = SigLIPLoss(
        TAU, -4.0, positive_weight=scheme, in_batch_negatives=in_batch, backend=backend
    )
    found = loss(x, y, **said, **ours, row_weight=weight)
    leaves = [x, y, weight, *[v for k, v in dense.items() if k != "mask"]]
    compare(found, want.sum() / m, leaves)


@pytest.mark.parametrize("cls", [InfoNCELoss, CLIPLoss, SigLIPLoss])
def test_one_positive_each_is_the_aligned_loss(cls, backend):
    """Whichever way it is said that row i's positive is column i, statistics included."""
    x, y = leaf(6, D), leaf(6, D)
    loss, place = cls(return_stats=True, backend=backend), torch.arange(6)
    value, stats = loss(x, y)
    for said in (
        {"positives": place},
        {"positives": place.tolist()},
        {"x_ids": place + 7, "y_ids": place + 7},
    ):
        found, shown = loss(x, y, **said)
        compare(found, value, [x, y])
        for name, number in stats.items():
            torch.testing.assert_close(shown[name], number, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("in_batch", [True, False])
@pytest.mark.parametrize("cls", [InfoNCELoss, CLIPLoss, SigLIPLoss])
def test_statistics(cls, in_batch, backend):
    m, n = 8, 5
    x, y, more = leaf(m, D), leaf(n, D), leaf(3, D)
    said = {"x_ids": torch.arange(m) % 6, "y_ids": torch.tensor([0, 1, 1, 2, 4])}
    positive = said["x_ids"][:, None] == said["y_ids"]
    loss = cls(TAU, in_batch_negatives=in_batch, return_stats=True, backend=backend)
    plain = cls(TAU, in_batch_negatives=in_batch, backend=backend)
    value, stats = loss(x, y, more, **said)
    torch.testing.assert_close(value, plain(x, y, more, **said))
    bias = getattr(loss, "bias", 0.0)
    s, t = products(x, y) / TAU + bias, products(x, more) / TAU + bias
    some = positive.any(1)
    others = torch.cat([s.masked_fill(positive | (not in_batch), -torch.inf), t], 1)
    every = torch.cat([s.masked_fill(~(positive | in_batch), -torch.inf), t], 1)
    best = s.masked_fill(~positive, -torch.inf).amax(1)
    mean = torch.where(positive, s, 0.0).sum(1) / positive.sum(1).clamp_min(1)
    want = {
        "accuracy": (best > others.amax(1)).double(),
        "positive": mean,
        "hardest_negative": others.amax(1),
        "lse": every.logsumexp(1),
    }
    assert 0 < some.sum() < m
    for name, rows in want.items():
        torch.testing.assert_close(stats[name], rows[some].mean(), msg=name)


@pytest.mark.parametrize("cls", [InfoNCELoss, CLIPLoss, SigLIPLoss])
def test_queues_leave_out_equal_ids(cls, backend):
    """Stored columns are negatives, but for those of a row's id; without ids all of them are."""
    m, n = 6, 4
    x, y = leaf(m, D), leaf(n, D)
    positive, said = draw(m, n, "ids")
    stored = torch.randn(3, D, dtype=torch.float64)
    numbers = torch.tensor([1, 90, 0])
    loss = cls(TAU, reduction="none", backend=backend)

    def queue(ids):
        held = EmbeddingQueue(5, D, ids=ids, dtype=torch.float64)
        held.enqueue(stored, **({"ids": numbers} if ids else {}))
        return (held, held) if loss.both_sides else held

    for ids in (True, False):
        found = loss(x, y, memory=queue(ids), **said)
        if ids and loss.both_sides:  # each queue for itself
            mixed = loss(x, y, memory=(queue(True)[0], queue(False)[0]), **said)
            torch.testing.assert_close(mixed[0], found[0])
            torch.testing.assert_close(mixed[1], loss(x, y, memory=queue(False), **said)[1])
        mask = (said["x_ids"][:, None] != numbers) | (not ids)
        of_cols = (said["y_ids"][:, None] != numbers) | (not ids)
        own = stored.expand(m, 3, D), mask
        if cls is SigLIPLoss:
            options = {"negatives": own[0], "mask": mask}
            want = [sigmoid_loss(x, y, positive, temperature=TAU, bias=-10.0, **options)]
        else:
            rows = softmax_loss(x, y, positive, temperature=TAU, negatives=own[0], mask=mask)[0][0]
            want = [rows]
            if cls is CLIPLoss:
                cols = softmax_loss(
                    y, x, positive.mT, temperature=TAU, negatives=stored.expand(n, 3, D),
                    mask=of_cols,
                )[0][0]  # fmt: skip
                want.append(cols)
        for got, rows in zip(found if isinstance(found, tuple) else [found], want, strict=True):
            torch.testing.assert_close(got, rows, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("form", ["ids", "pairs"])
@pytest.mark.parametrize("cls", [InfoNCELoss, CLIPLoss, SigLIPLoss])
def test_low_precision(cls, form, device):
    """bf16 embeddings: products in bf16, everything else in fp32."""
    _, said = draw(20, 30, form)
    x, y = leaf(20, 16), leaf(30, 16)
    want = cls()(x.bfloat16().double(), y.bfloat16().double(), **said)
    got = cls()(x.bfloat16(), y.bfloat16(), **said)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got.double(), want, rtol=1e-5, atol=1e-6)
    ours, dense = (torch.autograd.grad(v, (x, y)) for v in (got, want))
    for a, b in zip(ours, dense, strict=True):
        assert (a - b).norm() < 2e-2 * b.norm()


def test_what_does_not_fit():
    x, y, place = torch.randn(4, 3), torch.randn(5, 3), torch.tensor([0, 1, -1, 4])
    ids, columns = torch.arange(4), torch.arange(5)
    loss = InfoNCELoss()
    for arguments, error, message in (
        ({}, ValueError, r"y: got shape \(5, 3\), expected x's \(4, 3\) without positives"),
        ({"x_ids": ids}, ValueError, "x_ids: got a value, expected None without y_ids"),
        ({"y_ids": columns}, ValueError, "y_ids: got a value, expected None without x_ids"),
        (
            {"positives": place, "x_ids": ids, "y_ids": columns},
            ValueError, "positives: got a value, expected None with x_ids and y_ids",
        ),
        (
            {"positives": place, "ids": ids},
            ValueError, "ids: got a value, expected None with positives",
        ),
        (
            {"x_ids": ids, "y_ids": columns, "ids": ids},
            ValueError, "ids: got a value, expected None with x_ids and y_ids",
        ),
        ({"positives": place + 1}, ValueError, "positives: got 5, expected -1 to 4, rows of y, or"),
        ({"positives": place[:3]}, ValueError, r"positives: got shape \(3,\), expected \(4,\) or"),
        ({"positives": place.float()}, TypeError, "positives: got dtype torch.float32, expected"),
        ({"positives": "all"}, TypeError, "positives: got str, expected a tensor"),
        (
            {"positives": torch.tensor([[4, 0]])},
            ValueError, "positives: got 4, expected 0 to 3, rows of x",
        ),
        (
            {"positives": torch.tensor([[0, -1]])},
            ValueError, "positives: got -1, expected 0 to 4, rows of y",
        ),
        ({"positives": (ids, ids)}, ValueError, "positives: got 4 offsets, expected 5"),
        (
            {"positives": (torch.tensor([0, 2, 1, 3, 4]), ids)},
            ValueError, "positives: got 0 to 4, steps from -1, expected ascending numbers from 0",
        ),
        (
            {"positives": place, "row_weight": torch.ones(5)},
            ValueError, r"row_weight: got shape \(5,\), expected \(4,\)",
        ),
        (
            {"positives": place, "log_q": torch.ones(4)},
            ValueError, r"log_q: got shape \(4,\), expected \(5,\)",
        ),
    ):  # fmt: skip
        with pytest.raises(error, match=f"^{message}"):
            loss(x, y, **arguments)


@pytest.mark.parametrize(
    ("loss", "arguments", "message"),
    [
        (InfoNCELoss(top_k=2), {"positives": PLACE}, "positives: got a value, expected None with"),
        (InfoNCELoss(hardness=1.0), {"positives": PLACE}, "positives: got a value, expected None"),
        (InfoNCELoss(hardness=1.0), {"log_q": torch.zeros(4)}, "log_q: got a value, expected None"),
        (
            InfoNCELoss(hardness=1.0),
            {"negatives": torch.ones(2, 3), "negatives_log_q": torch.zeros(2)},
            "negatives_log_q: got a value, expected None with hardness",
        ),
        (
            CLIPLoss(),
            {"positives": PLACE, "row_weight": torch.ones(4)},
            "row_weight: got a value, expected None with positives",
        ),
        (
            InfoNCELoss(return_stats=True),
            {"positives": torch.tensor([[0, 1]])},
            "positives: got a list of pairs with return_stats",
        ),
        (SigLIPLoss(), {"log_q": torch.zeros(4)}, "log_q: got a value, expected None: its terms"),
        (
            SigLIPLoss(),
            {"negatives": torch.ones(2, 3), "negatives_log_q": torch.zeros(2)},
            "negatives_log_q: got a value, expected None: its terms",
        ),
    ],
)
def test_what_does_not_go_together(loss, arguments, message):
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match=f"^{message}"):
        loss(x, x, **arguments)


@pytest.mark.parametrize("options", [{"top_k": 2}, {"hardness": 1.0}])
def test_smoothing_of_chosen_negatives(options):
    with pytest.raises(ValueError, match=r"^label_smoothing: got 0.1 with"):
        InfoNCELoss(**options, label_smoothing=0.1)


def test_pairs_beyond_one_part(monkeypatch):
    """Embeddings of pairs are gathered some at a time."""
    monkeypatch.setattr("contrastloss.ops.listed._GATHERED", 7 * D)
    positive, said = draw(9, 12, "pairs")
    said["positives"] = torch.cat([said["positives"]] * 3)
    x, y = leaf(9, D), leaf(12, D)
    found = InfoNCELoss(TAU, variant="out")(x, y, **said)
    compare(found, mean_of(*softmax_loss(x, y, positive, temperature=TAU)[0]), [x, y])


def test_a_pair_that_is_listed_twice(backend):
    """It counts twice in a mean; it is one of SigLIP's pairs, with two terms of a positive."""
    x, y = leaf(3, D), leaf(4, D)
    pairs = torch.tensor([[0, 1], [0, 1], [0, 2], [1, 3]])
    s = products(x, y) / TAU
    log_p = s.log_softmax(1)
    want = -torch.stack([(2 * log_p[0, 1] + log_p[0, 2]) / 3, log_p[1, 3]]).mean()
    compare(InfoNCELoss(TAU, backend=backend)(x, y, positives=pairs), want, [x, y])
    positive = torch.zeros(3, 4).bool().index_put((pairs[:, 0], pairs[:, 1]), torch.tensor(True))
    rows = sigmoid_loss(x, y, positive, temperature=TAU)
    extra = torch.nn.functional.softplus(4.0 - s[0, 1])
    found = SigLIPLoss(TAU, -4.0, backend=backend)(x, y, positives=pairs)
    compare(found, (rows.sum() + extra) / 3, [x, y])


def test_pairs_out_of_range_where_values_are_not_checked():
    """As where another device, or a compiler, would have to wait for the values."""
    x, y = leaf(3, D), leaf(4, D)
    pairs = torch.tensor([[0, 1], [1, -1], [3, 2], [2, 4], [2, 0]])
    for cls in (InfoNCELoss, SigLIPLoss):
        compiled = torch.compile(cls(), backend="eager", fullgraph=True)
        found, want = (f(x, y, positives=p) for f, p in ((compiled, pairs), (cls(), pairs[[0, 4]])))
        torch.testing.assert_close(found, want)


def test_forms_of_lists():
    x, y = leaf(2, D), leaf(4, D)
    want = InfoNCELoss()(x, y, positives=torch.tensor([[0, 3], [0, 1], [1, 2]]))
    for places in (
        ([0, 2, 3], [3, 1, 2]),
        (torch.tensor([0, 2, 3]), [3, 1, 2]),
        (torch.tensor([0, 2, 3], dtype=torch.uint8), torch.tensor([3, 1, 2], dtype=torch.int16)),
    ):
        torch.testing.assert_close(InfoNCELoss()(x, y, positives=places), want)
    torch.testing.assert_close(InfoNCELoss()(x, y, positives=[[0, 3], [0, 1], [1, 2]]), want)
    with pytest.raises(ValueError, match=r"^positives: got 3 tensors, expected offsets and col"):
        InfoNCELoss()(x, y, positives=(torch.arange(3),) * 3)


def test_a_temperature_of_each_row(backend):
    """Columns have losses, too: there are as many as rows."""
    x, y, tau = leaf(4, D), leaf(6, D), torch.linspace(0.1, 0.4, 4)
    places = torch.tensor([5, 0, 2, 2])
    want = softmax_loss(x, y, places[:, None] == torch.arange(6), temperature=tau[:, None].double())
    found = InfoNCELoss(tau, backend=backend)(x, y, positives=places)
    torch.testing.assert_close(found, mean_of(*want[0]), rtol=1e-6, atol=1e-6)
    with pytest.raises(
        ValueError, match=r"^temperature: got shape \(4,\), expected \(\) with 4 rows"
    ):
        CLIPLoss(tau)(x, y, positives=places)


def test_a_compiled_function_has_the_options_of_the_call():
    x, y, ids = leaf(6, D), leaf(6, D), torch.arange(6) // 2
    for options, said in (
        ({"label_smoothing": 0.3}, {}),
        ({"variant": "in", "in_batch_negatives": False}, {"x_ids": ids, "y_ids": ids}),
    ):

        def call(x, y, options=options, said=said):
            return functional.clip(x, y, y.flip(0), **said, **options)

        torch.compiler.reset()
        found = torch.compile(call, backend="eager", fullgraph=True)(x, y)
        torch.testing.assert_close(found, call(x, y))


def test_no_pairs_at_all():
    x, y = leaf(3, D), leaf(4, D)
    for said in ({"positives": torch.full((3,), -1)}, {"positives": torch.zeros(0, 2).long()}):
        for cls in (InfoNCELoss, CLIPLoss):
            value = cls()(x, y, **said)
            assert value == 0
            assert not any(g.any() for g in torch.autograd.grad(value, (x, y)))


@pytest.mark.parametrize("form", ["pairs", pytest.param("ids", marks=pytest.mark.extra)])
@pytest.mark.parametrize("cls", [InfoNCELoss, SigLIPLoss])
def test_second_derivatives(cls, form):
    _, said = draw(3, 4, form)
    loss = cls(1.0, backend="reference")
    assert torch.autograd.gradgradcheck(lambda x, y: loss(x, y, **said), (leaf(3, 2), leaf(4, 2)))


#: short runs compile these; the others are extra tests
COMPILED = [
    pytest.param(cls, form, marks=[] if often else pytest.mark.extra)
    for cls in (InfoNCELoss, CLIPLoss, SigLIPLoss)
    for form in FORMS
    for often in [(cls, form) == (CLIPLoss, "pairs")]
]


@pytest.mark.parametrize(("cls", "form"), COMPILED)
def test_few_compiled_graphs_serve_all_sizes(cls, form):
    """By the default compiler, with gradients: one of the first call, one or two of others."""
    loss = cls(TAU, **({} if cls is SigLIPLoss else {"label_smoothing": 0.1}))
    graphs = torch._dynamo.utils.counters["stats"]
    torch.compiler.reset()
    graphs.clear()
    compiled = torch.compile(loss, fullgraph=True)
    for m, n in ((7, 9), (5, 4), (12, 30), (8, 17)):
        _, said = draw(m, n, form)
        x, y = (leaf(size, D).detach().float().requires_grad_() for size in (m, n))
        more = {} if cls is SigLIPLoss else {"log_q": torch.randn(n)}
        got, want = compiled(x, y, **said, **more), loss(x, y, **said, **more)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
        ours, plain = (torch.autograd.grad(value, (x, y)) for value in (got, want))
        for a, b in zip(ours, plain, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert 1 <= graphs["unique_graphs"] <= 3
