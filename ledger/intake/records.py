"""Records out of a text file, one at a time, with a bound on everything that a stray quote could swallow."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final, TextIO

from ledger.errors import BadInput
from ledger.intake.dialect import Dialect
from ledger.intake.encoding import Encoding

LINES_MAX: Final = 51
"""Lines of one record. An address has a handful; fifty line breaks mean a quote that never closed."""
LINE_CHARS_MAX: Final = 1 << 22
"""Characters of one line, and of one cell while it is read (a row is rejected far below that)."""
_UNCLOSED: Final = "a quote that opens here seems never to close"

Record = tuple[int, list[str], str | None]
"""Number (as a spreadsheet counts), cells, what is wrong with its quotes (then the one cell is its text)."""


def read_records(path: Path, encoding: Encoding, dialect: Dialect) -> Iterator[Record]:
    """The records of a file, the header among them.

    A blank line is no record, yet it is counted in the numbers, so that they are those a spreadsheet shows.

    Raises:
        BadInput: The file cannot be read, or a quote is never closed.
    """
    # The limit belongs to the whole process and is only ever raised. The default (131,072) ends a record in
    # the middle of a big cell; what follows would be read as rows.
    csv.field_size_limit(max(csv.field_size_limit(), LINE_CHARS_MAX))
    try:
        with path.open(encoding=encoding.codec, errors=encoding.errors, newline="") as text:
            if dialect.separator_line:
                text.readline()
            yield from _Feed(text, str(path)).records(dialect.delimiter)
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}.", file=str(path)) from error
    except UnicodeError as error:
        raise BadInput(f"cannot be decoded as {encoding.name}: {error}.", file=str(path)) from error


class _Feed:
    """Hands lines to the CSV reader and remembers those of the record in hand."""

    def __init__(self, text: TextIO, file: str) -> None:
        self._text, self._file = text, file
        self._lines: list[str] = []
        self._ended = False
        self._number = 1

    def records(self, delimiter: str) -> Iterator[Record]:
        # Not strict, the reader would glue the next lead to one whose quote is closed by a later quote.
        reader = csv.reader(self._feed(), delimiter=delimiter, strict=True)
        lines = self._lines
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error:
                yield self._number, ["".join(lines)], self._damage()
            else:
                if cells:
                    yield self._number, cells, None
            lines.clear()
            self._number += 1

    def _feed(self) -> Iterator[str]:
        lines = self._lines
        for line in iter(partial(self._text.readline, LINE_CHARS_MAX), ""):
            lines.append(line)
            if len(lines) > LINES_MAX:
                raise self._refusal(f"{_UNCLOSED}: the record has more than {LINES_MAX - 1} line breaks.")
            if len(line) == LINE_CHARS_MAX:
                raise self._refusal(f"a line has more than {LINE_CHARS_MAX:,} characters: this is no table.")
            yield line
        self._ended = True

    def _damage(self) -> str:
        if self._ended:
            raise self._refusal(f"{_UNCLOSED}: the file ends inside it.")
        if sum(map(len, self._lines)) > LINE_CHARS_MAX:
            raise self._refusal(f"{_UNCLOSED}: a cell has more than {LINE_CHARS_MAX:,} characters.")
        over = f", and the record runs over {len(self._lines)} lines" if len(self._lines) > 1 else ""
        return f"a quote is not closed, or not doubled inside a quoted cell{over}"

    def _refusal(self, what: str) -> BadInput:
        next_step = "Mend this row, or export the file again."
        return BadInput(what, file=self._file, row=self._number, next_step=next_step)
