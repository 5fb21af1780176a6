"""The targets of the fuzzer: for each a strategy of cases, and a check of one case."""

import torch
from hypothesis import strategies as st
from oracle import differences, problem
from programs import DTYPES, OPERANDS, channels

from contrastloss import losses, testing
from contrastloss.backends import DISTRIBUTIONS, NETWORKS
from contrastloss.backends.network import layers
from contrastloss.losses import ScoreLoss
from contrastloss.ops import gather_scores, pair_stats, pair_topk, sort_network
from contrastloss.testing.compare import norm
from contrastloss.testing.subject import dense_rows

from .draws import LAYOUTS, at, layouts, on_a_grid, places, sizes

LEADS = st.sampled_from([(), (), (), (1,), (3,), (2, 2), (0,)])
SEEDS = st.integers(0, (1 << 30) - 1)
ERRORS = {torch.float64: 1e-11, torch.float32: 4e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}


def lines(found):
    assert not found, "\n".join(found)


# ---- pair_stats ---------------------------------------------------------------------------------


@st.composite
def programs(draw):
    place = draw(places("pair_stats_forward"))
    cosine, dtype = draw(st.booleans()), draw(st.sampled_from(DTYPES))
    lead = draw(LEADS)
    most = 400 if lead == () else 70
    size = {
        "m": draw(sizes(most)),
        "n": draw(sizes(most)),
        "d": draw(sizes(80, 2 if cosine else 1)),  # for D = 1 all cosines are +-1: only ties
    }
    program = tuple(draw(st.lists(channels(), min_size=1, max_size=4)))
    vectors = draw(st.sampled_from(OPERANDS))
    if dtype != torch.float64:  # d scale is a sum over all pairs, which may nearly cancel
        vectors = tuple(name for name in vectors if name != "scale")
    options = {
        **size,
        "lead": lead,
        "dtype": dtype,
        "symmetric": draw(st.booleans()),
        "vectors": vectors,
        "cosine": cosine and (dtype == torch.float64 or not any(map(kinked, program))),
        "seed": draw(SEEDS),
    }
    return place, program, options, draw(layouts), draw(st.sampled_from([None, 600]))


def kinked(channel):
    """Whether a tiny change of a score may change a gradient or the value discontinuously."""
    weights = {term.kind for term in channel.weight}
    steps = channel.kind == "MAX" or getattr(channel, "psi", "") in ("relu", "relu2", "step")
    return steps or bool(weights & {"at_most", "not_above", "log_form"})


def check_program(case):
    place, program, options, layout, block = case
    if overflows(program, options):
        return
    call = problem(program, **options)
    if options["dtype"] != torch.float64:
        call = on_grid(call)
    for name in ("x", "y"):
        if call[name] is not None:
            call[name] = LAYOUTS[layout](call[name])

    def function(x, y, channels, **rest):
        return pair_stats(x, y, channels, backend=place[0], **rest)

    with at(place, block):
        lines(differences(function, call))


def on_grid(call):
    """The operands rounded to a grid on which products are exact in every dtype."""
    return {
        name: {k: on_a_grid(v) for k, v in value.items()} if isinstance(value, dict)
        else on_a_grid(value)
        for name, value in call.items()
    }  # fmt: skip


def overflows(program, options):
    """Whether a gradient, or an intermediate product, may overflow fp16."""
    if options["dtype"] != torch.float16:
        return False
    return any(getattr(c, "psi", "") in ("focal", "square", "relu2") or c.weight for c in program)


# ---- pair_topk ----------------------------------------------------------------------------------


@st.composite
def selections(draw):
    most = draw(st.sampled_from([70, 400, 3000]))
    options = {
        "m": draw(sizes(min(most, 400))),
        "n": draw(sizes(most)),
        "d": draw(sizes(40, 1)),
        "k": draw(st.sampled_from([1, 2, 5, 63, 64, 65, 100])),
        "lead": draw(LEADS) if most == 70 else (),
        "dtype": draw(st.sampled_from(DTYPES)),
        "symmetric": draw(st.booleans()) and most < 3000,
        "largest": draw(st.booleans()),
        "bounds": draw(st.booleans()),
        "ignore": draw(st.booleans()),
        "seed": draw(SEEDS),
    }
    return draw(places("pair_topk")), options, draw(layouts)


