"""Which encoding a file is in, and whether all of it is: found out before a single row is believed."""

from __future__ import annotations

import codecs
import csv
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ledger.errors import BadInput
from ledger.intake.dialect import Dialect

_BLOCK_BYTES: Final = 1 << 20
_LINE_BYTES_MAX: Final = 1 << 22
_MARKS: Final = (  # UTF-32 before UTF-16: the mark of one begins with the mark of the other
    (codecs.BOM_UTF32_LE, "utf-32", "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32", "utf-32"),
    (codecs.BOM_UTF8, "utf-8", "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16", "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "utf-16"),
)


class Encoding(NamedTuple):
    """How bytes become text."""

    name: str
    """For people and the ledger: `utf-8`, `utf-16`, `cp1252`."""
    codec: str
    """What `open` is given; it takes the byte order mark away."""
    errors: str
    """`strict`: every byte was checked. `surrogateescape`: bad bytes are rejected row by row."""


def choose_encoding(head: bytes, asked: str | None, file: str) -> Encoding:
    """The encoding of a file that begins with `head`.

    A byte order mark decides; without one it is strict UTF-8, because a guess among the 8-bit encodings
    cannot be told from garbage. With `asked` (`--encoding`) a byte that does not fit costs its row only.

    Raises:
        BadInput: `asked` is no text encoding, or the file's byte order mark contradicts it.
    """
    marked = next(((family, codec) for mark, family, codec in _MARKS if head.startswith(mark)), None)
    if asked is None:
        family, codec = marked or ("utf-8", "utf-8")
        return Encoding(family, codec, "strict")
    name = codec = _codec_name(asked, file)
    if marked is not None:
        if not name.startswith(marked[0]):
            raise BadInput(
                f"begins with a byte order mark of {marked[0].upper()}, and --encoding says {asked}.",
                file=file,
                next_step="Leave --encoding away.",
            )
        codec = marked[1]
    # In a wide encoding one bad byte shifts all that follows: no row after it could be trusted.
    wide = name.startswith(("utf-16", "utf-32"))
    return Encoding(name, codec, "strict" if wide else "surrogateescape")


def _codec_name(asked: str, file: str) -> str:
    try:
        "a".encode(asked)  # refuses the codecs that do not make text, which codecs.lookup lets through
        return codecs.lookup(asked).name
    except (LookupError, ValueError):
        raise BadInput(
            f"{asked!r} is not an encoding known here.",
            file=file,
            next_step="Usual ones are utf-8, cp1252 (Excel on Windows), mac-roman and utf-16.",
        ) from None


def fingerprint(path: Path, encoding: Encoding, dialect: Dialect) -> str:
    """The file's SHA-256 (hex), read in blocks; on the way every byte is decoded where that is strict.

    Raises:
        BadInput: A byte does not fit the encoding (its offset, and for UTF-8 its row, are named).
        OSError: The file cannot be read.
    """
    digest = hashlib.sha256()
    decoder = codecs.getincrementaldecoder(encoding.codec)()
    done = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
            if encoding.errors == "strict":
                _check(decoder, block, done, path, encoding, dialect)
            done += len(block)
    if encoding.errors == "strict":
        _check(decoder, b"", done, path, encoding, dialect)
    return digest.hexdigest()


def _check(
    decoder: codecs.IncrementalDecoder,
    block: bytes,
    done: int,
    path: Path,
    encoding: Encoding,
    dialect: Dialect,
) -> None:
    kept = len(decoder.getstate()[0])  # bytes of a character that the end of the last block cut through
    try:
        decoder.decode(block, final=not block)
    except UnicodeDecodeError as error:
        raise _misfit(done - kept + error.start, error.object[error.start], path, encoding, dialect) from None


def _misfit(offset: int, byte: int, path: Path, encoding: Encoding, dialect: Dialect) -> BadInput:
    what = f"byte {offset:,} (0x{byte:02X}) is not {encoding.name.upper()}."
    if encoding.name != "utf-8":
        return BadInput(what, file=str(path), next_step="It is damaged or cut off; export it again as UTF-8.")
    return BadInput(
        what,
        file=str(path),
        row=_row_of_byte(path, offset, dialect),
        next_step="Give --encoding cp1252 if it comes from Excel on Windows, or --encoding utf-8 to reject "
        "only the rows with such bytes.",
    )


def _row_of_byte(path: Path, offset: int, dialect: Dialect) -> int | None:
    """The record that holds the byte; None where the quotes are too broken to tell."""
    with path.open(encoding="latin-1", newline="") as file:  # Latin-1: one character is one byte
        skipped = len(file.readline()) if dialect.separator_line else 0
        lines = _lines_up_to(file.readline, offset - skipped)
        try:
            return sum(1 for _ in csv.reader(lines, delimiter=dialect.delimiter))
        except csv.Error:
            return None


def _lines_up_to(readline: Callable[[int], str], offset: int) -> Iterator[str]:
    read = 0
    while read <= offset:
        line = readline(_LINE_BYTES_MAX)
        read += len(line)
        yield line
