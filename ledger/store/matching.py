"""Which lead a row is: the strongest key decides, and a weaker one never overrules it.

`contact_id` decides where both have one; else email; else company + street + zip; else phone. A weaker key
makes two rows one lead only if no stronger key says otherwise: two people of one company share a phone and
an address and are still two leads.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from ledger.model import LEAD_FIELDS, Keys, SourceRow
from ledger.store.connect import Connection

KEY_COLUMNS: Final = ("contact_key", "email_key", "place_key", "phone_key")
_BY_KEY: Final = tuple(
    "SELECT "
    + column
    + ", id FROM leads WHERE "
    + column
    + " IN (SELECT value FROM json_each(?)) ORDER BY id"
    for column in KEY_COLUMNS
)
_KNOWN: Final = (
    "SELECT id, extra IS NOT NULL, "
    + ", ".join((*KEY_COLUMNS, *LEAD_FIELDS))
    + " FROM leads WHERE id IN (SELECT value FROM json_each(?))"
)


@dataclass(slots=True)
class KnownLead:
    """A lead as the rows read so far have made it."""

    id: int
    keys: list[str | None]
    fields: list[str | None]
    has_extra: bool
    suppressed: bool = False

    def contradicts(self, keys: Keys, below: int) -> bool:
        """True when both have a key stronger than number `below`, and it differs."""
        return any(
            theirs is not None and ours is not None and theirs != ours
            for theirs, ours in zip(keys[:below], self.keys[:below], strict=True)
        )


class Match:
    """The leads that a chunk's keys name, in the ledger and among the chunk's own earlier rows."""

    def __init__(self, connection: Connection, chunk: list[SourceRow]) -> None:
        self._by_key: list[dict[str, int]] = []
        ids: set[int] = set()
        for position, query in enumerate(_BY_KEY):
            keys = {row.keys[position] for row in chunk if row.keys[position] is not None}
            named: dict[str, int] = {}
            if keys:
                for key, lead_id in connection.execute(query, (json.dumps(list(keys)),)):
                    named.setdefault(key, lead_id)
            self._by_key.append(named)
            ids.update(named.values())
        self._leads: dict[int, KnownLead] = {}
        count = len(KEY_COLUMNS)
        for lead_id, has_extra, *values in connection.execute(_KNOWN, (json.dumps(list(ids)),)):
            self._leads[lead_id] = KnownLead(lead_id, values[:count], values[count:], bool(has_extra))

    def lead_of(self, keys: Keys) -> tuple[KnownLead | None, int | None]:
        """(the lead this row is, or None; a lead that shares only a weaker key under another contact id)."""
        rival = None
        for position, key in enumerate(keys):
            lead_id = None if key is None else self._by_key[position].get(key)
            if lead_id is None:
                continue
            lead = self._leads[lead_id]
            if not lead.contradicts(keys, position):
                return lead, None
            if keys.contact is not None and lead.keys[0] not in {None, keys.contact}:
                rival = rival or lead_id
        return None, rival

    def add(self, lead_id: int, row: SourceRow) -> None:
        """A lead born in this chunk."""
        self._leads[lead_id] = KnownLead(lead_id, list(row.keys), list(row.fields), row.extra is not None)
        self._index(lead_id, row.keys)

    def fill(self, lead: KnownLead, row: SourceRow) -> bool:
        """Fill the lead's gaps from a row; True when there was something to fill."""
        gained = row.suppressed and not lead.suppressed
        lead.suppressed = lead.suppressed or row.suppressed
        for index, value in enumerate(row.fields):
            if lead.fields[index] is None and value is not None:
                lead.fields[index] = value
                gained = True
        for position, key in enumerate(row.keys):
            if lead.keys[position] is None and key is not None:
                lead.keys[position] = key
                self._by_key[position].setdefault(key, lead.id)
                gained = True
        if row.extra is not None and not lead.has_extra:
            lead.has_extra = gained = True
        return gained

    def _index(self, lead_id: int, keys: Keys) -> None:
        for named, key in zip(self._by_key, keys, strict=True):
            if key is not None:
                named.setdefault(key, lead_id)
