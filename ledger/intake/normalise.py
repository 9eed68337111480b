"""Cells made comparable. Each check takes tidy text and gives None where it is not what it should be.

What is sent to the provider stays as the user wrote it where it can; what is compared is folded.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache
from typing import Final

_INVISIBLE: Final = "".join(
    map(chr, (0xAD, 0x61C, 0xFEFF, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2070)))
)
"""Format characters that exports leave around values: zero widths, direction marks, soft hyphen, BOM."""
_CELL_EDGE: Final = " " + _INVISIBLE
_PUNCTUATION: Final = frozenset("!\"#%&'()*,-./:;?@[\\]_{}|")
# A text as long as ASCII is three times as fast a table as a dict, which raises KeyError for what it lacks.
_ASCII_FOLD: Final = "".join(" " if chr(i) in _PUNCTUATION else chr(i).lower() for i in range(128))
_MANGLED: Final = re.compile(r"\d([.,]\d+)?[eE][+-]\d{1,3}")
_NO_ID: Final = frozenset({"n/a", "#n/a", "na", "none", "null", "nan", "undefined", "unknown", "-", "0"})
_NOT_IN_EMAIL: Final = frozenset(' \t,;:<>()[]\\"@')
_ID15: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"


def tidy(cell: str) -> str:
    """The cell on one line: white space collapsed, invisible characters at its ends dropped."""
    text = " ".join(cell.split())
    return text if text.isascii() else text.strip(_CELL_EDGE)


def fold(text: str) -> str:
    """Text for comparison: NFKC, case folded, format characters dropped, punctuation and space collapsed.

    Symbols stay (`C++` is not `C`), except `|`, which parts the pieces of a key.
    """
    if text.isascii():
        return " ".join(text.translate(_ASCII_FOLD).split())
    return _fold_unicode(text)


@lru_cache(maxsize=16_384)
def _fold_unicode(text: str) -> str:
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join("".join(map(_fold_character, plain)).split())


@lru_cache(maxsize=4_096)
def _fold_character(character: str) -> str:
    category = unicodedata.category(character)
    if category == "Cf":
        return ""
    return " " if category[0] == "P" or character == "|" else character


def is_mangled(text: str) -> bool:
    """Whether a spreadsheet turned the digits into a rounded number (`5.55E+09`): they are gone."""
    return _MANGLED.fullmatch(text) is not None


def whole_number(text: str) -> str:
    """`85716.0` as `85716`: what an export that took digits for a number makes of them."""
    return text[:-2] if text.endswith(".0") and text[:-2].isdigit() else text


def contact_id(text: str) -> str | None:
    """An id as the source system wrote it; None for a filler (`N/A`), which would make strangers one lead."""
    if text.casefold() in _NO_ID or ("E" in text.upper() and is_mangled(text)):
        return None
    return whole_number(text)


def salesforce_id(text: str) -> str | None:
    """As `contact_id`, with the 15 case-sensitive characters of a report extended to the 18 of the API.

    The three more tell, for each five characters, which are capitals (Salesforce's published checksum).
    """
    if len(text) != 15 or not text.isascii() or not text.isalnum():
        return contact_id(text)
    suffix = ""
    for start in (0, 5, 10):
        bits = sum(1 << place for place, letter in enumerate(text[start : start + 5]) if letter.isupper())
        suffix += _ID15[bits]
    return text + suffix


def email(text: str) -> str | None:
    """An address without display name and `mailto:`, its domain in lower case."""
    if text.endswith(">"):
        text = text[text.rfind("<") + 1 : -1]
    if text[:7].lower() == "mailto:":
        text = text[7:].partition("?")[0]
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    local, _, host = text.strip("'\"").rpartition("@")
    host = host.lower()
    if not 0 < len(local) <= 64 or not _NOT_IN_EMAIL.isdisjoint(local) or not _is_host(host):
        return None
    if local[0] == "." or local[-1] == "." or ".." in local:
        return None
    return f"{local}@{host}"


def domain(text: str) -> str | None:
    """The host of a web address: no scheme, path, port or `www.`, in lower case."""
    host = text.lower()
    if "://" in host:
        host = host.partition("://")[2]
    for end in "/?#:":
        host = host.partition(end)[0]
    host = host.removeprefix("www.").rstrip(".")
    return host if _is_host(host) else None


def _is_host(host: str) -> bool:
    if "." not in host or ".." in host or len(host) > 253:
        return False
    return host.replace(".", "").replace("-", "").isalnum() and host[0] not in ".-" and host[-1] not in ".-"


def zip_code(text: str) -> str | None:
    """A postal code as text."""
    return whole_number(text)


def zip_key(text: str, region: str) -> str:
    """A postal code for comparison: in the US its first five digits, lost leading zeros put back."""
    if region == "US":
        head = text.partition("-")[0]
        if head.isdigit() and len(head) in {3, 4, 5, 9}:
            return head.zfill(5)[:5]
    return fold(text).replace(" ", "")
