"""Every error this program raises on purpose, and what each one means for the money.

LeadledgerError
├── UsageProblem            exit 2   the command, the configuration or the input is wrong; nothing was sent
│   ├── BadInput                     a file that cannot be taken in (file, row, column)
│   └── LedgerFileProblem            the ledger file, its folder or its file system will not do
├── StoreProblem            exit 1   the ledger could not be written
│   ├── LedgerBusy          exit 5   another process holds the ledger
│   ├── DiskTrouble         exit 1   a write or a sync failed: paying stops at once
│   └── StaleWrite          exit 1   a write did not match the state it believed in (the fence)
├── ProviderProblem         exit 2   the provider will not have us (key, origin)
│   └── Unreachable         exit 75  the provider cannot be reached; try again later
└── Bug                     exit 1   this program contradicts itself; it stops before it pays
    └── IllegalEvent                 an event that cannot happen in this state

An outcome the provider documents is not an error: the client returns it as a value (ledger/events.py).
"""

from __future__ import annotations

from typing import ClassVar


class LeadledgerError(Exception):
    """The root: a sentence that says what is wrong, what it did to the money and what to do next.

    Args:
        what: What is wrong, and where.
        money: What it did to the money.
        next_step: What the reader can do now; empty when there is nothing to do.
    """

    exit_code: ClassVar[int] = 1
    default_money: ClassVar[str] = "Nothing was sent and nothing was charged."

    def __init__(self, what: str, *, money: str | None = None, next_step: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.money = self.default_money if money is None else money
        self.next_step = next_step

    def __str__(self) -> str:
        return " ".join(part for part in (self.what, self.money, self.next_step) if part)


class UsageProblem(LeadledgerError):
    """The command, the configuration or the input is wrong."""

    exit_code = 2


class BadInput(UsageProblem):
    """A file that cannot be taken in as it is.

    Args:
        what: What is wrong with it.
        file: The file's name as the user gave it.
        row: The record's number as a spreadsheet counts (the header is row 1), if one row is to blame.
        column: The header of the column to blame, if one is.
        next_step: What to do about it.
    """

    default_money = "Nothing was imported and nothing was charged."

    def __init__(
        self, what: str, *, file: str, row: int | None = None, column: str | None = None, next_step: str = ""
    ) -> None:
        self.file, self.row, self.column = file, row, column
        where = file
        if row is not None:
            where += f", row {row}"
        if column is not None:
            where += f", column {column!r}"
        super().__init__(f"{where}: {what}", next_step=next_step)


class LedgerFileProblem(UsageProblem):
    """The ledger file, its folder or its file system will not do."""


class StoreProblem(LeadledgerError):
    """The ledger could not be written."""

    default_money = "No further paid call is made."


class LedgerBusy(StoreProblem):
    """Another process holds the ledger."""

    exit_code = 5
    default_money = "Nothing was sent and nothing was charged."


class DiskTrouble(StoreProblem):
    """A write or a sync failed: paying stops at once, the next start recovers."""


class StaleWrite(StoreProblem):
    """A write did not match the job state and attempt number it believed in."""


class ProviderProblem(LeadledgerError):
    """The provider will not have us: the key, the origin or the scheme is wrong."""

    exit_code = 2


class Unreachable(ProviderProblem):
    """The provider cannot be reached; nothing is lost, try again later."""

    exit_code = 75


class Bug(LeadledgerError):
    """This program contradicts itself; it stops before it pays."""

    default_money = "No further paid call is made."


class IllegalEvent(Bug):
    """An event arrived that cannot happen in the job's state."""
