"""The expected results of ``pair_stats``, from an explicit M x N matrix of scores in fp64.

Written from the definitions in :mod:`contrastloss.channel`, with torch's autograd and without the
package's backends, so that the two share no formula.
"""

import torch

VECTORS = ("scale", "row_scale", "col_scale", "row_bias", "col_bias")

PSI = {
    "one": torch.ones_like,
    "id": lambda u: u,
    "square": lambda u: u * u,
    "relu": torch.relu,  # its slope at 0 is 0
    "relu2": lambda u: torch.relu(u) ** 2,
    "softplus": lambda u: torch.nn.functional.softplus(u, threshold=700.0),
    "focal": lambda u: (1 - torch.exp(u)) * u,
    "step": lambda u: (u > 0).to(u.dtype),
}

TESTS = {
    "eq": lambda a, b, width: a == b,
    "ne": lambda a, b, width: a != b,
    "lt": lambda a, b, width: a < b,
    "within": lambda a, b, width: (a - b).abs() <= width,
}


def unit(x):
    """Unit vectors; a zero vector stays zero and passes no gradient."""
    zero = (x == 0).all(-1, keepdim=True)
    norm = torch.where(zero, 1.0, x).square().sum(-1, keepdim=True).sqrt()
    return torch.where(zero, 0.0, x / norm.clamp_min(1e-12))


def dense(x, y, channels, *, rows=None, cols=None, cosine=False, **vectors):
    """Every value of every channel, flat; the arguments are those of ``pair_stats``."""
    rows = rows or {}
    cols = rows if cols is None and y is None else (cols or {})
    left, right = x, x if y is None else y
    if cosine:
        left, right = unit(left), unit(right)
    s = left @ right.mT
    for name, shape in (
        ("scale", ...),
        ("row_scale", (..., None)),
        ("col_scale", (..., None, slice(None))),
    ):
        if vectors.get(name) is not None:
            s = s * vectors[name][shape]
    for name, shape in (("row_bias", (..., None)), ("col_bias", (..., None, slice(None)))):
        if vectors.get(name) is not None:
            s = s + vectors[name][shape]
    values = []
    for channel in channels:
        mask, weight = pairs(channel, s, rows, cols, y is None)
        values += reduce(channel, s, mask, weight, rows, cols)
    return values


def grid(s):
    m, n = s.shape[-2:]
    i = torch.arange(m, device=s.device)[:, None]
    j = torch.arange(n, device=s.device)[None, :]
    return i, j


def ids(name, s, rows, cols):
    i, j = grid(s)
    a = rows[name][..., :, None] if name in rows else i
    b = cols[name][..., None, :] if name in cols else j
    return a, b


def pairs(channel, s, rows, cols, symmetric):
    """Which pairs take part (M, N), and their log-weights, finite or -inf."""
    i, j = grid(s)
    mask = (i != j) if symmetric else torch.ones_like(s, dtype=torch.bool)
    mask = mask.expand(s.shape)
    for test in channel.pairs:
        mask = mask & TESTS[test.op](*ids(test.name, s, rows, cols), test.width)
    weight = torch.zeros_like(s)
    for term in channel.weight:
        name = term.names[0]
        if term.kind == "row":
            weight = weight + rows[name][..., :, None]
        elif term.kind == "col":
            weight = weight + cols[name][..., None, :]
        elif term.kind == "distance":
            a, b = rows[name].to(s.dtype)[..., :, None], cols[name].to(s.dtype)[..., None, :]
            weight = weight + term.value * (1 + (a - b).abs()).log()
        elif term.kind == "differing":
            count = sum(torch.ne(*ids(k, s, rows, cols)).to(s.dtype) for k in term.names)
            weight = weight + count.log()
        elif term.kind == "not_above":
            above = s.detach() > rows[name][..., :, None]
            weight = weight.masked_fill(above, -torch.inf)
        else:
            t = rows[name] @ cols[name].mT
            if term.kind == "at_most":
                t = torch.where(t <= 0, 0.0, -torch.inf)
            weight = weight + ((term.value + t).log() if term.kind == "log_form" else t)
    return mask & (weight > -torch.inf), weight


