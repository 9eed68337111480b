"""JSON from a stranger, read so that nothing in it can raise, grow or be guessed at (faults.md, 8.2).

Numbers with a point are `Decimal`, so that money never meets a float; NaN, Infinity, a key repeated where
it matters and an absurd depth make the whole text `Unreadable`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from decimal import Decimal
from typing import Any, Final, NoReturn

from ledger.money import parse_usd

DEPTH_MAX: Final = 64
"""Nobody nests a lead deeper; recursion over an accepted document is bounded by this."""

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")


class Unreadable(ValueError):
    """The text is not JSON we accept. `code` says why (`empty`, `not_json`, `too_deep`, …)."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def load(body: bytes | str, once: Collection[str] = ()) -> Any:
    """The value of a JSON text; a key named in `once` may not stand twice in one object.

    Raises:
        Unreadable: Anything at all is wrong with it.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs if name in once]
            if len(names) != len(set(names)):
                raise Unreadable("repeated_key")
        return found

    if not body.strip():
        raise Unreadable("empty")
    try:
        text = body if isinstance(body, str) else body.decode("utf-8-sig")
        value = json.loads(text, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=unique)
    except Unreadable:
        raise
    except RecursionError:
        raise Unreadable("too_deep") from None
    except (ValueError, ArithmeticError):  # not UTF-8, not JSON, 5,000 digits, an exponent beyond Decimal
        raise Unreadable("not_json") from None
    _check_depth(value)
    return value


def load_object(body: bytes | str, once: Collection[str] = ()) -> dict[str, Any]:
    """As `load`, but the value must be an object.

    Raises:
        Unreadable: It is not JSON, or not an object.
    """
    value = load(body, once)
    if not isinstance(value, dict):
        raise Unreadable("not_an_object")
    return value


def _no_constant(_name: str) -> NoReturn:
    raise Unreadable("not_a_number")


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH_MAX):
        level = [child for node in level for child in _children(node)]
        if not level:
            return
    raise Unreadable("too_deep")


def _children(node: Any) -> Collection[Any]:
    if isinstance(node, dict):
        return node.values()
    return node if isinstance(node, list) else ()


def dump(value: Any) -> str:
    """Compact JSON text of a loaded value; a `Decimal` keeps its digits (`1.50` stays `1.50`)."""
    text = _dump(value)
    # SQLite and UTF-8 refuse a lone surrogate; as an escape it is the same JSON.
    return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _dump(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ",".join(f"{_dump(name)}:{_dump(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_dump(item) for item in value) + "]"
    if isinstance(value, Decimal):
        return str(value)
    return json.dumps(value, ensure_ascii=False)


def at(doc: Any, place: str) -> Any:
    """The value at a dotted place (`error.code`), or None when any step of the way is missing."""
    for name in place.split("."):
        if not isinstance(doc, dict):
            return None
        doc = doc.get(name)
    return doc


def plain(value: Any, limit: int) -> str | None:
    """Text or an integer as one printable line of at most `limit` characters; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)[:limit]
    return "".join(letter if letter.isprintable() else " " for letter in text).strip() or None


def amount(value: Any) -> int | None:
    """Micro-dollars of an amount in dollars, or None: whatever somebody wrote there, this does not raise."""
    try:
        return parse_usd(value)
    except ArithmeticError:  # 9e999999 is legal to Decimal and overflows when it is multiplied
        return None
