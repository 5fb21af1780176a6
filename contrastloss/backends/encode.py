"""The program of a call as integers, for ``Reader`` of csrc/operands.h."""

from __future__ import annotations

import math
from functools import lru_cache

import torch

from ..channel import (
    COL,
    EXPECT,
    INDEX,
    LSE,
    MAX,
    PSI,
    ROW,
    ROW_TERMS,
    SUM,
    TERMS,
    Axis,
    Channel,
    Term,
)
from ..program import Program
from .constant import constant

__all__ = ["Code", "encode"]

_KINDS = {LSE: 0, SUM: 1, EXPECT: 2, MAX: 3}
_TESTS = {"eq": 0, "ne": 1, "lt": 2, "within": 3}
_TERMS = {kind: number for number, kind in enumerate(TERMS)}


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
        col = self._operand(COL, name, False) if term.kind not in ROW_TERMS else -1
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
            -1 if shift is None else self.program.shifts[channel.axis].index(shift),
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
def encode(text: str) -> Code:
    """The code of the program with this text."""
    return Code(Program.decode(text))
