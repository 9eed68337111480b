"""Which columns of a file make which field of a lead: what the header table and a map file both produce."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from ledger.errors import BadInput
from ledger.intake.identity import IDENTITY_FIELDS

COLUMNS_MAX: Final = 500
_HEADER_CHARS_MAX: Final = 1_000
"""Headers are repeated in the raw text of every row."""
_LISTED_MAX: Final = 30

Pieces = tuple[int, ...]
"""Columns joined with a space, those that are missing left out."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The map from a file's columns (by position, from 0) to the fields of a lead."""

    headers: tuple[str, ...]
    source: str
    fields: dict[str, tuple[Pieces, ...]]
    """Canonical field -> its pieces in order of preference: the first that holds a usable value is taken."""
    suppressed: Pieces = ()
    """Columns any of which may carry an opt-out."""
    extra: Pieces = ()
    """Columns kept on the lead as JSON."""
    missing: frozenset[str] = field(default_factory=frozenset)
    """Words that stand for an empty cell."""

    def mapping(self) -> dict[str, list[str]]:
        """Canonical field -> the columns it is made of; `suppressed` and `extra` where there are any.

        The words for missing values are part of it too, because an import with other words is another import.
        """
        made = {
            name: [self.headers[i] for pieces in found for i in pieces] for name, found in self.fields.items()
        }
        for name, columns in (("suppressed", self.suppressed), ("extra", self.extra)):
            if columns:
                made[name] = [self.headers[i] for i in columns]
        if self.missing:
            made["missing"] = sorted(self.missing)
        return made

    def unmapped(self) -> tuple[str, ...]:
        """The columns that nothing reads, in the file's order."""
        used = {i for found in self.fields.values() for pieces in found for i in pieces}
        used.update(self.suppressed, self.extra)
        return tuple(header for i, header in enumerate(self.headers) if i not in used)

    def has_identity(self) -> bool:
        """Whether any column can tell one lead from another."""
        return not self.fields.keys().isdisjoint(IDENTITY_FIELDS)


def listed(headers: tuple[str, ...]) -> str:
    """Headers for an error message, cut where it would flood the screen."""
    shown = ", ".join(repr(header[:60]) for header in headers[:_LISTED_MAX])
    rest = len(headers) - _LISTED_MAX
    return f"{shown} and {rest} more" if rest > 0 else shown


def read_headers(cells: list[str], file: str, row: int) -> tuple[str, ...]:
    """The headers of a file, trimmed; blank ones at the right end (a spreadsheet's empty columns) left out.

    Raises:
        BadInput: A header is blank, twice there, or not text; or there are more than 500.
    """
    headers = [cell.strip("\ufeff \t\r\n\xa0") for cell in cells]
    while headers and not headers[-1]:
        headers.pop()
    if len(headers) > COLUMNS_MAX:
        what = f"has {len(headers):,} columns, the limit is {COLUMNS_MAX}."
        raise BadInput(what, file=file, next_step="Export only the columns that are needed.")
    for number, header in enumerate(headers, start=1):
        _check_header(header, number, headers.index(header) + 1, file, row)
    return tuple(headers)


def _check_header(header: str, number: int, first: int, file: str, row: int) -> None:
    if not header:
        raise BadInput(f"column {number} has no header.", file=file, row=row, next_step="Give it a name.")
    if first != number:
        what = f"columns {first} and {number} have the same header."
        raise BadInput(what, file=file, row=row, column=header[:60], next_step="Rename one of them.")
    if len(header) > _HEADER_CHARS_MAX:
        what = f"the header of column {number} has {len(header):,} characters."
        raise BadInput(what, file=file, row=row, next_step="Is the first row a header?")
    if "\0" in header:
        raise BadInput(
            f"the header of column {number} has NUL bytes.",
            file=file,
            row=row,
            next_step="If the file is UTF-16 without a byte order mark, give --encoding utf-16-le.",
        )
    if any("\ud800" <= letter <= "\udfff" for letter in header):
        what = f"the header of column {number} has bytes that do not fit the encoding."
        raise BadInput(what, file=file, row=row, next_step="Give another --encoding.")
