"""Adds entries to the user's file, so that no reader sees half a file and no writer loses another's
entries."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from ..backends.table import Entry, read, text

__all__ = ["save"]

#: for how many seconds another process may hold the lock
PATIENCE = 10.0


def save(file: Path, entries: Sequence[Entry]) -> None:
    """Write entries to a file. They replace those of the same backend and stamp, and a file that
    does not fit its schema.

    Raises:
        OSError: the file cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with _locked(file.with_name(f"{file.name}.lock")):
        kept: Sequence[Entry] = ()
        with suppress(ValueError):
            kept = read(file)
        new = {(entry.backend, entry.checked) for entry in entries}
        kept = [entry for entry in kept if (entry.backend, entry.checked) not in new]
        with NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, delete=False) as made:
            made.write(text([*kept, *entries]))
        os.replace(made.name, file)


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    last = time.monotonic() + PATIENCE
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL))
            break
        except FileExistsError as error:
            if time.monotonic() > last:
                raise TimeoutError(
                    f"{lock} is held by another process; remove it if there is none"
                ) from error
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.unlink()
