"""TOML tables into frozen dataclasses, strictly: every key known, every value of its kind.

A field's type says what its value must be; a problem is reported with the key's full name. Amounts are
written in dollars (`price_usd`) and held in micro-dollars (`price_microusd`).
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NewType, TypeVar, get_type_hints

from ledger.api.jsontext import amount
from ledger.errors import UsageProblem

Seconds = NewType("Seconds", float)
Microusd = NewType("Microusd", int)
Count = NewType("Count", int)
Names = tuple[str, ...]
Groups = tuple[Names, ...]
Span = tuple[float, float]
FieldMap = dict[str, str]

_Made = TypeVar("_Made")


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file; numbers with a point stay `Decimal`.

    Raises:
        UsageProblem: The file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"), parse_float=Decimal)
    except (OSError, ValueError) as problem:
        raise UsageProblem(f"The profile {path.name} cannot be read: {problem}.") from problem


def merged(base: Mapping[str, Any], over: Mapping[str, Any], whole: frozenset[str]) -> dict[str, Any]:
    """`base` with everything that `over` sets; tables named in `whole` are replaced, not mixed."""
    both = dict(base)
    for key, value in over.items():
        old = base.get(key)
        if isinstance(old, dict) and isinstance(value, dict) and key not in whole:
            value = merged(old, value, whole)  # noqa: PLW2901 - the same setting, completed
        both[key] = value
    return both


def build(cls: type[_Made], table: Any, where: str = "") -> _Made:
    """An instance of the dataclass `cls` from a TOML table.

    Raises:
        UsageProblem: A key is unknown or missing, or a value is not what it must be; names the key.
    """
    if not isinstance(table, dict):
        raise bad_key(where, "a table")
    names = {_key(field.name): field.name for field in fields(cls)}  # type: ignore[arg-type] # every cls is a dataclass
    for key in table:
        if key not in names:
            raise UsageProblem(f"The profile key {_join(where, key)} is not known.", next_step=_known(names))
    hints = get_type_hints(cls)
    made = {}
    for key, name in names.items():
        if key not in table:
            raise UsageProblem(f"The profile key {_join(where, key)} is missing.")
        made[name] = _value(hints[name], table[key], _join(where, key))
    return cls(**made)


def bad_key(key: str, must_be: str) -> UsageProblem:
    """The error for a key whose value will not do."""
    return UsageProblem(f"The profile key {key} must be {must_be}.")


def _key(name: str) -> str:
    return name.replace("_microusd", "_usd")


def _known(names: Mapping[str, str]) -> str:
    return f"Known here: {', '.join(sorted(names))}."


def _join(where: str, key: str) -> str:
    shown = f'"{key}"' if "/" in key else key
    return f"{where}.{shown}" if where else shown


def _value(hint: Any, value: Any, where: str) -> Any:
    if is_dataclass(hint) and isinstance(hint, type):
        return build(hint, value, where)
    if hint not in _KINDS:  # a dict of dataclasses, by name
        if not isinstance(value, dict):
            raise bad_key(where, "a table")
        return {key: build(hint.__args__[1], item, _join(where, key)) for key, item in value.items()}
    read, must_be = _KINDS[hint]
    found = read(value)
    if found is None:
        raise bad_key(where, must_be)
    return found


def _flag(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    seconds = float(value)
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None


def _names(value: Any) -> Names | None:
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        return None
    return tuple(value)


def _groups(value: Any) -> Groups | None:
    if not isinstance(value, list):
        return None
    groups = tuple(found for item in value if (found := _names(item)))
    return groups if groups and len(groups) == len(value) else None


def _span(value: Any) -> Span | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = (_seconds(item) for item in value)
    return (low, high) if low is not None and high is not None and low <= high else None


def _field_map(value: Any) -> FieldMap | None:
    if not isinstance(value, dict) or not all(isinstance(item, str) and item for item in value.values()):
        return None
    return dict(value) or None


_KINDS: Final[dict[Any, tuple[Callable[[Any], Any], str]]] = {
    bool: (_flag, "true or false"),
    str: (_text, "text"),
    Seconds: (_seconds, "a number of seconds, 0 or more"),
    Microusd: (amount, "an amount in dollars, 0 or more"),
    Count: (_count, "a whole number, 1 or more"),
    Names: (_names, "a list of words"),
    Groups: (_groups, "a list of lists of words, none empty"),
    Span: (_span, "a list of two numbers of seconds, the lower first"),
    FieldMap: (_field_map, "a table of words"),
}