def check_selection(case):
    place, o, layout = case
    g = torch.Generator().manual_seed(o["seed"])
    n = o["m"] if o["symmetric"] else o["n"]

    def whole(*shape):
        value = torch.randint(-3, 4, shape, generator=g).to(o["dtype"])
        return LAYOUTS[layout](value)

    x = whole(*o["lead"], o["m"], o["d"])
    y = None if o["symmetric"] else whole(*o["lead"], n, o["d"])
    s = x.double() @ (x if y is None else y).double().mT
    keys = s if o["largest"] else -s
    if y is None:
        keys = keys.masked_fill(torch.eye(n, dtype=torch.bool), -torch.inf)
    more = {}
    if o["bounds"]:
        lower = torch.randint(-9, 0, s.shape[:-1], generator=g).double()
        more = {"lower": lower, "upper": lower + 12}
        outside = (s < lower[..., None]) | (s > lower[..., None] + 12)
        keys = keys.masked_fill(outside, -torch.inf)
    if o["ignore"]:
        listed = torch.rand(s.shape, generator=g) < 0.1
        counts = listed.flatten(0, -2).sum(1)
        offsets = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        more["ignore"] = offsets, listed.flatten(0, -2).nonzero()[:, 1]
        keys = keys.masked_fill(listed, -torch.inf)
    with at(place):
        found = pair_topk(x, y, o["k"], largest=o["largest"], backend=place[0], **more)
    best, index = keys.sort(dim=-1, descending=True, stable=True)
    missing = max(0, o["k"] - n)
    best = torch.nn.functional.pad(best, (0, missing), value=-torch.inf)[..., : o["k"]]
    index = torch.nn.functional.pad(index, (0, missing), value=-1)[..., : o["k"]]
    index = torch.where(best == -torch.inf, -1, index)
    assert torch.equal(found.indices, index), "other columns"
    values = torch.where(index < 0, -torch.inf, best if o["largest"] else -best)
    assert torch.equal(found.values.double(), values), "other scores"


# ---- gather_scores ------------------------------------------------------------------------------


@st.composite
def gathers(draw):
    cosine = draw(st.booleans())
    options = {
        "m": draw(sizes(200)),
        "n": draw(sizes(400)),
        "d": draw(sizes(80, 2 if cosine else 1)),
        "k": draw(sizes(70)),
        "lead": draw(LEADS),
        "dtype": draw(st.sampled_from(DTYPES)),
        "symmetric": draw(st.booleans()),
        "cosine": cosine,
        "vectors": draw(st.sampled_from(OPERANDS)),
        "seed": draw(SEEDS),
    }
    return draw(places("gather_scores_forward")), options, draw(layouts)


def check_gather(case):
    place, o, layout = case
    settings = {k: v for k, v in o.items() if k != "k"}
    call = problem((), **settings)
    for name in ("channels", "rows", "cols"):
        call.pop(name)
    x, y = call["x"], call["y"]
    columns = (x if y is None else y).shape[-2]
    g = torch.Generator().manual_seed(o["seed"])
    index = torch.randint(-1, max(columns, 1), (*x.shape[:-1], o["k"]), generator=g)
    index = index.clamp(max=columns - 1)
    weight = torch.randn(index.shape, generator=g, dtype=torch.float64)

    def laid_out(value):
        return LAYOUTS[layout](value)

    ours = _gathered(call, index, weight, lambda **c: gather_scores(
        laid_out(c.pop("x")), c.pop("y"), index, backend=place[0], **c), place)  # fmt: skip
    wide = {k: v.double() if isinstance(v, torch.Tensor) else v for k, v in call.items()}
    want = _gathered(wide, index, weight, lambda **c: _dense_gather(index, **c), place)
    for name, value in want.items():
        got, limit = ours[name], ERRORS[ours[name].dtype]
        empty = value == -torch.inf
        assert torch.equal(got == -torch.inf, empty), f"{name}: other empty places"
        error = norm(got.double()[~empty] - value[~empty])
        assert error <= limit * (norm(value[~empty]) + 1), f"{name}: error {error:.1e}"


