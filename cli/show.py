"""`leadledger show`: one lead's story, in sentences, with every call and cent."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import click

from ledger.cli import options, output
from ledger.model import LEAD_FIELDS
from ledger.money import usd
from ledger.sentences import step_sentence

if TYPE_CHECKING:
    from ledger.cli.settings import Globals
    from ledger.store.read import LeadStory


@click.command(epilog="Example: leadledger show 'Laser Bella'")
@click.argument("lead")
@options.common
@click.pass_obj
def command(obj: Globals, *, lead: str, as_json: bool, yes: bool) -> None:
    """Everything about one LEAD (its number, contact id, email, phone or company)."""
    del yes
    from ledger.store.read import Reader

    with Reader(obj.db) as reader:
        story = reader.lead(reader.find_lead(lead))
    if as_json:
        output.emit_json(
            {
                "schema": 1,
                "lead": story.lead,
                "source_rows": story.source_rows,
                "steps": story.steps,
                "money": story.money,
                "results": story.results,
            }
        )
        return
    _tell(story)


def _tell(story: LeadStory) -> None:
    lead = story.lead
    name = lead["company"] or lead["dm_name"] or lead["email"] or lead["contact_id"] or ""
    output.say(output.paint(f"Lead {lead['id']}: {output.clean(name)}", "1"))
    for field in LEAD_FIELDS:
        if lead[field] is not None:
            output.say(f"  {field:11} {output.clean(lead[field])}")
    for row in story.source_rows:
        problem = f" ({output.clean(row['problem'])})" if row["problem"] else ""
        output.say(f"  from {output.clean(row['file_name'])}, row {row['row_number']}{problem}")
    for job_id, steps in _by_job(story.steps).items():
        output.say(output.paint(f"Job {job_id}, {steps[0]['route']}", "1"))
        for step in steps:
            output.say(f"  {step['at'][:19].replace('T', ' ')}  {output.clean(step_sentence(step))}")
        _tell_money([entry for entry in story.money if entry["job_id"] == job_id])
    for result in story.results:
        output.say(output.paint(f"Answer to job {result['job_id']}", "1"))
        _tell_body(result["body"])


def _by_job(steps: list[dict[str, Any]]) -> dict[int, list[dict[str, Any]]]:
    jobs: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for step in steps:
        jobs[step["job_id"]].append(step)
    return jobs


def _tell_money(entries: list[dict[str, Any]]) -> None:
    charged = sum(e["amount_microusd"] for e in entries if e["kind"] in {"charge", "adjust"})
    held = sum(e["amount_microusd"] * {"hold": 1, "adjust": 0}.get(e["kind"], -1) for e in entries)
    assumed = " (assumed: the answer stated no cost)" if any(e["assumed"] for e in entries) else ""
    output.say(f"  charged {usd(charged)}{assumed}, still held {usd(held)}")


def _tell_body(body: str | None) -> None:
    if body is None:
        output.say("  erased")
        return
    try:
        value = json.loads(body)
    except ValueError:
        value = body
    if not isinstance(value, dict):
        output.say(f"  {output.clean(value)}")
        return
    for key, entry in value.items():
        text = entry if isinstance(entry, str) else json.dumps(entry, ensure_ascii=False)
        output.say(f"  {output.clean(key):18} {output.clean(text)[:300]}")
