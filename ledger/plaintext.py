"""Other people's text made safe to look at, in a terminal and in a browser."""

from __future__ import annotations

import unicodedata
from typing import Final

_BAD: Final = {"Cc", "Cf", "Cs"}


def clean(text: object) -> str:
    """A lead's text without control and format characters: a name moves no cursor and turns no line."""
    plain = str(text)
    if plain.isascii() and plain.isprintable():
        return plain
    return "".join("�" if unicodedata.category(sign) in _BAD else sign for sign in plain)