def _gathered(call, index, weight, function, place):
    leaves = {k: v.clone().requires_grad_() for k, v in call.items() if isinstance(v, torch.Tensor)}
    with at(place):
        scores = function(**{**call, **leaves})
        total = torch.where(index < 0, 0.0, scores * weight).sum()
        grads = torch.autograd.grad(total, list(leaves.values()))
    found = {f"d {k}": grad for k, grad in zip(leaves, grads, strict=True)}
    return {"scores": scores.detach(), **found}


def _dense_gather(index, x, y, cosine, scale=None, row_scale=None, col_scale=None,
                  row_bias=None, col_bias=None):  # fmt: skip
    left, right = x, x if y is None else y
    if cosine:
        left, right = (torch.nn.functional.normalize(v, dim=-1) for v in (left, right))
    s = left @ right.mT
    for factor, dim in ((scale, None), (row_scale, -1), (col_scale, -2)):
        if factor is not None:
            s = s * (factor if dim is None else factor.unsqueeze(dim))
    for bias, dim in ((row_bias, -1), (col_bias, -2)):
        if bias is not None:
            s = s + bias.unsqueeze(dim)
    if not s.shape[-1]:
        return torch.full(index.shape, -torch.inf, dtype=s.dtype) + 0 * s.sum() + 0 * x.sum()
    return torch.where(index < 0, -torch.inf, s.gather(-1, index.clamp(min=0)))


# ---- sort_network -------------------------------------------------------------------------------


#: without logistic_phi: its slope near a tie is 316 or more, so roundings grow at every layer
SMOOTH = tuple(name for name in DISTRIBUTIONS if name != "logistic_phi")


@st.composite
def networks(draw):
    options = {
        "rows": draw(sizes(70)),
        "n": draw(sizes(40, 1)),
        "masses": draw(st.integers(0, 3)),
        "shared": draw(st.booleans()),
        "lead": draw(st.sampled_from([None, (), (2, 3), (0,)])),
        "network": draw(st.sampled_from(NETWORKS)),
        "distribution": draw(st.sampled_from(SMOOTH)),
        "dtype": draw(st.sampled_from([torch.float64, torch.float32])),
        "seed": draw(SEEDS),
    }
    return draw(places("sort_network_forward")), options


def check_network(case):
    place, o = case
    g = torch.Generator().manual_seed(o["seed"])
    lead = (o["rows"],) if o["lead"] is None else o["lead"]
    x = torch.randn(*lead, o["n"], generator=g).to(o["dtype"])
    t = torch.randn(*(() if o["shared"] else lead), o["masses"], o["n"], generator=g)
    beta = 0.5 + 2 * torch.rand(lead, generator=g)
    inputs = [x, t.to(o["dtype"]), beta.to(o["dtype"])]
    setting = {"network": o["network"], "distribution": o["distribution"]}

    def ours(x, t, beta):
        return sort_network(x, t, steepness=beta, backend=place[0], **setting)

    with at(place):
        got = _differentiated(ours, inputs)
    want = _differentiated(lambda *v: _dense_sort(*v, **setting), [v.double() for v in inputs])
    limit = {torch.float64: 1e-10, torch.float32: 1e-4}[o["dtype"]]
    for k, (a, b) in enumerate(zip(got, want, strict=True)):
        assert a.shape == b.shape, f"result {k}: {tuple(a.shape)}, expected {tuple(b.shape)}"
        assert norm(a.double() - b) <= limit * (norm(b) + 1), f"result {k}: {norm(a.double() - b)}"


def _differentiated(function, inputs):
    leaves = [v.clone().requires_grad_() for v in inputs]
    values = function(*leaves)
    g = torch.Generator().manual_seed(3)
    upstream = [torch.randn(v.shape, generator=g, dtype=torch.float64).to(v.dtype) for v in values]
    grads = torch.autograd.grad(values, leaves, upstream, allow_unused=True)
    zero = (torch.zeros_like(v) if g is None else g for g, v in zip(grads, leaves, strict=True))
    return [v.detach() for v in values] + list(zero)


