"""Losses whose gradients the forward pass may find, against dense formulas."""

import torch
from hypothesis import strategies as st
from oracle import dense, differences, problem, widened
from programs import DTYPES, OPERANDS, channels

from contrastloss.ops import Part, pair_loss, row_losses
from contrastloss.ops.one_pass import reduced

from .draws import LAYOUTS, at, layouts, places, sizes
from .targets import SEEDS, kinked, lines, on_grid, overflows


@st.composite
def parts_of(draw, program):
    """Terms of the channels that have losses: of log-sum-exps, softplus alone is finite."""
    found = []
    for k, channel in enumerate(program):
        if channel.kind == "LSE":
            found.append(Part(k, None, draw(WEIGHTS), True))
        elif channel.kind == "SUM":
            place = (k, None) if draw(st.booleans()) else (None, k)
            found.append(Part(*place, draw(WEIGHTS), draw(st.booleans())))
    return tuple(found)


WEIGHTS = st.sampled_from([1.0, 0.5, -2.0])


@st.composite
def losses_of_rows(draw):
    cosine, dtype = draw(st.booleans()), draw(st.sampled_from(DTYPES))
    program = tuple(draw(st.lists(channels(), min_size=1, max_size=3)))
    # columns with losses are as many as rows; long rows are multiplied some features at a time
    size = {"m": draw(sizes(400)), "d": draw(sizes(80, 2 if cosine else 1))}
    size["n"] = size["m"] if any(c.axis == "col" for c in program) else draw(sizes(400))
    if draw(st.integers(0, 9)) == 0 and max(size["m"], size["n"]) <= 70:
        size["d"] = draw(st.sampled_from([511, 513, 1024, 1025, 1537, 2049]))
    vectors = draw(st.sampled_from(OPERANDS))
    if dtype != torch.float64:  # d scale is a sum over all pairs, which may nearly cancel
        vectors = tuple(name for name in vectors if name != "scale")
    options = {
        **size,
        "dtype": dtype,
        "symmetric": draw(st.booleans()),
        "vectors": vectors,
        "cosine": cosine and (dtype == torch.float64 or not any(map(kinked, program))),
        "seed": draw(SEEDS),
    }
    parts = draw(parts_of(program))
    parts = parts if dtype == torch.float64 else parts[:1]  # so may those of several parts
    how = parts, draw(st.sampled_from(["mean", "sum"])), draw(st.booleans())
    return draw(places("pair_loss")), program, how, options, draw(layouts)


def check_one_pass(case):
    place, program, (parts, reduction, weighted), options, layout = case
    if overflows(program, options) or not parts:
        return
    call = problem(program, **options)
    if options["dtype"] != torch.float64:
        call = on_grid(call)
    g = torch.Generator().manual_seed(options["seed"])
    weight = torch.rand(options["m"], generator=g) if weighted else None

    def ours(x, y, channels, **rest):
        x, y = (v if v is None else LAYOUTS[layout](v) for v in (x, y))
        how = {"reduction": reduction, "row_weight": weight, "backend": place[0]}
        return [pair_loss(x, y, channels, parts, **how, **rest)[0]]

    def formula(x, y, channels, of=lambda losses: losses, **rest):
        flat, values = dense(x, y, channels, **rest), []
        for channel in channels:
            values.append(flat[0])
            flat = flat[len(channel.returns) :]
        losses = of(row_losses(parts, values))
        return [reduced([losses], (Part(0),), reduction, weight)]

    with at(place):
        found = differences(ours, call, formula=formula)
        if options["dtype"] != torch.float64 and any("value 0: error" in line for line in found):
            # rows' losses of both signs may nearly cancel: rounding is relative to their sizes
            with torch.no_grad():
                (loss,), (exact,) = ours(**call), formula(**widened(call))
                (size,) = formula(**widened(call), of=torch.abs)
            if abs(loss - exact) <= 2e-5 * (size + 1):
                found = [line for line in found if "value 0: error" not in line]
    lines(found)


TARGETS = {"one pass": (losses_of_rows(), check_one_pass)}
