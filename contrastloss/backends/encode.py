"""Converts calls to the arguments of the compiled backends' operators: contiguous tensors, and the
program as integers for ``Reader`` of csrc/operands.h."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ..channel import COL, EXPECT, INDEX, LSE, MAX, PSI, ROW, SUM, Axis, Channel, Program, Term
from .call import PairCall
from .constant import constant
from .network import DISTRIBUTIONS, SortCall, comparators
from .topk import Selection

__all__ = [
    "SCHEMA",
    "SELECTION",
    "SORT",
    "Code",
    "arguments",
    "encode",
    "selection_arguments",
    "sort_arguments",
]

#: the schema of what :func:`arguments` returns
SCHEMA = (
    "Tensor x, Tensor? y, Tensor? scale, Tensor? row_scale, Tensor? col_scale, Tensor? row_bias, "
    "Tensor? col_bias, Tensor[] rows, Tensor[] cols, Tensor code, Tensor values, bool cosine"
)

#: the schema of what :func:`selection_arguments` returns
SELECTION = (
    "int k, Tensor? lower, Tensor? upper, Tensor[] ignore, Tensor? row_keys, Tensor? col_keys, "
    "float beta"
)

#: the schema of what :func:`sort_arguments` returns
SORT = "Tensor x, Tensor t, Tensor steepness, Tensor ends, float art_lambda, int distribution"

_KINDS = {LSE: 0, SUM: 1, EXPECT: 2, MAX: 3}
_TESTS = {"eq": 0, "ne": 1, "lt": 2, "within": 3}
_TERMS = {"row": 0, "col": 1, "distance": 2, "differing": 3, "form": 4, "log_form": 5, "at_most": 6}


class Code:
    """A program encoded for ``Reader``, and its operands in the order of their numbers: (position
    among the program's operands, whether it is read as ids)."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.code: list[int] = []
        self.values: list[float] = []
        self.operands: dict[Axis, list[tuple[int, bool]]] = {ROW: [], COL: []}
        #: the tests and weights that channels share
        self.groups = list(dict.fromkeys((c.pairs, c.weight) for c in program.channels))
        self.code.append(len(self.groups))
        for pairs, weight in self.groups:
            self.code.append(len(pairs))
            for test in pairs:
                self.code += [_TESTS[test.op], *self._both(test.name, ids=True), test.width]
            self.code.append(len(weight))
            for term in weight:
                self._term(term)
        self.code.append(len(program.channels))
        for channel in program.channels:
            self._channel(channel, self.groups.index((channel.pairs, channel.weight)))
        #: tensors, since lists would be converted number by number at every call
        self.tensors = constant(self.code, torch.int64), constant(self.values, torch.float64)

    def _term(self, term: Term) -> None:
        self.code += [_TERMS[term.kind], self._value(term.value), len(term.names)]
        if term.kind == "differing":
            for name in term.names:
                self.code += self._both(name, ids=True)
            return
        name = term.names[0]
        row = self._operand(ROW, name, False) if term.kind != "col" else -1
        col = self._operand(COL, name, False) if term.kind != "row" else -1
        self.code += [row, col]

    def _channel(self, channel: Channel, group: int) -> None:
        psi = PSI.index(channel.psi) if isinstance(channel, SUM) else 0
        margin = channel.relax if isinstance(channel, LSE) else None
        shift = channel.shift if isinstance(channel, SUM) else None
        self.code += [
            _KINDS[type(channel)],
            psi,
            int(channel.axis == COL),
            group,
            self._value(getattr(channel, "theta", 1.0)),
            self._value(getattr(channel, "sign", 1.0)),
            self._value(math.nan if margin is None else margin),
            -1 if shift is None else self._operand(channel.axis, shift, False),
            -1 if shift is None else self.program.shifts(channel.axis).index(shift),
        ]

    def _value(self, value: float) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def _both(self, name: str, ids: bool) -> list[int]:
        return [self._operand(ROW, name, ids), self._operand(COL, name, ids)]

    def _operand(self, axis: Axis, name: str, ids: bool) -> int:
        names = self.program.rows if axis == ROW else self.program.cols
        if name == INDEX and name not in names:
            return -1
        key = (names.index(name), ids)
        if key not in self.operands[axis]:
            self.operands[axis].append(key)
        return self.operands[axis].index(key)


@lru_cache(maxsize=1024)
def encode(program: Program) -> Code:
    return Code(program)


def arguments(call: PairCall) -> tuple:
    """The operands of a call: ids in int64, floats in the statistics' dtype. A tensor that rows and
    columns share stays one tensor, because backends recognise it by its address."""
    code = encode(call.program)
    made: dict[tuple, Tensor] = {}

    def operand(value: Tensor, ids: bool) -> Tensor:
        dtype = torch.int64 if ids else call.stat_dtype
        if value.dtype == dtype and value.is_contiguous():
            return value
        key = value.data_ptr(), value.shape, value.stride(), dtype
        if key not in made:
            made[key] = value.to(dtype).contiguous()
        return made[key]

    def vector(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.contiguous()

    return (
        call.x.contiguous(),
        vector(call.y),
        vector(call.scale),
        vector(call.row_scale),
        vector(call.col_scale),
        vector(call.row_bias),
        vector(call.col_bias),
        [operand(call.rows[k], ids) for k, ids in code.operands[ROW]],
        [operand(call.cols[k], ids) for k, ids in code.operands[COL]],
        *code.tensors,
        call.cosine,
    )


def selection_arguments(selection: Selection) -> tuple:
    """The operands of a top-k. Keys become int32 with the same bits."""

    def words(keys: Tensor | None) -> Tensor | None:
        return None if keys is None else keys.to(torch.int32).contiguous()

    def bound(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.contiguous()

    return (
        selection.k,
        bound(selection.lower),
        bound(selection.upper),
        list(selection.ignore or ()),
        words(selection.row_keys),
        words(selection.col_keys),
        selection.sample or 0.0,
    )


def sort_arguments(call: SortCall) -> tuple:
    ends, _ = comparators(call.network, call.x.shape[1], call.x.device)
    tensors = (v.contiguous() for v in (call.x, call.t, call.steepness))
    return (*tensors, ends, call.art_lambda, DISTRIBUTIONS.index(call.distribution))
