"""The one place that writes to the terminal: data on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any, Final

from ledger.plaintext import clean

__all__ = [
    "clean",
    "colours",
    "emit_json",
    "error",
    "fitted",
    "line",
    "paint",
    "say",
    "table",
    "tell",
    "writes_over",
]


class Line:
    """The line of a terminal that is written over and over, on stderr. Whatever else is written clears it."""

    def __init__(self) -> None:
        self._shown = False

    def show(self, text: str) -> None:
        """Write over it. A text that is too long is cut: a line that wraps could not be taken back."""
        sys.stderr.write(_CLEAR + fitted(text, _columns() - 1))
        sys.stderr.flush()
        self._shown = True

    def clear(self) -> None:
        """Take it away, if it is there."""
        if self._shown:
            sys.stderr.write(_CLEAR)
            sys.stderr.flush()
            self._shown = False


line: Final = Line()
_CLEAR: Final = "\r\x1b[2K"


def writes_over(stream: Any) -> bool:
    """Whether `stream` is a terminal whose lines can be written over."""
    return bool(stream.isatty()) and os.environ.get("TERM") != "dumb"


def fitted(text: str, columns: int) -> str:
    """As much of `text` as fits; East Asian letters take two columns, accents none."""
    widths = [_WIDTHS.get(unicodedata.east_asian_width(sign), 1) for sign in text]
    widths = [0 if unicodedata.combining(sign) else width for sign, width in zip(text, widths, strict=True)]
    if sum(widths) <= columns:
        return text
    room = columns - 1
    kept = 0
    while kept < len(text) and widths[kept] <= room:
        room -= widths[kept]
        kept += 1
    return text[:kept] + "…"


_WIDTHS: Final = {"W": 2, "F": 2}


def _columns() -> int:
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):  # no terminal, or none that says
        return 80


def say(text: str) -> None:
    """One line of data for a person, on stdout."""
    line.clear()
    sys.stdout.write(text + "\n")


def tell(text: str) -> None:
    """One line about what is going on, on stderr."""
    line.clear()
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def emit_json(value: dict[str, Any]) -> None:
    """Exactly one JSON object on one line on stdout."""
    line.clear()
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")
    sys.stdout.flush()


def error(what: str, money: str, next_step: str, *, as_json: bool) -> None:
    """A mistake or a failure: what is wrong, what it did to the money, what to do next."""
    if as_json:
        emit_json({"schema": 1, "error": {"what": what, "money": money, "next_step": next_step}})
    label = paint("Error:", "31", sys.stderr)
    tell(f"{label} {clean(what)}")
    for line in (money, next_step):
        if line:
            tell(f"       {clean(line)}")


def paint(text: str, code: str, stream: Any = None) -> str:
    """`text` in an ANSI colour where a terminal shows it; NO_COLOR and FORCE_COLOR decide before that."""
    return f"\x1b[{code}m{text}\x1b[0m" if colours(stream or sys.stdout) else text


def colours(stream: Any) -> bool:
    """Whether `stream` takes colours (no-color.org, force-color.org)."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return writes_over(stream)


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Columns for a person, padded to their widest cell; numbers to the right."""
    cells = [[clean("" if cell is None else cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [list(headers), *cells]) for column in range(len(headers))]
    say(
        paint("  ".join(head.ljust(width) for head, width in zip(headers, widths, strict=True)).rstrip(), "1")
    )
    for row in cells:
        say("  ".join(_pad(cell, width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _pad(cell: str, width: int) -> str:
    number = cell.lstrip("-$").replace(",", "").replace(".", "", 1)
    return cell.rjust(width) if number.isdigit() else cell.ljust(width)