def reduce(channel, s, mask, weight, rows, cols):
    dim, own = (-1, rows) if channel.axis == "row" else (-2, cols)
    weight = torch.where(mask, weight, 0.0)
    some = mask.any(dim)
    if channel.kind == "SUM":
        u = s
        if channel.shift is not None:
            u = u - own[channel.shift].unsqueeze(dim)
        u = channel.sign * u
        u = torch.where(mask, u, 0.5)  # no overflow or kink at pairs that do not take part
        return [torch.where(mask, weight.exp() * PSI[channel.psi](u), 0.0).sum(dim)]
    if channel.kind == "MAX":
        if s.shape[dim] == 0:
            empty = torch.full(some.shape, -torch.inf, dtype=s.dtype, device=s.device)
            return [empty + 0 * s.sum(), torch.full_like(some, -1, dtype=torch.int64)]
        value = torch.where(mask, channel.sign * s, -torch.inf)
        best = value.detach().amax(dim, keepdim=True)
        index = ((value == best) & mask).to(torch.uint8).argmax(dim, keepdim=True)
        picked = torch.where(some, (channel.sign * s).gather(dim, index).squeeze(dim), -torch.inf)
        return [picked, torch.where(some, index.squeeze(dim), -1)]
    score = s
    if getattr(channel, "relax", None) is not None:
        m, own = channel.relax, s.detach()
        if channel.theta < 0:
            score = (1 + m - own).clamp_min(0) * (s - 1 + m)
        else:
            score = (own + m).clamp_min(0) * (s - m)
    e_shift = torch.where(mask, channel.theta * score + weight, -torch.inf).detach()
    e_shift = e_shift.amax(dim, keepdim=True) if s.shape[dim] else e_shift.sum(dim, keepdim=True)
    e_shift = torch.where(some.unsqueeze(dim), e_shift, 0.0)
    z = torch.where(mask, channel.theta * score + weight - e_shift, 0.0)
    e = torch.where(mask, z.exp(), 0.0)
    total = e.sum(dim)
    safe = torch.where(some, total, 1.0)
    lse = torch.where(some, safe.log() + e_shift.squeeze(dim), -torch.inf)
    if channel.kind == "LSE":
        return [lse]
    return [torch.where(some, (e * s).sum(dim) / safe, 0.0), lse]


# ---- problems: operands for a call, and its evaluation by the operator and by the oracle --------


def spread(shape, like, generator, low=-1.0, high=1.0):
    value = torch.rand(shape, generator=generator, dtype=torch.float64)
    return (low + (high - low) * value).to(like)


def problem(
    channels,
    *,
    m=37,
    n=53,
    d=19,
    lead=(),
    dtype=torch.float64,
    device="cpu",
    symmetric=False,
    vectors=(),
    cosine=False,
    seed=0,
):
    """Random operands for a call of ``channels``, as keyword arguments of ``pair_stats``.

    ``symmetric`` sets y to None; rows and columns still get different operands. The vectors and
    float operands are fp32, or fp64 with fp64 embeddings. Some weights are -inf, and some ids match
    nothing.
    """
    g = torch.Generator().manual_seed(seed)
    stat = torch.float64 if dtype == torch.float64 else torch.float32
    n = m if symmetric else n

    def normal(*shape):
        return torch.randn(shape, generator=g, dtype=torch.float64).mul(0.5).to(device, dtype)

    like = torch.empty(0, dtype=stat, device=device)
    x, y = normal(*lead, m, d), None if symmetric else normal(*lead, n, d)
    made = {}
    if "scale" in vectors:
        made["scale"] = spread((), like, g, 1.1, 1.4)
    for name in vectors:
        if name != "scale":
            length = m if name.startswith("row") else n
            low = 0.6 if name.endswith("scale") else -1.0
            made[name] = spread((*lead, length), like, g, low, 1.4)
    rows, cols = {}, {}
    for operands, length, axis in ((rows, m, "row"), (cols, n, "col")):
        for channel in channels:
            for name in sorted(channel.called[axis]):
                if name not in operands and name != "index":
                    operands[name] = operand(channel, axis, name, (*lead, length), like, g)
    return dict(x=x, y=y, channels=tuple(channels), rows=rows, cols=cols, cosine=cosine, **made)


def operand(channel, axis, name, shape, like, g):
    if name in channel.ids:
        high = 5 if axis == "row" else 6  # no row has id 5, and few columns have id 4
        return torch.randint(0, high, shape, generator=g).to(like.device)
    if name in channel.forms:
        bounded = any(t.kind == "at_most" and name in t.names for t in channel.weight)
        value = spread((*shape, 7), like, g, -1.0 if bounded else 0.0, 1.0)
        value[..., :2, :] = 0.0  # log(0 + 0) = -inf for a log_form without eps
        return value
    value = spread(shape, like, g)
    if name in (n for term in channel.weight if term.kind in ("row", "col") for n in term.names):
        value[..., ::5] = -torch.inf
    if name in (n for term in channel.weight if term.kind == "not_above" for n in term.names):
        value[..., ::5], value[..., 1::5] = -torch.inf, torch.inf
    return value