def _dense_sort(x, t, beta, network, distribution):
    """All comparators applied to the values and to the explicit n x n matrices P."""
    n, beta = x.shape[-1], beta.unsqueeze(-1)
    p = torch.eye(n, dtype=x.dtype).expand(*x.shape[:-1], n, n)
    for layer in layers(network, n):
        if not layer:
            continue
        a, b = (torch.tensor(ends) for ends in zip(*layer, strict=True))
        d = x[..., b] - x[..., a]
        keep = _swap(distribution, beta * d)
        x = x.index_copy(-1, torch.cat([a, b]), torch.cat(
            [keep * x[..., a] + (1 - keep) * x[..., b],
             (1 - keep) * x[..., a] + keep * x[..., b]], -1))  # fmt: skip
        keep = keep.unsqueeze(-2)
        p = p.index_copy(-1, torch.cat([a, b]), torch.cat(
            [keep * p[..., a] + (1 - keep) * p[..., b],
             (1 - keep) * p[..., a] + keep * p[..., b]], -1))  # fmt: skip
    return x, t @ p.mT


def _swap(distribution, v):
    if distribution == "cauchy":
        return torch.arctan(v) / torch.pi + 0.5
    if distribution == "logistic":
        return v.sigmoid()
    if distribution == "gaussian":
        return torch.special.ndtr(v)
    if distribution == "reciprocal":
        return (v / (2 + v.abs()) + 1) / 2
    away = torch.where(v.abs() <= 0.25, 1.0, v)  # avoids the gradient of 1 / v at 0
    far = torch.where(v > 0, 1 - 1 / (16 * away), -1 / (16 * away))
    return torch.where(v.abs() <= 0.25, v + 0.5, far)


# ---- losses -------------------------------------------------------------------------------------

#: not drawn: they take a graph or lengths, or mix columns at random
SPECIAL = {"adjacency_contrastive", "mil_contrastive", "mochi"}
#: `testing.dense` would normalise all of their inputs; the losses do not
RAW = {"ada_meow", "hierarchical_contrastive", "simlap"}
SCORED = sorted(
    name
    for name, cls in losses.LOSSES.items()
    if issubclass(cls, ScoreLoss) and hasattr(cls, "reference") and name not in SPECIAL
)


@st.composite
def loss_calls(draw):
    options = {
        "name": draw(st.sampled_from(SCORED)),
        "n": draw(st.integers(1, 20) | sizes(70, 1)),
        "d": draw(st.integers(2, 40)),
        "temperature": draw(st.sampled_from([0.01, 0.05, 0.2, 1.0])),
        "normalize": draw(st.booleans()),
        "reduction": draw(st.sampled_from(["none", "sum"])),
        "seed": draw(SEEDS),
    }
    options["normalize"] &= options["name"] not in RAW
    return draw(places("pair_stats_forward")), options


def check_loss(case):
    """The losses per row, or their sum, and the gradients agree with the loss's own dense formula
    in fp64."""
    place, o = case
    names = ("temperature", "normalize", "reduction")
    loss = losses.LOSSES[o["name"]](**{name: o[name] for name in names}, backend=place[0])
    g = torch.Generator().manual_seed(o["seed"])
    inputs = testing.example(type(loss), o["n"], o["d"], g)
    with at(place):
        got = _rows_and_gradients(loss, inputs)
    rows = dense_rows(loss)
    formula = rows if o["reduction"] == "none" else lambda *given: rows(*given).sum()
    wanted = _rows_and_gradients(formula, inputs)
    for k, (a, b) in enumerate(zip(got, wanted, strict=True)):
        assert a.shape == b.shape, f"result {k}: {tuple(a.shape)}, expected {tuple(b.shape)}"
        error = norm(a - b)
        assert error <= 1e-9 * (norm(b) + 1), f"result {k}: error {error:.1e} of {norm(b):.1e}"


def _rows_and_gradients(function, inputs):
    leaves = [v.clone().requires_grad_(v.is_floating_point()) for v in inputs]
    rows = function(*leaves)
    wanted = [v for v in leaves if v.requires_grad]
    grads = torch.autograd.grad(rows.sum() / max(rows.numel(), 1), wanted, allow_unused=True)
    zero = (torch.zeros_like(v) if g is None else g for g, v in zip(grads, wanted, strict=True))
    return [rows.detach(), *zero]


TARGETS = {
    "programs": (programs(), check_program),
    "selections": (selections(), check_selection),
    "gathers": (gathers(), check_gather),
    "networks": (networks(), check_network),
    "losses": (loss_calls(), check_loss),
}
