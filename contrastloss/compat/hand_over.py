"""What an adapter does not compute itself goes to the other library's own class."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

__all__ = ["say_once", "theirs"]

log = logging.getLogger("contrastloss.compat")


@lru_cache(maxsize=256)
def say_once(text: str) -> None:
    """Logs a warning, the first time that it is said in this process."""
    log.warning(text)


def theirs(module: str, name: str, reason: str) -> Callable[..., Any]:
    """The class or function ``name`` of another library's ``module``.

    Raises:
        NotImplementedError: the library is not installed.
    """
    try:
        found = getattr(import_module(module), name)
    except ImportError as error:
        library = module.split(".")[0]
        raise NotImplementedError(
            f"{reason}: not computed by contrastloss, and {library}, whose {name} computes it, "
            f"does not import: {error}"
        ) from error
    say_once(f"{name}: {reason} is computed by {module}.{name}")
    return found
