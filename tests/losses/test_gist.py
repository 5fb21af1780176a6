from math import exp, log1p

import pytest
import torch
from properties import E1, E2, close, every_check, tensor
from torch.nn.functional import normalize

from contrastloss import GISTLoss
from contrastloss.functional import gist
from contrastloss.testing import Subject


@every_check
@pytest.mark.parametrize(
    "options", [{}, {"contrast_anchors": False}, {"contrast_positives": False}], ids=str
)
def test_properties(check, options, device, backend):
    """Without a guide."""
    check(Subject(GISTLoss, options, device, backend, thorough=not options))


def inputs(device, dtype=torch.float64, n=30):
    x, y = (v.to(dtype) for v in Subject(GISTLoss, device=device).inputs(n=n))
    guide = torch.randn(2, n, 7, device=device, dtype=torch.float64)
    guide[1] = guide[0] + 1.5 * guide[1]  # some other rows are more similar than the positive
    return x, y, tuple(guide.to(dtype))


@pytest.mark.parametrize("strategy", ["absolute", "relative"])
@pytest.mark.parametrize("margin", [0.0, 0.1])
@pytest.mark.parametrize("sides", [(True, True), (False, True), (True, False)])
def test_matches_the_dense_formula(device, backend, strategy, margin, sides):
    x, y, guide = inputs(device)
    options = {
        "margin": margin, "margin_strategy": strategy,
        "contrast_anchors": sides[0], "contrast_positives": sides[1],
    }  # fmt: skip
    found = []
    for ours in (True, False):
        leaves = [v.clone().requires_grad_() for v in (x, y)]
        if ours:
            rows = gist(
                *leaves, guide=guide, temperature=0.1, reduction="none", backend=backend, **options
            )
        else:
            rows = GISTLoss.reference(
                *(normalize(v) for v in leaves), scale=10.0, bias=0.0, **options,
                guide=tuple(normalize(v) for v in guide),
            )  # fmt: skip
        found.append([rows, *torch.autograd.grad(rows.mean(), leaves)])
    for ours, want in zip(*found, strict=True):
        torch.testing.assert_close(ours, want, rtol=1e-9, atol=1e-11)
    everything = gist(x, y, temperature=0.1, reduction="none", backend=backend, **{
        k: v for k, v in options.items() if k.startswith("contrast")
    })  # fmt: skip
    assert (everything > found[0][0] + 1e-6).any()  # the guide drops some negatives, but not all
    assert (found[0][0] > 0).any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_with_a_guide(device, backend, dtype):
    x, y, guide = inputs(device, dtype)
    value = gist(x, y, guide=guide, temperature=0.1, margin=0.05, backend=backend)
    wide = [v.double() for v in (x, y, *guide)]
    want = gist(*wide[:2], guide=wide[2:], temperature=0.1, margin=0.05, backend="reference")
    torch.testing.assert_close(value.double(), want, rtol=1e-5, atol=0.0)


def test_by_hand(device, backend):
    # x_0 = x_1 = e1, y_0 = e1, y_1 = e2; for the guide, y_1 and y_0 are equally similar to x_0
    x, y = tensor(E1, E1, device=device), tensor(E1, E2, device=device)
    guide = tensor(E1, E2, device=device), tensor(E1, E1, device=device)
    options = {"temperature": 1.0, "reduction": "none", "backend": backend}
    only = {"contrast_anchors": False, "contrast_positives": False}
    # row 0: g(x_0, y_1) = 1 is at most g(x_0, y_0) = 1; row 1: g(x_1, y_0) = 0 is at most 0
    close(gist(x, y, guide=guide, **only, **options), [log1p(exp(-1)), log1p(exp(1))])
    # with a margin both are dropped
    close(gist(x, y, guide=guide, margin=0.1, **only, **options), [0.0, 0.0])
    # with a relative margin, the bound 0 of row 1 stays 0
    relative = {"margin": 0.1, "margin_strategy": "relative"}
    close(gist(x, y, guide=guide, **relative, **only, **options), [0.0, log1p(exp(1))])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_a_copy_of_the_positive_is_a_negative(dtype, device, backend):
    """For the guide, copies of the positive tie with it in spite of rounding. Only negatives that
    exceed the positive are dropped."""
    generator, n = torch.Generator().manual_seed(0), 48
    copy = torch.arange(n)
    copy[:10] = torch.arange(10, 20)
    copies = (copy[:, None] == copy).to(device)
    for _ in range(20):
        x, y, guide, other = (torch.randn(n, d, generator=generator) for d in (8, 8, 40, 40))
        guides = [guide.to(device, dtype), (guide + other)[copy].to(device, dtype)]
        x, y = x.to(device, dtype), y[copy].to(device, dtype)
        options = {"contrast_anchors": False, "contrast_positives": False, "temperature": 0.5}
        got = gist(x, y, guide=guides, reduction="none", backend=backend, **options)
        g = normalize(guides[0].double()) @ normalize(guides[1].double()).mT
        kept = (g <= g.diag()[:, None]) | copies
        s = normalize(x.double()) @ normalize(y.double()).mT / 0.5
        want = s.masked_fill(~kept, -torch.inf).logsumexp(1) - s.diag()
        torch.testing.assert_close(got.double(), want, rtol=1e-4, atol=1e-5)


