"""What parts the cells of a file: found from its first rows, shown to the user, never silently wrong."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from itertools import islice
from typing import Final, NamedTuple

from ledger.errors import BadInput

SEPARATORS: Final = {",": "comma", "\t": "tab", ";": "semicolon", "|": "pipe"}
"""What is tried, in the order in which a tie is decided, and what it is called."""
_SPELLINGS: Final = {"\\t": "\t"} | {name: mark for mark, name in SEPARATORS.items()}
_ROWS_SNIFFED: Final = 20


class Dialect(NamedTuple):
    """How a file is laid out."""

    delimiter: str
    separator_line: bool
    """The first line is Excel's `sep=;`: it belongs to no row, and spreadsheets do not count it."""


def find_dialect(head: str, asked: str | None, known: Callable[[str], bool], file: str) -> Dialect:
    """The dialect of a file whose text begins with `head` (without its byte order mark).

    `asked` (`--delimiter`: one character, or the word comma, tab, semicolon or pipe) decides; then a `sep=`
    line; then the separator that yields the most headers for which `known` is true, the steadiest rows and
    the most columns, in this order.

    Raises:
        BadInput: `asked` is not one character, or the file comes out as one column whose header is unknown.
    """
    stated = _stated_separator(io.StringIO(head, newline="").readline())
    if asked is not None:
        return Dialect(_one_character(asked, file), stated is not None)
    if stated is not None:
        return Dialect(stated, separator_line=True)
    best = max(SEPARATORS, key=lambda delimiter: _score(head, delimiter, known))
    header = next(iter(_first_records(head, best)), [])
    if len(header) == 1 and header[0].strip() and not known(header[0]):
        raise BadInput(
            f"comes out as one column, {header[0][:60]!r}: no comma, tab, semicolon or pipe parts it.",
            file=file,
            next_step="Name its separator with --delimiter.",
        )
    return Dialect(best, separator_line=False)


def _stated_separator(line: str) -> str | None:
    """The separator that Excel's `sep=;` line states, if the line is one."""
    text = line.rstrip("\r\n").strip('"')
    if len(text) != 5 or text[:4].casefold() != "sep=" or text[4].isalnum():
        return None
    return text[4]


def _one_character(asked: str, file: str) -> str:
    mark = _SPELLINGS.get(asked.casefold(), asked)
    if len(mark) != 1 or mark in '"\r\n\0':
        raise BadInput(
            f"{asked!r} cannot part cells.",
            file=file,
            next_step="--delimiter takes one character, or comma, tab, semicolon or pipe.",
        )
    return mark


def _score(head: str, delimiter: str, known: Callable[[str], bool]) -> tuple[int, bool, int, int]:
    records = _first_records(head, delimiter)
    if not records:
        return (0, False, 0, 0)
    header = records[0]
    steady = sum(len(record) == len(header) for record in records)
    return sum(map(known, header)), len(header) > 1, steady, len(header)


def _first_records(head: str, delimiter: str) -> list[list[str]]:
    reader = csv.reader(io.StringIO(head, newline=""), delimiter=delimiter)
    return list(islice(filter(None, reader), _ROWS_SNIFFED))
