"""The header map of a file without a map file: exact names from the table, nothing guessed."""

from __future__ import annotations

from typing import Final

from ledger.errors import BadInput
from ledger.intake.columns import Columns, Pieces, listed
from ledger.intake.normalise import fold
from ledger.intake.synonyms import FIRST_NAMES, LAST_NAMES, OPT_OUTS, SIGNATURES, SYNONYMS

_ALTERNATIVES: Final = frozenset({"number1", "number2", "email"})
"""Fields whose further columns fill in for an empty first one. Elsewhere that would mix a person's city with
their company's street, or the ids of two systems."""
_KNOWN: Final = frozenset(
    name for names in (*SYNONYMS.values(), FIRST_NAMES, LAST_NAMES, OPT_OUTS) for name in names
)
_HOW_TO_MAP: Final = (
    "Write a map file and give it with --map FILE: a [fields] table with lines such as company = "
    '"Business Name" and street = ["No.", "Street"].'
)


def is_known(header: str) -> bool:
    """Whether the table knows a header."""
    return fold(header) in _KNOWN


def map_by_name(headers: tuple[str, ...], file: str) -> Columns:
    """The columns of a file by the names of its headers; opt-out columns lead to `suppressed`.

    Raises:
        BadInput: No column can identify a lead.
    """
    places: dict[str, list[int]] = {}
    for column, header in enumerate(headers):
        places.setdefault(fold(header), []).append(column)
    fields: dict[str, tuple[Pieces, ...]] = {}
    for name, synonyms in SYNONYMS.items():
        found = tuple((column,) for column in _columns(places, synonyms))
        if found:
            fields[name] = found if name in _ALTERNATIVES else found[:1]
    if "dm_name" not in fields:
        parts = tuple(_columns(places, FIRST_NAMES)[:1] + _columns(places, LAST_NAMES)[:1])
        if parts:
            fields["dm_name"] = (parts,)
    _promote_second_number(fields)
    columns = Columns(headers, _source(places), fields, suppressed=tuple(_columns(places, OPT_OUTS)))
    if not columns.has_identity():
        raise BadInput(
            f"no column is known that identifies a lead (an id, e-mail, company or phone). Its headers: "
            f"{listed(headers)}.",
            file=file,
            next_step=_HOW_TO_MAP,
        )
    return columns


def _columns(places: dict[str, list[int]], names: tuple[str, ...]) -> list[int]:
    return [column for name in names for column in places.get(name, ())]


def _promote_second_number(fields: dict[str, tuple[Pieces, ...]]) -> None:
    """A file whose only phones are mobiles has them as first numbers."""
    if "number1" in fields or "number2" not in fields:
        return
    first, *rest = fields.pop("number2")
    fields["number1"] = (first,)
    if rest:
        fields["number2"] = tuple(rest)


def _source(places: dict[str, list[int]]) -> str:
    return next((source for source, signature in SIGNATURES if signature <= places.keys()), "file")
