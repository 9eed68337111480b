"""The front door: a file on disk becomes its facts and a stream of rows."""

from __future__ import annotations

import codecs
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from ledger.errors import BadInput, UsageProblem
from ledger.intake.columns import Columns, read_headers
from ledger.intake.dialect import SEPARATORS, Dialect, find_dialect
from ledger.intake.encoding import Encoding, choose_encoding, fingerprint
from ledger.intake.headers import is_known, map_by_name
from ledger.intake.mapfile import read_map
from ledger.intake.records import Record, read_records
from ledger.intake.rows import RowMaker
from ledger.model import FileFacts, SourceRow

_HEAD_BYTES: Final = 1 << 16
_WORKBOOKS: Final = (".xlsx", ".xlsm", ".xls", ".ods")
_JSON: Final = (".json", ".jsonl", ".ndjson")
_ARCHIVES: Final = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0", b"\x1f\x8b")


class _Stamp(NamedTuple):
    """What changes when a file is written to: rows must come from the bytes that were hashed."""

    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class ImportFile:
    """A file that can be taken in. Made by `open_file`."""

    path: Path
    facts: FileFacts
    guesses: list[str]
    """Sentences for the user about what was found out rather than told."""
    _maker: RowMaker
    _encoding: Encoding
    _dialect: Dialect
    _stamp: _Stamp

    def rows(self) -> Iterator[SourceRow]:
        """The rows in the file's order, one for each record after the header; memory stays flat.

        May be called again: the file is then read again.

        Raises:
            BadInput: A quote never closes, or the file changed since it was opened. What was yielded before
                must then be given up, which the import's transaction does.
        """
        self._refuse_change()
        records = read_records(self.path, self._encoding, self._dialect)
        next(records, None)  # the header
        yield from map(self._maker.row, records)
        self._refuse_change()

    def _refuse_change(self) -> None:
        if _stamp(self.path) != self._stamp:
            raise BadInput("changed while it was read.", file=str(self.path), next_step="Import it again.")


def open_file(
    path: Path,
    *,
    map_file: Path | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    region: str = "US",
) -> ImportFile:
    """Find out all there is to know of a CSV or TSV file before its rows are read.

    Args:
        path: A regular file.
        map_file: A TOML map (see `ledger.intake.mapfile`); without one the headers must be known.
        encoding: What the user says it is; without it a byte order mark or strict UTF-8.
        delimiter: One character, or comma, tab, semicolon, pipe; without it the first rows tell.
        region: Two letters: where phone numbers and zip codes without a country belong.

    Raises:
        BadInput: The file cannot be taken in; the message says why, where and what to do.
        UsageProblem: `region` is not two letters.
    """
    name = str(path)
    if len(region) != 2 or not (region.isascii() and region.isalpha()):
        raise UsageProblem(f"--region {region!r} is not a country's two letters.", next_step="Example: US.")
    stamp, head = _stamp(path), _head(path)
    _refuse_kind(path, head)
    chosen = choose_encoding(head, encoding, name)
    layout = read_map(map_file) if map_file is not None else None
    known = is_known if layout is None else layout.names
    dialect = find_dialect(_decoded(head, chosen, name), delimiter, known, name)
    sha256 = _fingerprint(path, chosen, dialect)
    number, cells = _header(read_records(path, chosen, dialect), name)
    headers = read_headers(cells, name, number)
    columns = map_by_name(headers, name) if layout is None else layout.columns(headers)
    facts = FileFacts(
        path.name,
        sha256,
        columns.source,
        columns.mapping(),
        columns.unmapped(),
        chosen.name,
        dialect.delimiter,
        region.upper(),
        headers,
    )
    guesses = _guesses(chosen, dialect, columns, len(cells) - len(headers), mapped=layout is not None)
    maker = RowMaker(columns, len(cells), region.upper())
    return ImportFile(path, facts, guesses, maker, chosen, dialect, stamp)


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    if not stat.S_ISREG(found.st_mode):
        if stat.S_ISDIR(found.st_mode):
            raise BadInput("is a folder.", file=str(path), next_step="Name a CSV or TSV file.")
        what = "is not a regular file: a pipe gives its text once, and an import reads it more than once."
        raise BadInput(what, file=str(path), next_step="Save it to a file, and import that.")
    return _Stamp(found.st_ino, found.st_size, found.st_mtime_ns)


def _unreadable(path: Path, error: OSError | ValueError) -> BadInput:
    why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return BadInput(f"cannot be read: {why}.", file=str(path))


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise _unreadable(path, error) from None


def _refuse_kind(path: Path, head: bytes) -> None:
    suffix, name = path.suffix.lower(), str(path)
    if suffix in _WORKBOOKS or head.startswith(_ARCHIVES):
        what = "is a workbook or an archive, not text; only CSV and TSV can be read now."
        raise BadInput(what, file=name, next_step="Save the sheet as 'CSV UTF-8' and import that.")
    if suffix in _JSON:
        raise BadInput("is JSON; only CSV and TSV can be read now.", file=name, next_step="Export it as CSV.")
    if not head.strip():
        raise BadInput("is empty.", file=name, next_step="Export it again.")


def _decoded(head: bytes, encoding: Encoding, file: str) -> str:
    """The head as text, good enough to tell the separator; the last character may be cut through."""
    try:
        return codecs.getincrementaldecoder(encoding.codec)("replace").decode(head)
    except (LookupError, UnicodeError) as error:  # some codecs take no stream, or no "replace"
        raise BadInput(f"cannot be decoded as {encoding.name}: {error}.", file=file) from error


def _fingerprint(path: Path, encoding: Encoding, dialect: Dialect) -> str:
    try:
        return fingerprint(path, encoding, dialect)
    except OSError as error:
        raise _unreadable(path, error) from None


def _header(records: Iterator[Record], file: str) -> tuple[int, list[str]]:
    """The header's number and cells, once a row is known to follow it."""
    found = list(islice(records, 2))
    if not found:
        raise BadInput("is empty.", file=file, next_step="Export it again.")
    number, cells, damage = found[0]
    if damage is not None:
        raise BadInput(f"the header cannot be read: {damage}.", file=file, row=number, next_step="Mend it.")
    if len(found) == 1:
        raise BadInput("has a header and no rows.", file=file, next_step="Export it again.")
    return number, cells


def _guesses(
    encoding: Encoding, dialect: Dialect, columns: Columns, blank: int, *, mapped: bool
) -> list[str]:
    separator = SEPARATORS.get(dialect.delimiter, repr(dialect.delimiter))
    sentences = [f"read as {encoding.name.upper()}, {separator} separated"]
    if not mapped and columns.source != "file":
        sentences.append(f"taken for an export of {columns.source}, whose contact ids it has")
    if blank:
        sentences.append(f"{blank} blank column{'s' * (blank != 1)} at the right end left out")
    return sentences
