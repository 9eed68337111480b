"""Which leads a run is about, as SQL: an import, single leads, a field's value, at most N jobs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ledger.errors import UsageProblem
from ledger.model import LEAD_FIELDS
from ledger.store.connect import Connection

_FIELD_IS: Final = {name: " AND l." + name + " = ?" for name in LEAD_FIELDS}
_EXTRA_IS: Final = " AND json_extract(l.extra, ?) = ?"
_OF_IMPORT: Final = " AND EXISTS (SELECT 1 FROM source_rows s WHERE s.lead_id = l.id AND s.import_id = ?)"
_OF_LEADS: Final = " AND l.id IN (SELECT value FROM json_each(?))"


@dataclass(frozen=True, slots=True)
class Selection:
    """What `--import`, `--lead`, `--where` and `--limit` ask for."""

    import_id: int | None = None
    lead_ids: tuple[int, ...] = ()
    where: tuple[tuple[str, str], ...] = ()
    limit: int | None = None

    @property
    def everything(self) -> bool:
        """True when nothing narrows the run down."""
        return self == Selection()

    def sql(self) -> tuple[str, list[object]]:
        """The conditions on `leads l`, to go behind a WHERE, and their parameters."""
        text, parameters = "", list[object]()
        if self.import_id is not None:
            text += _OF_IMPORT
            parameters.append(self.import_id)
        if self.lead_ids:
            text += _OF_LEADS
            parameters.append("[" + ",".join(map(str, self.lead_ids)) + "]")
        for field, value in self.where:
            if field in _FIELD_IS:
                text += _FIELD_IS[field]
                parameters.append(value)
            else:
                text += _EXTRA_IS
                parameters += [f'$."{field}"', value]
        return text, parameters


def resolve_import(connection: Connection, name: str) -> int:
    """The import's id for `last` or a number.

    Raises:
        UsageProblem: There is no such import.
    """
    if name == "last":
        row = connection.execute("SELECT MAX(id) FROM imports").fetchone()
    elif name.isascii() and name.isdigit() and len(name) < 19:
        row = connection.execute("SELECT id FROM imports WHERE id = ?", (int(name),)).fetchone()
    else:
        row = None
    if row is None or row[0] is None:
        raise UsageProblem(
            f"There is no import {name!r} in this ledger.",
            next_step="`leadledger import FILE` takes one in; `last` is the newest.",
        )
    return int(row[0])


def check_fields(connection: Connection, selection: Selection) -> None:
    """Refuse a `--where` on a field that no lead has.

    Raises:
        UsageProblem: Names the field and the ones there are.
    """
    for field, _ in selection.where:
        if field in _FIELD_IS:
            continue
        known = [
            row[0]
            for row in connection.execute(
                "SELECT DISTINCT e.key FROM leads l, json_each(l.extra) e WHERE l.extra IS NOT NULL LIMIT 200"
            )
        ]
        if field not in known:
            raise UsageProblem(
                f"--where {field}=…: leads have no field {field!r}.",
                next_step="Fields: " + ", ".join([*LEAD_FIELDS, *known]) + ".",
            )
