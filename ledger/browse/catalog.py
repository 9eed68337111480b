"""`catalog.toml`, read: tables, views, columns and ready-made questions in words."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True, slots=True)
class Table:
    """A table or view in words."""

    about: str
    newest: str | None = None
    """The column by which the newest row comes first."""
    facets: tuple[str, ...] = ()
    label: str | None = None
    """The column that stands for a row where another table points to it."""
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Question:
    """A ready-made query."""

    title: str
    sql: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class Catalog:
    """All of it."""

    title: str
    description: str
    words: Mapping[str, str]
    tables: Mapping[str, Table]
    queries: Mapping[str, Question]

    def columns(self, table: str, names: Iterable[str]) -> dict[str, str]:
        """Each of a table's columns in words; one that nobody described is left out."""
        own = self.tables[table].columns if table in self.tables else {}
        found = ((name, own.get(name) or self.words.get(name)) for name in names)
        return {name: text for name, text in found if text}


@cache
def catalog() -> Catalog:
    """The catalogue that comes with this version."""
    told: dict[str, Any] = tomllib.loads((files(__package__) / "catalog.toml").read_text(encoding="utf-8"))
    tables = {
        name: Table(**{**one, "facets": tuple(one.get("facets", ()))}) for name, one in told["tables"].items()
    }
    queries = {name: Question(**{**one, "sql": one["sql"].strip()}) for name, one in told["queries"].items()}
    return Catalog(told["title"], told["description"], told["words"], tables, queries)
