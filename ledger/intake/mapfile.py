"""Map files: a dozen lines of TOML that say which columns make which field, for files no table knows.

    source = "tucson"                # scopes contact ids; "file" when left out
    missing = ["NA", "n/a"]          # words that stand for an empty cell

    [fields]
    company = "Business_Name"
    street = ["Street_Number", "Street_Name"]   # joined with a space, missing parts left out
    number1 = "Phone"
    suppressed = "Do not call"       # optional: anything but empty, 0, no, false is an opt-out
    extra = ["License_Type"]         # optional: kept on the lead as JSON

The fields are those of a lead: contact_id, company, street, city, state, zip, number1, number2, dm_name,
email, domain. Column names are written as in the file. With a map file nothing else is mapped.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from ledger.errors import BadInput
from ledger.intake.columns import Columns, Pieces, listed
from ledger.model import LEAD_FIELDS

_BYTES_MAX: Final = 1 << 16
_TOP_KEYS: Final = frozenset({"source", "missing", "fields"})
_FIELD_KEYS: Final = (*LEAD_FIELDS, "suppressed", "extra")


@dataclass(frozen=True, slots=True)
class MapFile:
    """A map file as read, before it meets the columns of a file."""

    name: str
    source: str
    missing: frozenset[str]
    fields: dict[str, tuple[str, ...]]

    def names(self, header: str) -> bool:
        """Whether the map names this column."""
        return any(header.strip() in columns for columns in self.fields.values())

    def columns(self, headers: tuple[str, ...]) -> Columns:
        """The map applied to a file's headers.

        Raises:
            BadInput: It names a column that the file lacks, or no column that identifies a lead.
        """
        found = {key: self._positions(key, names, headers) for key, names in self.fields.items()}
        suppressed, extra = found.pop("suppressed", ()), found.pop("extra", ())
        fields: dict[str, tuple[Pieces, ...]] = {key: (pieces,) for key, pieces in found.items()}
        columns = Columns(headers, self.source, fields, suppressed, extra, self.missing)
        if not columns.has_identity():
            _refuse(self.name, "[fields] maps none of contact_id, email, company, number1, number2.")
        return columns

    def _positions(self, key: str, names: tuple[str, ...], headers: tuple[str, ...]) -> Pieces:
        for name in names:
            if name not in headers:
                lacks = f"fields.{key} names the column {name!r}, which the file lacks."
                _refuse(self.name, f"{lacks} Its columns: {listed(headers)}.")
        return tuple(headers.index(name) for name in names)


def read_map(path: Path) -> MapFile:
    """A map file, checked as far as it can be without the file it is for.

    Raises:
        BadInput: It cannot be read, is not TOML, or a key in it is wrong; the key is named.
    """
    name = str(path)
    table = _table(path)
    for key in table.keys() - _TOP_KEYS:
        _refuse(name, f"the key {key!r} is not known; at the top there are source, missing and [fields].")
    source = table.get("source", "file")
    if not isinstance(source, str) or not source.strip() or ":" in source:
        _refuse(name, "source must be a word without a colon.")
    fields = table.get("fields")
    if not isinstance(fields, dict) or not fields:
        _refuse(name, "there is no [fields] table.")
    for key in fields.keys() - set(_FIELD_KEYS):
        _refuse(name, f"fields.{key} is not a field; there are {', '.join(_FIELD_KEYS)}.")
    missing = _words(name, "missing", table.get("missing", []))
    columns = {key: _words(name, f"fields.{key}", fields[key]) for key in _FIELD_KEYS if key in fields}
    return MapFile(name, source.strip(), frozenset(missing), columns)


def _table(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_BYTES_MAX + 1)
        if len(data) > _BYTES_MAX:
            _refuse(str(path), f"is over {_BYTES_MAX:,} bytes: a map file has a dozen lines.")
        return tomllib.loads(data.decode("utf-8-sig"))
    except OSError as error:
        raise BadInput(f"cannot be read: {error.strerror}.", file=str(path)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadInput(f"is not TOML: {error}.", file=str(path)) from error


def _words(file: str, key: str, value: object) -> tuple[str, ...]:
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list) or not all(isinstance(word, str) and word.strip() for word in words):
        _refuse(file, f"{key} must be a text or a list of texts, none of them blank.")
    if key.startswith("fields.") and not words:
        _refuse(file, f"{key} names no column.")
    return tuple(word.strip() for word in words)


def _refuse(file: str, what: str) -> NoReturn:
    raise BadInput(what, file=file, next_step="Correct the map file.")
