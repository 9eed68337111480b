"""No secret is readable through any page, format or query, and nothing can be written."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from datasette.app import Datasette

from ledger.browse import compat
from ledger.browse.mask import mask
from ledger.store.engine import sqlite3

NEEDLES = ("pb-needle-4f1c9", "ech_needle_77aa", "ech_older_needle")
QUERIES = (
    "select * from poll_bearers",
    'select "BEARER" from main.POLL_BEARERS',
    "select attempt_id, bearer || '' as b from poll_bearers",
    "select hex(bearer) from poll_bearers",
    "select group_concat(bearer) from poll_bearers",
    "with p as (select * from poll_bearers) select json_group_array(bearer) from p",
    "select * from poll_bearers natural join (select 1)",
    "select a.*, b.* from attempts a left join poll_bearers b on b.attempt_id = a.id",
    "select length(bearer), substr(bearer, 1, 3) from poll_bearers",
    "select max(bearer) from poll_bearers",
    "select quote(bearer) from poll_bearers where bearer like 'pb%'",
    "select * from sqlite_dbpage",
    "select data from sqlite_dbpage('main') where pgno < 100",
    "select * from sqlite_master",
)
PATHS = (
    "/",
    "/leads",
    "/leads.json",
    "/leads.db",
    "/leads/poll_bearers",
    "/leads/poll_bearers.json",
    "/leads/poll_bearers.json?_shape=array&_labels=on",
    "/leads/poll_bearers.csv",
    "/leads/poll_bearers.csv?_stream=1",
    "/leads/poll_bearers?_facet=bearer",
    "/leads/poll_bearers?_facet_size=max&_facet=bearer&_facet_array=bearer",
    "/leads/poll_bearers?bearer__startswith=pb",
    "/leads/poll_bearers?_sort=bearer",
    "/leads/poll_bearers?_where=bearer+like+'pb%25'",
    "/leads/poll_bearers/2",
    "/leads/poll_bearers/2.json",
    "/leads/poll_bearers/2/bearer.blob?_blob_column=bearer",
    "/leads/poll_bearers?_trace=1",
    "/leads/attempts/2?_extras=foreign_key_tables",
    "/leads?_context=1",
    *(
        f"/-/{name}"
        for name in ("versions", "plugins", "settings", "threads", "databases", "actor", "messages")
    ),
    *(
        f"/-/{name}.json"
        for name in ("metadata", "config", "versions", "plugins", "settings", "threads", "databases")
    ),
    "/-/jump?q=pb",
    "/-/api",
    "/-/permissions",
    "/-/patterns",
    "/-/ledger",
    "/-/ledger/webhooks/411data",
)


def queries() -> list[str]:
    paths = []
    for query in QUERIES:
        for suffix in ("", ".json", ".csv"):
            if compat.IS_ONE:
                paths.append(f"/leads/-/query{suffix}?sql={quote(query)}")
            else:
                paths.append(f"/leads{suffix}?sql={quote(query)}")
    return paths


def tables(path: Path) -> list[str]:
    connection = sqlite3.connect(path)
    names = [
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table','view')")
    ]
    connection.close()
    return names


# Datasette leaves coroutines behind when a facet fails, as some of these do.
@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_needles(reading: Any, capfd: pytest.CaptureFixture[str]) -> None:
    planted = sqlite3.connect(reading.path)
    assert (
        planted.execute("SELECT COUNT(*) FROM poll_bearers WHERE bearer LIKE 'pb-needle%'").fetchone()[0] >= 1
    )
    planted.close()
    every = [
        f"/leads/{name}{end}" for name in tables(reading.path) for end in ("", ".json?_size=max", ".csv")
    ]
    answered = 0
    for path in (*PATHS, *queries(), *every):
        answer = reading.get(path, follow_redirects=True)
        answered += answer.status_code == 200
        shown = answer.text + str(answer.headers)
        for needle in NEEDLES:
            assert needle not in shown, (path, needle)
            assert needle.encode().hex() not in shown.lower(), (path, needle)
    assert answered > 100
    said = capfd.readouterr()
    assert not [needle for needle in NEEDLES if needle in said.out + said.err]


def test_control_without_the_mask_the_needle_is_there(told: Path, tmp_path: Path) -> None:
    path = tmp_path / "leads.db"
    shutil.copyfile(told, path)
    open_connection = sqlite3.connect(path)
    assert open_connection.execute("SELECT bearer FROM poll_bearers").fetchone()[0] == NEEDLES[0]
    mask(open_connection)
    assert open_connection.execute("SELECT bearer FROM poll_bearers").fetchone()[0] is None
    open_connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM poll_bearers",
        "UPDATE jobs SET priority = 1",
        "INSERT INTO imports VALUES (1)",
        "DROP TRIGGER costs_no_update",
        "CREATE TABLE x (y)",
        "CREATE TEMP TABLE x AS SELECT * FROM poll_bearers",
        "ATTACH 'other.db' AS other",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = ON",
        "PRAGMA query_only = OFF",
        "VACUUM INTO 'copy.db'",
        "REINDEX",
        "ANALYZE",
        "SELECT * FROM sqlite_dbpage",
    ],
)
def test_a_masked_connection_only_reads(told: Path, tmp_path: Path, statement: str) -> None:
    path = tmp_path / "leads.db"
    shutil.copyfile(told, path)
    before = path.read_bytes()
    connection = sqlite3.connect(path)
    mask(connection)
    with pytest.raises(sqlite3.DatabaseError, match=r"authoriz|prohibited|no such table"):
        connection.execute(statement)
    connection.close()
    assert path.read_bytes() == before
    assert not (tmp_path / "copy.db").exists()


def test_a_file_attached_later_is_masked_too(told: Path, tmp_path: Path) -> None:
    shutil.copyfile(told, tmp_path / "leads.db")
    connection = sqlite3.connect(":memory:")
    mask(connection)
    connection.execute("ATTACH ? AS other", (str(tmp_path / "leads.db"),))
    assert connection.execute("SELECT bearer FROM other.poll_bearers").fetchone()[0] is None
    connection.close()


def test_datasette_never_opens_a_ledger_for_writing(reading: Any) -> None:
    database = reading.datasette.databases["leads"]

    async def write() -> None:
        await database.execute_write("UPDATE jobs SET priority = 9")

    with pytest.raises(sqlite3.DatabaseError):
        reading.loop.run(write())
    connection = database.connect(write=True)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("UPDATE jobs SET priority = 9")
    connection.close()


def test_the_plugin_leaves_another_datasette_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE poll_bearers (bearer TEXT)")
    connection.commit()
    connection.close()
    datasette = Datasette([str(path)])

    async def look() -> Any:
        await datasette.invoke_startup()
        await datasette.databases["other"].execute_write("INSERT INTO poll_bearers VALUES ('x')")
        return await datasette.client.get("/other", headers={"host": "elsewhere.example"})

    answer = asyncio.run(look())
    datasette.databases["other"].close()
    assert answer.status_code == 200
    assert "content-security-policy" not in answer.headers


@pytest.mark.parametrize("first", ["ledger.browse.compat", "datasette.app", "ledger.browse"])
def test_the_plugin_is_whole_whatever_is_imported_first(first: str) -> None:
    """Datasette loads plugins in the middle of its own import; a half loaded one would mask nothing."""
    code = (
        f"import {first}, ledger.browse, datasette.plugins as p; "
        "names = {h.name for h in p.pm.get_hookcallers(ledger.browse) or ()}; "
        "assert {'prepare_connection', 'asgi_wrapper', 'startup'} <= names, names"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def test_plain_datasette_masks_too(told: Path, tmp_path: Path, site_on: Callable[[Path], Any]) -> None:
    """Somebody starts `datasette leads.db` with this package installed."""
    del site_on
    path = tmp_path / "leads.db"
    shutil.copyfile(told, path)
    datasette = Datasette([str(path)])

    async def look() -> list[Any]:
        await datasette.invoke_startup()
        paths = ("/leads/poll_bearers.json?_shape=array", "/leads/poll_bearers.csv", "/-/ledger")
        return [await datasette.client.get(one) for one in paths]

    answers = asyncio.run(look())
    datasette.databases["leads"].close()
    assert answers[0].json()[0]["bearer"] is None
    assert not [one for one in answers for needle in NEEDLES if needle in one.text]
