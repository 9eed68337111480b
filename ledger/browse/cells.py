"""Cells of Datasette's own tables: badges, dollars, times, and links to the pages of leads and runs."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from markupsafe import Markup, escape

from ledger.browse import words
from ledger.money import usd
from ledger.plaintext import clean

if TYPE_CHECKING:
    from datasette.app import Datasette

_STATES: Final = frozenset({"state", "last_state", "from_state", "to_state"})
_PAGES: Final = {"lead_id": "leads", "job_id": "jobs", "run_id": "runs"}
_OWN_PAGES: Final = {"leads": "leads", "jobs": "jobs", "runs": "runs"}
"""Tables whose `id` has a page of ours."""


def cell(datasette: Datasette, value: Any, column: str, table: str | None, now: datetime) -> Markup | None:
    """A cell as HTML; None leaves it to Datasette."""
    label = None
    if isinstance(value, dict):  # a foreign key, as Datasette has looked it up
        value, label = value.get("value"), value.get("label")
    if column in _STATES and table != "leads" and value in words.SIGNS:
        return words.badge(value)
    if isinstance(value, str):
        if words.is_time(value):
            return words.when(value, now)
        plain = clean(value)
        return escape(plain) if plain != value and "\n" not in value and "\t" not in value else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    page = _PAGES.get(column) or (_OWN_PAGES.get(table or "") if column == "id" else None)
    if page is not None:
        address = datasette.urls.path(f"/-/ledger/{page}/{value}")
        return Markup('<a href="{0}">{1}</a>').format(address, clean(value if label is None else label))
    if column.endswith("_usd"):
        return Markup('<span class="usd">{0}</span>').format(usd(round(value * 1_000_000)))
    if column.endswith("_microusd"):
        return Markup('<span title="{0}">{1}</span>').format(usd(int(value)), f"{value:,}")
    return None
