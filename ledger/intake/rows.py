"""From the cells of a record to a row the store can take: one `SourceRow` for every record, come what may."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from ledger.intake import normalise
from ledger.intake.columns import Columns, Pieces
from ledger.intake.identity import NO_IDENTITY, keys_of
from ledger.intake.normalise import tidy
from ledger.intake.phone import NANP_REGIONS, elsewhere, north_american
from ledger.intake.records import Record
from ledger.model import LEAD_FIELDS, Keys, SourceRow

CELL_BYTES_MAX: Final = 1 << 16
_NOT_OPTED_OUT: Final = frozenset(
    {"", "0", "0.0", "false", "f", "no", "n", "off", "none", "null", "n/a", "-"}
)
_EXPECTED: Final = {
    "contact_id": "an id",
    "email": "an e-mail address",
    "number1": "a phone number",
    "number2": "a phone number",
    "domain": "a web address",
}
_NO_FIELDS: Final = (None,) * len(LEAD_FIELDS)
_NO_KEYS: Final = Keys(None, None, None, None)
_SHOWN_MAX: Final = 40
# One encoder for all rows: json.dumps makes a new one at each call as soon as an option is given.
_as_json: Final = json.JSONEncoder(ensure_ascii=False).encode

Check = Callable[[str], str | None]


class RowMaker:
    """Makes the rows of one file; the header map is compiled here once.

    Args:
        columns: The file's header map.
        width: Cells of the header record, blank ones at its right end included.
        region: Two letters: where numbers without a country code belong.
    """

    def __init__(self, columns: Columns, width: int, region: str) -> None:
        self._columns, self._width, self._region = columns, width, region
        self._used = len(columns.headers)
        checks = _checks(columns.source, region)
        self._plain: list[tuple[int, int]] = []
        """Place in the fields and column, for fields of one column that need no check: most of a file."""
        self._checked: list[tuple[int, str, tuple[Pieces, ...], Check]] = []
        for place, name in enumerate(LEAD_FIELDS):
            alternatives = columns.fields.get(name, ())
            if name not in checks and len(alternatives) == 1 and len(alternatives[0]) == 1:
                self._plain.append((place, alternatives[0][0]))
            elif alternatives:
                self._checked.append((place, name, alternatives, checks.get(name, str)))
        # Filling a template is three times as fast as encoding a dict.
        names = (_as_json(header).replace("%", "%%") for header in columns.headers)
        self._template = "{" + ", ".join(f"{name}: %s" for name in names) + "}"

    def row(self, record: Record) -> SourceRow:
        """The row of a record: a lead, or a rejection that keeps the text."""
        number, cells, damage = record
        if damage is not None:
            return _rejected(number, _as_json({"(line)": _storable(cells[0])}), None, damage)
        if len(cells) != self._used:
            if self._is_misshapen(cells):
                return self._wrong_length(number, cells)
            cells = cells[: self._used]
        raw = self._template % tuple(map(_as_json, cells))
        # What needs a closer look cannot hide in the JSON text: NUL, line breaks and tabs are escaped there.
        # One search through the row is cheaper than several through each cell.
        plain = raw.isascii() and len(raw) <= CELL_BYTES_MAX and "\\" not in raw
        if not plain:
            unfit = self._unfit(cells)
            if unfit is not None:
                raw = self._template % tuple(_as_json(_storable(cell)) for cell in cells)
                return _rejected(number, raw, *unfit)
        fields, problems = self._clean(cells, str.strip if plain and "  " not in raw else tidy)
        keys = keys_of(fields, self._columns.source, self._region)
        problem = "; ".join(sentence for _, sentence in problems) if problems else None
        if keys is None:
            column = self._columns.headers[problems[0][0]] if problems else None
            why = f"{NO_IDENTITY} ({problem})" if problem else NO_IDENTITY
            return SourceRow(number, raw, fields, _NO_KEYS, problem=problem, rejection=(column, why))
        columns = self._columns
        return SourceRow(
            number,
            raw,
            fields,
            keys,
            self._extra(cells) if columns.extra else None,
            bool(columns.suppressed) and self._is_suppressed(cells),
            problem,
        )

    def _clean(
        self, cells: list[str], trim: Callable[[str], str]
    ) -> tuple[tuple[str | None, ...], list[tuple[int, str]]]:
        """The cleaned fields, and for each bad cell its column and a sentence."""
        values: list[str | None] = [None] * len(LEAD_FIELDS)
        problems: list[tuple[int, str]] = []
        missing = self._columns.missing
        for place, column in self._plain:
            text = trim(cells[column])
            if text and text not in missing:
                values[place] = text
        for place, name, alternatives, check in self._checked:
            for pieces in alternatives:
                text = trim(cells[pieces[0]]) if len(pieces) == 1 else self._joined(cells, pieces)
                if not text or text in missing:
                    continue
                value = check(text)
                if value is not None:
                    values[place] = value
                    break
                problems.append((pieces[0], _complaint(name, text)))
        return tuple(values), problems

    def _joined(self, cells: list[str], pieces: Pieces) -> str:
        texts = (tidy(cells[column]) for column in pieces)
        return " ".join(text for text in texts if text and text not in self._columns.missing)

    def _extra(self, cells: list[str]) -> str | None:
        kept = {self._columns.headers[column]: tidy(cells[column]) for column in self._columns.extra}
        kept = {header: text for header, text in kept.items() if text and text not in self._columns.missing}
        return _as_json(kept) if kept else None

    def _is_suppressed(self, cells: list[str]) -> bool:
        """Anything that does not say no is an opt-out: some exports put its date there."""
        texts = (tidy(cells[column]) for column in self._columns.suppressed)
        return any(
            text.casefold() not in _NOT_OPTED_OUT and text not in self._columns.missing for text in texts
        )

    def _is_misshapen(self, cells: list[str]) -> bool:
        return len(cells) != self._width or any(cell.strip() for cell in cells[self._used :])

    def _wrong_length(self, number: int, cells: list[str]) -> SourceRow:
        headers = self._columns.headers
        raw = {
            headers[i] if i < len(headers) else f"(cell {i + 1})": _storable(cell)
            for i, cell in enumerate(cells)
        }
        reason = f"has {len(cells)} cell{'s' * (len(cells) != 1)}, the header has {self._used}"
        return _rejected(number, _as_json(raw), None, reason)

    def _unfit(self, cells: list[str]) -> tuple[str, str] | None:
        """The first cell that cannot be taken at all, as (column, reason)."""
        for header, cell in zip(self._columns.headers, cells, strict=True):
            if "\0" in cell:
                return header, "NUL byte"
            try:
                size = len(cell.encode())
            except UnicodeEncodeError as error:
                byte = ord(cell[error.start]) & 0xFF
                return header, f"byte 0x{byte:02X} does not fit the encoding"
            if size > CELL_BYTES_MAX:
                return header, f"a cell of {size:,} bytes, the limit is {CELL_BYTES_MAX:,}"
        return None


def _checks(source: str, region: str) -> dict[str, Check]:
    number = north_american if region in NANP_REGIONS else elsewhere
    return {
        "contact_id": normalise.salesforce_id if source == "salesforce" else normalise.contact_id,
        "zip": normalise.zip_code,
        "number1": number,
        "number2": number,
        "email": normalise.email,
        "domain": normalise.domain,
    }


def _complaint(name: str, text: str) -> str:
    shown = repr(text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…")
    if normalise.is_mangled(text):
        return f"{name}: {shown} was mangled by a spreadsheet"
    return f"{name}: not {_EXPECTED[name]}: {shown}"


def _storable(text: str) -> str:
    """Text that UTF-8 can hold: a byte that did not fit the encoding (0xE9) is spelt `backslash udce9`."""
    return text.encode("utf-8", "backslashreplace").decode()


def _rejected(number: int, raw: str, column: str | None, reason: str) -> SourceRow:
    return SourceRow(number, raw, _NO_FIELDS, _NO_KEYS, rejection=(column, reason))