def leaves(call):
    """The differentiable operands, by name."""
    found = {k: call[k] for k in ("x", "y", *VECTORS) if call.get(k) is not None}
    for side, axis in (("rows", "row"), ("cols", "col")):
        for channel in call["channels"]:
            shift = getattr(channel, "shift", None)
            if shift is not None and channel.axis == axis:
                found[f"{side} {shift}"] = call[side][shift]
    return found


def evaluate(function, call, frozen=(), weigh=None):
    """All values of a call, and the gradients of a fixed random combination of the float ones."""
    call = {**call, "rows": dict(call["rows"]), "cols": dict(call["cols"])}
    inputs = {}
    for name, value in leaves(call).items():
        value = value.detach().clone().requires_grad_(name not in frozen)
        inputs[name] = value
        if " " in name:
            side, key = name.split(" ")
            call[side][key] = value
        else:
            call[name] = value
    values = []
    for value in function(**call):
        values += [value] if isinstance(value, torch.Tensor) else list(value)
    g = torch.Generator().manual_seed(7)
    outputs, cotangents = [], []
    for value in values:
        cotangent = torch.randn(value.shape, generator=g, dtype=torch.float64).to(value.device)
        if value.requires_grad:
            outputs.append(value)
            cotangents.append(cotangent.to(value.dtype))
    wanted = {name: v for name, v in inputs.items() if v.requires_grad}
    grads = (
        torch.autograd.grad(outputs, list(wanted.values()), cotangents, allow_unused=True)
        if outputs
        else [None] * len(wanted)
    )
    found = {
        name: torch.zeros_like(v) if grad is None else grad
        for (name, v), grad in zip(wanted.items(), grads, strict=True)
    }
    return values, found


def widened(call):
    """The same call with operands in fp64."""

    def wide(value):
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.double() if floating else value

    return {
        name: {k: wide(v) for k, v in value.items()} if isinstance(value, dict) else wide(value)
        for name, value in call.items()
        if name != "backend"
    }


def mismatch(got, want, rtol):
    """How ``got`` differs from ``want``, in one line, or None. Errors are norms over the vector."""
    if got.shape != want.shape:
        return f"shape {tuple(got.shape)}, expected {tuple(want.shape)}"
    if not got.is_floating_point():
        return None if torch.equal(got, want) else f"{(got != want).sum()} wrong indices"
    got, want = got.double(), want.double()
    odd = ~want.isfinite() | ~got.isfinite()
    if not torch.equal(got[odd], want[odd]):
        return f"{got[odd].tolist()[:5]}, expected {want[odd].tolist()[:5]}"
    error = torch.linalg.vector_norm(got[~odd] - want[~odd]).item()
    size = torch.linalg.vector_norm(want[~odd]).item()
    bound = rtol * (size + 1.0)
    return None if error <= bound else f"error {error:.2e} of {size:.2e}, allowed {bound:.2e}"


def differences(function, call, frozen=(), rtol=None, formula=dense):
    """All differences between ``function`` and the dense oracle for the same operands."""
    dtype = call["x"].dtype
    stat = torch.float64 if dtype == torch.float64 else torch.float32
    rtol = rtol or {torch.float64: 1e-12, torch.float32: 2e-5}[stat]
    values, grads = evaluate(function, call, frozen)
    expected, expected_grads = evaluate(formula, widened(call), frozen)
    found = []
    for k, (got, want) in enumerate(zip(values, expected, strict=True)):
        if got.is_floating_point() and got.dtype != stat:
            found.append(f"value {k}: {got.dtype}, expected {stat}")
        found.append((why := mismatch(got, want, rtol)) and f"value {k}: {why}")
    for name, want in expected_grads.items():
        own = leaves(call)[name].dtype
        if grads[name].dtype != own:
            found.append(f"d {name}: {grads[name].dtype}, expected {own}")
        want = want.to(own)  # may overflow in fp16; then the result has to overflow too
        why = mismatch(grads[name], want, max(rtol, torch.finfo(own).eps))
        found.append(why and f"d {name}: {why}")
    return [line for line in found if line]
