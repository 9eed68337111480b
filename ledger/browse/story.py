"""One lead on one time line: every job, attempt, cost and answer, in sentences."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ledger.browse.overview import rows
from ledger.money import usd
from ledger.sentences import step_sentence

if TYPE_CHECKING:
    from datasette.database import Database

MOMENTS_MAX: Final = 1000
"""A lead asked a hundred times is still one page."""
_BODY_SHOWN: Final = 4000
_LEAD: Final = "SELECT * FROM leads WHERE id = :lead"
_JOBS: Final = """
    SELECT j.*, a.remote_job_id, a.ceiling_microusd, a.error,
        (SELECT COALESCE(SUM(c.amount_microusd), 0) FROM attempts b JOIN costs c ON c.attempt_id = b.id
            WHERE b.job_id = j.id AND c.kind IN ('charge', 'adjust')) AS charged_microusd,
        (SELECT COALESCE(SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'adjust' THEN 0
                ELSE -c.amount_microusd END), 0)
            FROM attempts b JOIN costs c ON c.attempt_id = b.id WHERE b.job_id = j.id) AS held_microusd,
        r.body AS result, r.matched
    FROM jobs j LEFT JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
        LEFT JOIN results r ON r.job_id = j.id
    WHERE j.lead_id = :lead ORDER BY j.id DESC LIMIT 100
"""
_ROWS: Final = """
    SELECT i.imported_at AS at, i.file_name, s.row_number, s.problem
    FROM source_rows s JOIN imports i ON i.id = s.import_id
    WHERE s.lead_id = :lead ORDER BY s.import_id, s.row_number LIMIT 100
"""
_STEPS: Final = """
    SELECT t.at, t.job_id, t.run_id, t.to_state, t.reason, a.number AS attempt, a.ceiling_microusd,
        a.remote_job_id, a.error, a.evidence
    FROM transitions t JOIN jobs j ON j.id = t.job_id LEFT JOIN attempts a ON a.id = t.attempt_id
    WHERE j.lead_id = :lead ORDER BY t.id LIMIT 1000
"""
_MONEY: Final = """
    SELECT c.at, a.job_id, a.number AS attempt, c.kind, c.amount_microusd, c.assumed, c.evidence
    FROM costs c JOIN attempts a ON a.id = c.attempt_id JOIN jobs j ON j.id = a.job_id
    WHERE j.lead_id = :lead AND c.kind <> 'hold' ORDER BY c.id LIMIT 1000
"""
_ANSWERS: Final = """
    SELECT n.received_at AS at, a.job_id, a.number AS attempt, n.kind, n.http_status, n.body
    FROM answers n JOIN attempts a ON a.id = n.attempt_id JOIN jobs j ON j.id = a.job_id
    WHERE j.lead_id = :lead ORDER BY n.id LIMIT 1000
"""
_MOVED: Final = {
    "charge": "charged {amount}",
    "release": "{amount} set free again",
    "adjust": "corrected by {amount}",
}
_CAME: Final = {
    "accepted": "the provider accepted attempt {attempt}",
    "answered": "the provider answered attempt {attempt}",
    "refused": "the provider refused attempt {attempt}",
    "odd": "an answer to attempt {attempt} that nobody can read with certainty",
    "poll": "the final answer to attempt {attempt}",
    "delivery": "a webhook delivery for attempt {attempt}",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """One thing that happened."""

    at: str
    text: str
    job_id: int | None = None
    run_id: int | None = None
    state: str | None = None
    """The job's state after it; None when it moved no job."""
    body: str | None = None
    """A raw answer, to be unfolded."""


@dataclass(slots=True)
class LeadStory:
    """Everything the ledger knows of one lead."""

    lead: dict[str, Any]
    jobs: list[dict[str, Any]] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What people call it."""
        names = (self.lead[one] for one in ("company", "dm_name", "email", "contact_id"))
        return next((str(name) for name in names if name), f"Lead {self.lead['id']}")

    @property
    def charged_microusd(self) -> int:
        """What it has cost."""
        return sum(job["charged_microusd"] for job in self.jobs)

    @property
    def held_microusd(self) -> int:
        """What is set aside for it."""
        return sum(job["held_microusd"] for job in self.jobs)


async def tell(database: Database, lead_id: int) -> LeadStory | None:
    """The story of one lead; None when there is none of that number."""
    who = {"lead": lead_id}
    found = await rows(database, _LEAD, who)
    if not found:
        return None
    jobs = await rows(database, _JOBS, who)
    moments = [
        *[_row(row) for row in await rows(database, _ROWS, who)],
        *[_step(row) for row in await rows(database, _STEPS, who)],
        *[_answer(row) for row in await rows(database, _ANSWERS, who)],
        *[_moved(row) for row in await rows(database, _MONEY, who)],
    ]
    moments.sort(key=lambda moment: moment.at)  # stable: what one transaction wrote stays in this order
    return LeadStory(found[0], jobs, moments[-MOMENTS_MAX:])


def _row(row: dict[str, Any]) -> Moment:
    problem = f" ({row['problem']})" if row["problem"] else ""
    return Moment(row["at"], f"came in as row {row['row_number']} of {row['file_name']}{problem}")


def _step(row: dict[str, Any]) -> Moment:
    return Moment(row["at"], step_sentence(row), row["job_id"], row["run_id"], row["to_state"])


def _moved(row: dict[str, Any]) -> Moment:
    text = _MOVED[row["kind"]].format(amount=usd(row["amount_microusd"]))
    if row["assumed"]:
        text += ", assumed: the provider did not say what it cost"
    return Moment(row["at"], text, row["job_id"])


def _answer(row: dict[str, Any]) -> Moment:
    status = f" (HTTP {row['http_status']})" if row["http_status"] else ""
    text = _CAME[row["kind"]].format(attempt=row["attempt"]) + status
    return Moment(row["at"], text, row["job_id"], body=pretty(row["body"]))


def pretty(body: str | None) -> str:
    """A raw body to read: JSON indented, cut to a page's length."""
    if body is None:
        return "erased"
    try:
        text = json.dumps(json.loads(body), indent=2, ensure_ascii=False)
    except (ValueError, RecursionError):
        text = body
    return text if len(text) <= _BODY_SHOWN else text[:_BODY_SHOWN] + " …"


def facts(body: str | None) -> list[tuple[str, str]]:
    """A result as names and values, each in one line of text."""
    if body is None:
        return [("answer", "erased")]
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = body
    if not isinstance(value, dict):
        return [("answer", str(value)[:_BODY_SHOWN])]
    return [
        (name, (one if isinstance(one, str) else json.dumps(one, ensure_ascii=False))[:_BODY_SHOWN])
        for name, one in value.items()
    ]
