"""Kinds, tests and weights by name, from which tests build channels and programs."""

from dataclasses import replace

import torch
from hypothesis import strategies as st
from oracle import VECTORS

from contrastloss.channel import (
    COL,
    EXPECT,
    INDEX,
    LSE,
    MAX,
    PSI,
    ROW,
    SUM,
    at_most,
    col_weight,
    differing,
    differs,
    distance,
    form,
    not_above,
    precedes,
    row_weight,
    same,
    within,
)

KINDS = {
    "lse": LSE(),
    "lse 2.5": LSE(2.5),
    "lse -1": LSE(-1.0),
    "lse 0": LSE(0.0),
    **{psi: SUM(psi) for psi in PSI},
    "minus softplus": SUM("softplus", sign=-1.0),
    "minus step": SUM("step", sign=-1.0),
    **{f"shifted {psi}": SUM(psi, sign=-1.0, shift="margin") for psi in PSI},
    "expect": EXPECT(),
    "expect -2": EXPECT(-2.0),
    "expect 0": EXPECT(0.0),
    "max": MAX(),
    "min": MAX(sign=-1.0),
    "lse relax": LSE(3.0, relax=0.25),
    "lse -relax": LSE(-3.0, relax=0.4),
}
PAIRS = {
    "all": (),
    "eq": (same("a"),),
    "ne": (differs("a"),),
    "lt": (precedes("a"),),
    "within": (within("a", 1),),
    "diagonal": (same(INDEX),),
    "off diagonal": (differs(INDEX),),
    "upper triangle": (precedes(INDEX),),
    "band": (within(INDEX, 3),),
    "both": (differs(INDEX), same("a"), precedes("b")),
}
WEIGHTS = {
    "none": (),
    "row": (row_weight("u"),),
    "col": (col_weight("v"),),
    "distance": (distance("age", -0.7),),
    "differing": (differing("a", "b", "c"),),
    "form": (form("soft"),),
    "log form": (form("soft", log=True),),
    "log form eps": (form("soft", log=True, eps=0.1),),
    "sum": (row_weight("u"), col_weight("v"), distance("age", 0.4)),
    "at most": (at_most("near"),),
    "not above": (not_above("most"),),
    "not above, row": (not_above("most"), row_weight("u")),
}
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
OPERANDS = ((), ("scale",), ("row_bias", "col_bias"), ("row_scale", "col_scale"), VECTORS)


def variant(channel, axis, pairs=(), weight=()):
    return replace(channel, axis=axis, pairs=pairs, weight=() if channel.kind == "MAX" else weight)


@st.composite
def channels(draw):
    kind = draw(st.sampled_from(sorted(KINDS)))
    return variant(
        KINDS[kind],
        draw(st.sampled_from([ROW, COL])),
        draw(st.sampled_from(list(PAIRS.values()))),
        draw(st.sampled_from(list(WEIGHTS.values()))),
    )
