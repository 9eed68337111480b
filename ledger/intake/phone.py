"""Phone numbers in E.164, without a library: the North American plan, and whatever comes with a `+`.

A table of every country's plan is not carried along: outside the North American regions a number without
its country code is reported, never guessed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Final

from ledger.intake.normalise import whole_number

NANP_REGIONS: Final = frozenset(
    (
        *("AG", "AI", "AS", "BB", "BM", "BS", "CA", "DM", "DO", "GD", "GU", "JM", "KN"),
        *("KY", "LC", "MP", "MS", "PR", "SX", "TC", "TT", "US", "VC", "VG", "VI"),
    )
)
"""The regions that share country code 1 (ITU-T E.164, North American Numbering Plan)."""
_PUNCTUATION: Final = dict.fromkeys(map(ord, " ()-./\u00b7\u2010\u2011\u2012\u2013\u2014\u2212"))
_ASCII_PUNCTUATION: Final = [None if i in _PUNCTUATION else i for i in range(128)]
"""What nearly every number needs of it, as a list: a dict raises KeyError for each digit it lacks."""
_CHARS_MAX: Final = 64
_EXTENSION: Final = re.compile(r"[ ,;]*(?:extension|extn|ext|x|#|;ext=)[ .:]*\d{1,7}$")


def north_american(text: str) -> str | None:
    """The number in E.164 (`+15205550100`), its extension left out; None when it is not one for certain.

    A number without a country code is read by the North American plan: ten digits, or eleven after a 1.
    """
    return _number(text, _domestic)


def elsewhere(text: str) -> str | None:
    """As `north_american` where the plan is unknown here: only `+` or 00 and a country code will do."""
    return _number(text, _foreign)


def _number(text: str, bare: Callable[[str], str | None]) -> str | None:
    digits = (whole_number(text) if text.endswith(".0") else text).translate(_ASCII_PUNCTUATION)
    if len(digits) > _CHARS_MAX:
        return None
    if not (digits.isascii() and digits[1:].isdigit()) or "(0)" in text:
        digits = _undressed(text)
    if digits.startswith("+"):
        return _with_country(digits[1:])
    return bare(digits) if digits.isdigit() else None


def _undressed(text: str) -> str:
    """`+` and digits without `tel:`, extension, trunk zero (`+44 (0)20`) and characters from beyond ASCII.

    Empty when anything else remains.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = "".join(letter for letter in plain if unicodedata.category(letter) != "Cf")
    plain = _EXTENSION.sub("", plain.removeprefix("tel:")).strip()
    if plain.startswith("+"):
        plain = plain.replace("(0)", "")
    digits = plain.translate(_PUNCTUATION)
    return digits if digits.isascii() and digits.removeprefix("+").isdigit() else ""


def _domestic(digits: str) -> str | None:
    """Area code and exchange begin with 2 to 9; ten times the same digit is a filler, not a subscriber."""
    if digits[0] == "0":
        return _with_country(digits[3:]) if digits.startswith("011") else _foreign(digits)
    if len(digits) == 11 and digits[0] == "1":
        digits = digits[1:]
    if len(digits) != 10 or digits[0] < "2" or digits[3] < "2" or digits == digits[0] * 10:
        return None
    return f"+1{digits}"


def _foreign(digits: str) -> str | None:
    return _with_country(digits[2:]) if digits.startswith("00") else None


def _with_country(digits: str) -> str | None:
    if digits.startswith("1"):
        return _domestic(digits)
    return f"+{digits}" if 7 <= len(digits) <= 15 and not digits.startswith("0") else None