def test_compiles_with_a_guide(device, backend):
    x, y, guide = inputs(device, torch.float32)
    loss = GISTLoss(0.1, margin=0.1, backend=backend)
    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, y, guide=guide), loss(x, y, guide=guide))
    for shape in ((4,), (30, 4)):
        more = {"guide": (*guide, torch.randn(*shape, 7, device=device))}
        more["negatives"] = torch.randn(*shape, x.shape[1], device=device)
        torch.testing.assert_close(compiled(x, y, **more), loss(x, y, **more))


def test_errors(device):
    x, y, guide = inputs(device)
    with pytest.raises(TypeError, match=r"guide: got Tensor, expected 2 tensors, of x and y"):
        gist(x, y, guide=guide[0])
    with pytest.raises(ValueError, match=r"guide: got shape .*, expected \(30, 7\)"):
        gist(x, y, guide=(guide[0], guide[1][:5]))
    with pytest.raises(TypeError, match="guide: got list, expected a tensor"):
        gist(x, y, guide=([1.0], guide[1]))


@pytest.mark.parametrize("form", ["shared", "own", "masked", "ragged"])
@pytest.mark.parametrize("strategy", ["absolute", "relative"])
def test_given_negatives(form, strategy, device, backend):
    """A guide drops given negatives, too; without one, all of them count."""
    x, y, guide = inputs(device, n=20)
    n, k, e = 20, 6, 7
    negatives = torch.randn(n, k, x.shape[1], device=device, dtype=x.dtype)
    near = guide[0][:, None] + 2.5 * torch.randn(n, k, e, device=device, dtype=x.dtype)
    mask, more = None, {}
    if form == "shared":
        negatives, near = negatives[0], near[0]
    elif form != "own":
        mask = torch.rand(n, k, device=device) < 0.6
        more = {"negatives_mask": mask}
    options = {"margin": 0.05, "margin_strategy": strategy}
    given, close_to = negatives, near
    if form == "ragged":
        offsets = torch.nn.functional.pad(mask.sum(1).cumsum(0), (1, 0))
        given, close_to, more = negatives[mask], near[mask], {"negatives_offsets": offsets}
    losses = []
    for with_guide in (True, False):
        leaves = [v.clone().requires_grad_() for v in (x, y, given)]
        three = (*guide, close_to) if with_guide else None
        loss = GISTLoss(0.1, **options, reduction="none", backend=backend)
        rows = loss(*leaves, guide=three, **more)
        own = [v.clone().requires_grad_() for v in (x, y, negatives)]
        three = tuple(normalize(v, dim=-1) for v in (*guide, near)) if with_guide else None
        want = GISTLoss.reference(
            *(normalize(v, dim=-1) for v in own[:2]), scale=10.0, bias=0.0, **options,
            contrast_anchors=True, contrast_positives=True, guide=three,
            negatives=normalize(own[2], dim=-1), negatives_mask=mask,
        )  # fmt: skip
        torch.testing.assert_close(rows, want, rtol=1e-9, atol=1e-11)
        grads = torch.autograd.grad(rows.mean(), leaves)
        wanted = list(torch.autograd.grad(want.mean(), own))
        if form == "ragged":
            wanted[2] = wanted[2][mask]
        for a, b in zip(grads, wanted, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-11)
        losses.append(rows)
    assert (losses[0] < losses[1] - 1e-6).any()


# ---- guided by itself ----------------------------------------------------------------------------


def given(kind, n, dtype=torch.float64):
    """Negatives for the loss, and own ones of every row with their mask."""
    values, mask = torch.randn(n, 4, 6, dtype=dtype), torch.rand(n, 4) < 0.7
    if kind == "shared":
        return {"negatives": values[0]}, {"negatives": values[0]}
    dense = {"negatives": values, "negatives_mask": mask}
    if kind == "own":
        return dense, dense
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), mask.sum(1).cumsum(0)])
    return {"negatives": values[mask], "negatives_offsets": offsets}, dense


