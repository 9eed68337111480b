"""Group commit: one refusal is its own, a failed commit is everybody's, nobody goes on before the disk."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ledger.errors import Bug, DiskTrouble
from ledger.events import Balance
from ledger.store.books import Books
from ledger.store.engine import sqlite3
from ledger.store.group import GROUP_MAX

TOP_UP = "INSERT INTO costs (kind, amount_microusd, at) VALUES ('top_up', ?, 'x')"
TOP_UPS = "SELECT amount_microusd FROM costs ORDER BY id"


def top_up(amount: int) -> Any:
    def work(books: Books) -> int:
        books.connection.execute(TOP_UP, (amount,))
        return amount

    return work


class Breaking:
    """A connection whose disk fails at one statement."""

    def __init__(
        self, connection: Any, statement: str, error: type[Exception] = sqlite3.OperationalError
    ) -> None:
        self._connection, self._statement, self._error = connection, statement, error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *rest: Any) -> Any:
        if sql == self._statement:
            raise self._error("disk I/O error")
        return self._connection.execute(sql, *rest)


async def together(desk: Any, *works: Any) -> list[Any]:
    return await asyncio.gather(*(desk.ledger.group.write(work) for work in works), return_exceptions=True)


def test_writes_of_one_turn_are_one_commit(desk: Any) -> None:
    assert desk.run(together(desk, *(top_up(n) for n in range(50)))) == list(range(50))
    assert (desk.ledger.group.commits, desk.ledger.group.writes) == (1, 50)
    assert desk.elsewhere(TOP_UPS) == [(n,) for n in range(50)]


def test_a_group_is_bounded(desk: Any) -> None:
    desk.run(together(desk, *(top_up(n) for n in range(GROUP_MAX + 1))))
    assert (desk.ledger.group.commits, desk.ledger.group.writes) == (2, GROUP_MAX + 1)


def test_one_refusal_rolls_back_only_itself(desk: Any) -> None:
    desk.begin()

    def refused(books: Books) -> None:
        top_up(7)(books)
        books.exposure.held(7)
        raise Bug("no")

    def not_a_row(books: Books) -> None:
        top_up(8)(books)
        top_up(-8)(books)

    said = desk.run(together(desk, top_up(1), refused, not_a_row, top_up(2)))
    assert [said[0], said[3]] == [1, 2]
    assert isinstance(said[1], Bug)
    assert isinstance(said[2], sqlite3.IntegrityError)
    assert desk.elsewhere(TOP_UPS) == [(1,), (2,)]
    assert desk.ledger.books.exposure.total_microusd == 0
    assert desk.run(desk.ledger.group.write(top_up(3))) == 3


def test_a_caller_goes_on_only_when_its_write_is_on_disk(desk: Any) -> None:
    async def main() -> list[Any]:
        async def caller(amount: int) -> Any:
            await desk.ledger.group.write(top_up(amount))
            return desk.elsewhere(TOP_UPS)

        write = asyncio.create_task(caller(1))
        await asyncio.sleep(0)
        assert desk.elsewhere(TOP_UPS) == []
        return await write

    assert desk.run(main()) == [(1,)]


@pytest.mark.parametrize("statement", ["COMMIT", "BEGIN IMMEDIATE", "SAVEPOINT one", "RELEASE one", TOP_UP])
def test_a_failed_commit_fails_every_caller_and_closes_the_door(desk: Any, statement: str) -> None:
    desk.begin()
    books = desk.ledger.books
    whole = books.connection
    books.connection = Breaking(whole, statement)

    def held(books: Books) -> None:
        books.exposure.held(5)
        top_up(1)(books)

    said = desk.run(together(desk, held, top_up(2)))
    assert [type(answer) for answer in said] == [DiskTrouble, DiskTrouble]
    assert not whole.in_transaction
    assert desk.elsewhere(TOP_UPS) == []
    assert books.exposure.total_microusd == 0
    books.connection = whole  # the disk is well again, but what it has swallowed nobody knows
    with pytest.raises(DiskTrouble):
        desk.run(desk.ledger.group.write(top_up(3)))
    assert desk.elsewhere(TOP_UPS) == []
    assert desk.ledger.group.commits == 0


def test_a_group_that_waits_behind_a_failed_one_fails_too(desk: Any) -> None:
    books = desk.ledger.books
    books.connection = Breaking(books.connection, "COMMIT")
    said = desk.run(together(desk, *(top_up(n) for n in range(GROUP_MAX + 3))))
    assert {type(answer) for answer in said} == {DiskTrouble}
    assert len(said) == GROUP_MAX + 3


def test_a_claim_whose_commit_fails_hands_out_no_call(desk: Any) -> None:
    desk.ready(1)
    whole = desk.ledger.books.connection
    desk.ledger.books.connection = Breaking(whole, "COMMIT")
    with pytest.raises(DiskTrouble):
        desk.claim()
    desk.ledger.books.connection = whole
    assert desk.elsewhere("SELECT state FROM jobs") == [("queued",)]
    assert desk.elsewhere("SELECT COUNT(*) FROM attempts") == [(0,)]
    assert desk.ledger.books.exposure.total_microusd == 0


def test_a_write_outside_the_group_takes_the_totals_back_too(desk: Any) -> None:
    desk.ready(1)
    desk.claim()
    desk.doubt(1)
    before = desk.ledger.books.exposure.copy()
    whole = desk.ledger.books.connection
    doubts = desk.ledger.doubts()
    desk.ledger.books.connection = Breaking(whole, "COMMIT")
    with pytest.raises(DiskTrouble):
        desk.ledger.prove_free(Balance(1, 1), "audit")
    desk.ledger.books.connection = whole
    assert desk.ledger.books.exposure == before
    assert desk.ledger.doubts() == doubts


def test_a_cancelled_caller_undoes_nothing_and_disturbs_nobody(desk: Any) -> None:
    async def main() -> Any:
        gone = asyncio.create_task(desk.ledger.group.write(top_up(1)))
        stays = asyncio.create_task(desk.ledger.group.write(top_up(2)))
        await asyncio.sleep(0)
        gone.cancel()
        said = await asyncio.gather(gone, stays, return_exceptions=True)
        return type(said[0]), said[1]

    assert desk.run(main()) == (asyncio.CancelledError, 2)
    assert desk.elsewhere(TOP_UPS) == [(1,), (2,)]


def test_a_cancelled_caller_of_a_failing_group_disturbs_nobody(desk: Any) -> None:
    books = desk.ledger.books
    books.connection = Breaking(books.connection, "COMMIT")

    async def main() -> list[type]:
        tasks = [asyncio.create_task(desk.ledger.group.write(top_up(n))) for n in range(2)]
        await asyncio.sleep(0)
        tasks[0].cancel()
        return [type(said) for said in await asyncio.gather(*tasks, return_exceptions=True)]

    assert desk.run(main()) == [asyncio.CancelledError, DiskTrouble]
