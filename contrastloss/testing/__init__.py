"""Checks that every loss passes, also for your own losses: ``check_loss(MyLoss)``.

Each property is a function of a :class:`Subject`; :data:`CHECKS` lists them, so that pytest can run
them one by one. The oracle is the loss's own dense ``reference`` in fp64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from ..backends import available
from ..losses import Loss
from .checks import CHECKS
from .subject import TEMPERATURES, Subject, dense, example

__all__ = [
    "CHECKS",
    "TEMPERATURES",
    "Subject",
    "check_loss",
    "dense",
    "example",
]


def check_loss(
    cls: type[Loss],
    *,
    device: str | torch.device = "cpu",
    backends: Sequence[str] | None = None,
    **options: Any,
) -> None:
    """Run all :data:`CHECKS` on ``cls(**options)``, for the given backends or for every backend
    that is available and supports the loss on ``device``.

    Raises:
        AssertionError: a property does not hold; the message names the loss, check and backend.
    """
    for backend in available() if backends is None else backends:
        subject = Subject(cls, options, device, backend)
        try:
            subject.loss()(*subject.inputs())
        except RuntimeError as error:
            if backends is None and "cannot serve" in str(error):
                continue
            raise
        for check in CHECKS:
            try:
                check(subject)
            except AssertionError as error:
                where = f"{cls.__name__}, {check.__name__} on {backend}"
                raise AssertionError(f"{where}: {error}") from error
