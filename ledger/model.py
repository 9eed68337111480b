"""The values that cross from one part to another. No behaviour, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from ledger.events import Secret

LEAD_FIELDS: Final = (
    "contact_id",
    "company",
    "street",
    "city",
    "state",
    "zip",
    "number1",
    "number2",
    "dm_name",
    "email",
    "domain",
)
"""Canonical lead fields in the order of `SourceRow.fields` (provider notes, section 10 and two more seen)."""


class Keys(NamedTuple):
    """What makes two rows the same lead, strongest first; None where the row has not got it."""

    contact: str | None
    """`source:contact_id`; the one key that is unique."""
    email: str | None
    place: str | None
    """company + street + zip, normalised."""
    phone: str | None


class SourceRow(NamedTuple):
    """One row of a file as intake hands it to the store."""

    number: int
    """As a spreadsheet counts: the header is row 1, so the first data row is 2."""
    raw: str
    """JSON object: original headers, original text."""
    fields: tuple[str | None, ...]
    """Cleaned values in the order of `LEAD_FIELDS`; None where the row has nothing."""
    keys: Keys
    extra: str | None = None
    """JSON object of further columns that the map asked to keep on the lead."""
    suppressed: bool = False
    """The row carries an opt-out."""
    problem: str | None = None
    """What is wrong with a row that is taken in all the same ("number1: not a phone number: …")."""
    rejection: tuple[str | None, str] | None = None
    """(column, reason) of a row that is no lead; its raw text is kept."""


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file before its rows are read."""

    name: str
    sha256: str
    source: str
    """The source system that scopes contact ids ("hubspot", or the map file's `source`, or "file")."""
    mapping: dict[str, list[str]]
    """Canonical field -> the columns it is made of."""
    unmapped: tuple[str, ...]
    """Columns that nothing reads (they stay in the raw row)."""
    encoding: str
    delimiter: str
    region: str = "US"
    """Where phones and zips without a country were taken to be."""
    headers: tuple[str, ...] = ()
    """Every column, in the file's order."""


@dataclass(frozen=True, slots=True)
class PaidCall:
    """One paid POST, ready to leave: its intent and hold are already on disk."""

    job_id: int
    fence: int
    """The attempt's number within the job."""
    route: str
    mode: str
    request: str
    """The payload as JSON text, exactly as stored in `jobs.request`."""
    idempotency_key: str
    ceiling_microusd: int


@dataclass(frozen=True, slots=True)
class OpenJob:
    """A job that can be polled: accepted, or in doubt with a remote id."""

    job_id: int
    fence: int
    route: str
    in_doubt: bool
    remote_job_id: str
    bearer: Secret | None
    accepted_at: str
    """When the POST ended, in the ledger's text form."""
    ceiling_microusd: int | None = None
    """The attempt's hold: an answer may state only what it refunded of it."""
