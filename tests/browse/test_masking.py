"""No secret is readable through any page, format or query, and nothing can be written."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from datasette.app import Datasette

from ledger.browse import compat
from ledger.browse.mask import Guarded, mask
from ledger.store.engine import sqlite3

masking = import_module("ledger.browse.mask")
"""The module: the package has the function of that name."""
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
MERGED = (
    "select bearer from poll_bearers natural full join (select 'x' as bearer)",
    "select bearer from poll_bearers full join (select 'x' as bearer) using(bearer)",
    "select bearer from (select 'x' as bearer) full join poll_bearers using (bearer)",
    "select bearer from poll_bearers NaTuRaL/**/fUlL/* x */jOiN (select 'x' as bearer)",
    "select bearer from Poll_Bearers full join (select 'x' as bearer)--\nUsInG\n(bearer)",
    'select bearer from "poll_bearers" natural full join (select 1 as bearer)',
    "select bearer from [POLL_BEARERS] natural full join (select 1 as bearer)",
    "select bearer from `poll_bearers` natural full join (select 1 as bearer)",
    "select bearer from main.poll_bearers full join (select 1 as bearer) using(bearer)",
    "select bearer from main . /**/ 'poll_bearers' full join (select 1 as bearer) using(bearer)",
    "select bearer from poll_bearers as p natural full join (select 1 as bearer)",
    "with x(bearer) as (select 1) select bearer from poll_bearers natural full join x",
    "with p as (select bearer as b from poll_bearers natural full join (select 1 as bearer)) select b from p",
    "select (select bearer from poll_bearers natural full join (select 1 as bearer) limit 1)",
    "select max(bearer) from poll_bearers a full join poll_bearers b using (attempt_id, bearer)",
)
"""The authorizer is never asked about a merged column."""
GUESS = "select 1 from poll_bearers join (select 'pb-needle-4f1c9' as bearer) using(bearer)"
ORACLE = "exists(select 1 from poll_bearers join (select 'pb-needle-4f1c9' as bearer) using(bearer))"
REFUSED = "cannot be read together with the word USING or NATURAL"
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


def queries_of(query: str) -> list[str]:
    page = "/leads/-/query" if compat.IS_ONE else "/leads"
    return [f"{page}{suffix}?sql={quote(query)}" for suffix in ("", ".json", ".csv")]


def queries() -> list[str]:
    return [path for query in (*QUERIES, *MERGED) for path in queries_of(query)]


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


@pytest.fixture
def guarded(told: Path, tmp_path: Path) -> Iterator[Any]:
    """A connection as Datasette opens them, not masked yet."""
    shutil.copyfile(told, tmp_path / "leads.db")
    connection = sqlite3.connect(tmp_path / "leads.db", factory=Guarded)
    yield connection
    connection.close()


@pytest.mark.parametrize("query", [*MERGED, GUESS])
def test_a_merged_column_is_refused(guarded: Any, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mask(guarded)
    calls = (guarded.execute, guarded.cursor().execute, guarded.executescript, guarded.cursor().executescript)
    for call in calls:
        with pytest.raises(sqlite3.OperationalError, match=REFUSED):
            call(query)
    for many in (guarded.executemany, guarded.cursor().executemany):
        with pytest.raises(sqlite3.OperationalError, match=REFUSED):
            many(query, [()])
    monkeypatch.setattr(masking, "_MERGES", ())
    found = str([tuple(row) for row in guarded.execute(query)])
    assert NEEDLES[0] in found or (query == GUESS and found == "[(1,)]"), (
        "control: it got past the authorizer"
    )


@pytest.mark.parametrize(
    "path",
    [
        *(f"/leads/{table}?_where={quote(ORACLE)}" for table in ("jobs", "jobs.json", "poll_bearers.json")),
        *queries_of(GUESS)[:2],  # a CSV says nothing of an error
    ],
)
def test_no_page_is_an_oracle(reading: Any, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert REFUSED in reading.get(path).text
    monkeypatch.setattr(masking, "_MERGES", ())
    answered = reading.get(path)
    assert answered.status_code == 200, "control: the guess was answered"
    assert REFUSED not in answered.text


def test_joins_that_merge_nothing_secret_work(reading: Any) -> None:
    for query in ("select id from jobs natural join (select 1 as id)", "select count(*) from poll_bearers"):
        assert [reading.get(path).status_code for path in queries_of(query)] == [200, 200, 200]


@pytest.mark.parametrize("name", ["poll_bearers", "[poll_bearers]"])
def test_the_databases_joined_in_memory_are_guarded(told: Path, tmp_path: Path, name: str) -> None:
    """`datasette --crossdb` attaches the ledger to a connection of another database."""
    shutil.copyfile(told, tmp_path / "leads.db")
    datasette = Datasette([str(tmp_path / "leads.db")], memory=True, crossdb=True)
    query = f"select bearer from leads.{name} natural full join (select 1 as bearer)"

    async def look() -> None:
        database = datasette.get_database("_memory")
        found = (await database.execute("select bearer from leads.poll_bearers")).rows
        assert [row[0] for row in found] == [None]
        with pytest.raises(sqlite3.OperationalError, match=REFUSED):
            await database.execute(query)

    asyncio.run(look())
    for database in datasette.databases.values():
        database.close()


def test_connections_older_than_any_start_are_guarded(told: Path, tmp_path: Path) -> None:
    """`datasette serve` looks at its files before it starts the plugins, and keeps those connections."""
    shutil.copyfile(told, tmp_path / "leads.db")
    datasette = Datasette([str(tmp_path / "leads.db")])

    async def look() -> None:
        assert await datasette.databases["leads"].execute_fn(lambda one: isinstance(one, Guarded))
        assert isinstance(datasette.databases["leads"].connect(write=True), Guarded)

    asyncio.run(look())
    datasette.databases["leads"].close()


def test_an_unguarded_connection_shows_nothing_of_a_ledger(told: Path, tmp_path: Path) -> None:
    shutil.copyfile(told, tmp_path / "leads.db")
    connection = sqlite3.connect(tmp_path / "leads.db")
    assert connection.execute("SELECT MIN(id) FROM jobs").fetchone() == (1,), "control"
    mask(connection)
    for query in ("SELECT id FROM jobs", "SELECT 1", MERGED[0]):
        with pytest.raises(sqlite3.DatabaseError, match="not authorized"):
            connection.execute(query)
    connection.close()


def test_no_view_or_trigger_of_ours_reads_the_bearers(told: Path) -> None:
    """Else a statement could reach them without naming their table."""
    connection = sqlite3.connect(told)
    query = "SELECT name, sql FROM sqlite_master WHERE type IN ('view', 'trigger')"
    found = connection.execute(query).fetchall()
    connection.close()
    assert len(found) > 5
    assert not [name for name, sql in found if "poll_bearers" in sql.lower()]


def test_a_view_made_in_memory_reads_no_bearer(told: Path, tmp_path: Path) -> None:
    shutil.copyfile(told, tmp_path / "leads.db")
    connection = sqlite3.connect(":memory:", factory=Guarded)
    mask(connection)
    connection.execute("ATTACH ? AS leads", (str(tmp_path / "leads.db"),))
    connection.execute("CREATE TEMP VIEW v AS SELECT bearer FROM leads.poll_bearers")
    found = connection.execute("SELECT bearer FROM v NATURAL FULL JOIN (SELECT 'x' AS bearer)").fetchall()
    assert sorted(found, key=str) == [("x",), (None,)]
    with pytest.raises(sqlite3.OperationalError, match=REFUSED):
        connection.execute(f"CREATE TEMP VIEW w AS {MERGED[0]}")
    connection.close()


def test_a_value_has_a_bound(guarded: Any) -> None:
    query = "SELECT length(hex(zeroblob(9000000)))"
    assert guarded.execute(query).fetchone() == (18_000_000,), "control"
    mask(guarded)
    with pytest.raises(sqlite3.DataError, match="too big"):
        guarded.execute(query).fetchone()


def test_the_address_of_a_tokenizer_is_not_told(guarded: Any) -> None:
    mask(guarded)
    with pytest.raises(sqlite3.DatabaseError, match=r"not authorized|no such function"):
        guarded.execute("SELECT hex(fts3_tokenizer('simple'))")


def test_control_without_the_mask_the_needle_is_there(told: Path, tmp_path: Path) -> None:
    path = tmp_path / "leads.db"
    shutil.copyfile(told, path)
    open_connection = sqlite3.connect(path, factory=Guarded)
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


@pytest.mark.parametrize("suffix", [0, 1, 2])
def test_a_query_that_fails_is_not_logged(
    reading: Any, capfd: pytest.CaptureFixture[str], suffix: int
) -> None:
    query = "select nobody from jobs where 'Ann Needle' = 1"
    reading.get(queries_of(query)[suffix])
    said = capfd.readouterr()
    assert "Ann Needle" not in said.out + said.err
    datasette = Datasette([], memory=True)

    async def fail() -> None:
        with pytest.raises(sqlite3.OperationalError):
            await datasette.get_database("_memory").execute(query)

    asyncio.run(fail())
    assert "Ann Needle" in capfd.readouterr().err, "control: Datasette itself prints it"