@pytest.mark.parametrize("kind", ["none", "shared", "own", "ragged"])
@pytest.mark.parametrize(("strategy", "margin"), [
    ("absolute", -0.1), ("absolute", 0.2), ("relative", 0.3), ("relative", -0.2),
])  # fmt: skip
@pytest.mark.parametrize("n", [7, 65])
def test_guided_by_itself(n, strategy, margin, kind, backend):
    x, y = torch.randn(2, n, 6, dtype=torch.float64)
    y = x + y
    ours, dense = ({}, {}) if kind == "none" else given(kind, n)
    sides = {"contrast_anchors": kind != "own", "contrast_positives": kind != "shared"}
    options = {"margin": margin, "margin_strategy": strategy, **sides}
    found = []
    for call in (True, False):
        names = [k for k, v in dense.items() if v.is_floating_point()]
        leaves = [v.clone().requires_grad_() for v in (x, y)]
        if call:
            loss = GISTLoss(0.2, **options, reduction="none", backend=backend)
            own = {k: v.clone().requires_grad_(k == "negatives") for k, v in ours.items()}
            rows = loss(*leaves, guide="self", **own)
            every = loss(*leaves, **own)
        else:
            more = {k: normalize(v, dim=-1) if k in names else v for k, v in dense.items()}
            rows = GISTLoss.reference(
                *(normalize(v) for v in leaves), scale=5.0, bias=0.0, guide="self", **options,
                **more,
            )  # fmt: skip
        found.append([rows, *torch.autograd.grad(rows.mean(), leaves)])
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-11)
    assert (every > found[0][0] + 1e-6).any()  # some negatives are dropped


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("normalized", [True, False])
def test_a_document_that_occurs_twice_stays_negative(dtype, normalized, backend):
    """Its score is that of the positive, whatever the order in which products are added up."""
    x, y = torch.randn(2, 70, 33).to(dtype)
    y[1::2] = y[::2]
    loss = GISTLoss(
        0.5, contrast_anchors=False, contrast_positives=False, normalize=normalized,
        reduction="none", backend=backend,
    )  # fmt: skip
    rows = loss(x, y, guide="self")
    assert (rows >= 0.99 * torch.log(torch.tensor(2.0))).all()


@pytest.mark.parametrize("dim", [33, 1024, 4096])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_ties_of_long_vectors(dtype, dim, backend):
    """The longer they are, the further apart are sums of the same products in another order."""
    x, y = torch.randn(2, 128, dim).to(dtype)
    y[1::2] = y[::2]
    alone = {"contrast_anchors": False, "contrast_positives": False, "backend": backend}
    rows = GISTLoss(0.5, **alone, reduction="none")(x, y, guide="self")
    assert (rows >= 0.99 * torch.log(torch.tensor(2.0))).all()


@pytest.mark.parametrize("kind", ["shared", "own", "ragged"])
def test_statistics_ignore_the_guide(kind, backend):
    x, y = torch.randn(2, 9, 6, dtype=torch.float64)
    ours, _ = given(kind, 9)
    loss = GISTLoss(0.2, return_stats=True, backend=backend)
    _, want = loss(x, y, **ours)
    near = tuple(torch.randn(*v.shape[:-1], 3) for v in (x, y, ours["negatives"]))
    for guide in ("self", near):
        _, stats = loss(x, y, guide=guide, **ours)
        for name, value in want.items():
            close(stats[name], value)


def test_an_unknown_guide():
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"^guide: got 'teacher', expected 'self'"):
        GISTLoss()(x, x, guide="teacher")


def test_ids_and_a_guide_of_ragged_negatives(backend):
    """Both leave columns out."""
    x, y, guide = torch.randn(3, 5, 6, dtype=torch.float64)
    values, near = torch.randn(2, 5, 2, 6, dtype=torch.float64)
    ids, numbers = torch.arange(5), torch.randint(0, 5, (5, 2))
    loss = GISTLoss(0.2, reduction="none", backend=backend)
    of = {"ids": ids, "negatives": values, "negatives_ids": numbers}
    want = loss(x, y, guide=(guide, y, near), **of)
    flat = {"negatives": values.flatten(0, 1), "negatives_ids": numbers.flatten()}
    flat |= {"ids": ids, "negatives_offsets": torch.arange(0, 11, 2)}
    close(loss(x, y, guide=(guide, y, near.flatten(0, 1)), **flat), want)
    close(loss(x, y, guide="self", **flat), loss(x, y, guide="self", **of))
