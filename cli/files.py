"""Writing a file that somebody asked for: never over another one unasked, and whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TextIO, TypeVar

from ledger.errors import UsageProblem

T = TypeVar("T")


def check_new(file: Path, *, force: bool) -> None:
    """Refuse a file that is there already.

    Raises:
        UsageProblem: It exists and `force` is False.
    """
    if file.exists() and not force:
        raise UsageProblem(f"{file} exists.", next_step="--force overwrites it.")


def write_whole(file: Path, write: Callable[[TextIO], T]) -> T:
    """Let `write` fill a temporary file beside `file` (UTF-8, mode 0600), sync it and put it in its place.

    Returns:
        What `write` returned.

    Raises:
        UsageProblem: The folder cannot be written to.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    except OSError as error:
        raise UsageProblem(f"{file} cannot be written: {error.strerror}.") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
            written = write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(file)
    except BaseException:
        with suppress(OSError):
            Path(temporary).unlink()
        raise
    return written
