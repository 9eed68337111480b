"""Each check fires when its truth is broken, and only it: one healthy ledger, one break at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from ledger.store.audit import FILE_CHECKS, INVARIANTS, Audit
from ledger.store.connect import Connection


class Mutant(NamedTuple):
    """How to break one truth. `also`: what cannot but break with it.

    `loosen`: a table that is made anew first, with the second text in place of the first in its definition.
    """

    breaks: str
    sql: tuple[str, ...]
    also: tuple[str, ...]
    loosen: tuple[str, str, str] | None


def mutant(
    breaks: str, *sql: str, also: tuple[str, ...] = (), loosen: tuple[str, str, str] | None = None
) -> Mutant:
    return Mutant(breaks, sql, also, loosen)


def attempt(condition: str) -> str:
    return f"(SELECT a.id FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE {condition} LIMIT 1)"


def job(condition: str) -> str:
    return f"(SELECT j.id FROM jobs j WHERE {condition} LIMIT 1)"


SETTLED = attempt("j.state = 'matched' AND j.reason = 'completed' AND j.attempt = 1")
FIRST_OF_TWO = attempt("a.number = 1 AND j.attempt > 1 AND a.outcome = 'throttled'")
SECOND_OF_TWO = (
    "(SELECT b.id FROM attempts a JOIN attempts b USING (job_id) "
    f"WHERE a.id = {FIRST_OF_TWO} AND b.number = 2)"
)
REOPENED = attempt("a.number = 1 AND j.state = 'waiting' AND j.attempt = 2")
WAITING = attempt("j.state = 'waiting' AND a.number = j.attempt")
DOUBTFUL = attempt("j.state = 'in_doubt'")
MATCHED = job("j.state = 'matched'")
UNSENT = job("j.state = 'skipped' AND j.generation = 1")
REFUSED = attempt("j.reason = 'refused'")
KEY = "abcdefghijklmnopqrstuvwxyz"

MUTANTS = (
    # history
    mutant("history_begins", f"DELETE FROM transitions WHERE job_id = {UNSENT}"),
    mutant(
        "history_is_a_chain",
        f"DELETE FROM transitions WHERE from_state = 'new' AND job_id = {MATCHED}",
    ),
    mutant(
        "history_is_a_chain",
        "DELETE FROM transitions WHERE id = (SELECT id FROM transitions WHERE from_state = 'in_doubt' "
        "AND to_state = 'waiting' AND reason = 'poll_evidence')",
    ),
    mutant(
        "history_takes_allowed_steps",
        f"UPDATE transitions SET reason = 'because' WHERE from_state = 'new' AND job_id = {UNSENT}",
    ),
    mutant("history_ends_in_the_present", f"UPDATE jobs SET reason = 'lacks_fields' WHERE id = {UNSENT}"),
    mutant(
        "history_ends_in_the_present",
        f"UPDATE jobs SET state = 'no_match' WHERE id = {MATCHED}",
    ),
    mutant(
        "steps_name_their_own_attempt",
        f"UPDATE transitions SET attempt_id = NULL WHERE reason = 'completed' AND attempt_id = {SETTLED}",
    ),
    mutant(
        "steps_name_their_own_attempt",
        f"UPDATE transitions SET attempt_id = {REFUSED} WHERE from_state = 'queued' AND job_id = {UNSENT}",
    ),
    mutant(
        "attempts_are_claimed_once",
        f"UPDATE transitions SET attempt_id = {SECOND_OF_TWO} "
        f"WHERE reason = 'claimed' AND attempt_id = {FIRST_OF_TWO}",
    ),
    mutant("outcome_follows_history", f"UPDATE attempts SET outcome = 'not_sent' WHERE id = {FIRST_OF_TWO}"),
    mutant("doubt_ends_with_evidence", "UPDATE attempts SET evidence = NULL WHERE outcome = 'lost'"),
    mutant("doubt_ends_with_evidence", "UPDATE attempts SET evidence = '' WHERE outcome = 'proved_free'"),
    # attempts
    mutant("attempts_are_numbered", f"UPDATE jobs SET attempt = 7 WHERE id = {UNSENT}"),
    mutant(
        "one_open_attempt_a_job",
        f"DELETE FROM costs WHERE kind = 'release' AND attempt_id = {REOPENED}",
    ),
    mutant(
        "open_attempts_belong_to_open_jobs",
        f"DELETE FROM costs WHERE kind = 'release' AND attempt_id = {REFUSED}",
    ),
    mutant(
        "open_jobs_have_an_open_attempt",
        "INSERT INTO costs (attempt_id, run_id, kind, amount_microusd, at) SELECT a.id, a.run_id, 'release', "
        f"a.ceiling_microusd, '' FROM attempts a WHERE a.id = {DOUBTFUL}",
    ),
    mutant(
        "next_attempt_after_the_last_closed",
        "UPDATE costs SET id = (SELECT MAX(id) + 1 FROM costs) "
        f"WHERE kind = 'release' AND attempt_id = {FIRST_OF_TWO}",
    ),
    mutant(
        "one_open_job_a_lead_and_route",
        "DROP INDEX jobs_one_open",
        "UPDATE jobs SET generation = 9, lead_id = (SELECT lead_id FROM jobs WHERE state = 'waiting') "
        "WHERE state = 'in_doubt'",
        also=("guards_in_place", "generations_follow_each_other"),
    ),
    # the books
    mutant("attempts_have_one_hold", f"UPDATE attempts SET ceiling_microusd = 1 WHERE id = {SETTLED}"),
    mutant(
        "attempts_have_one_hold",
        "DROP INDEX costs_once",
        "INSERT INTO costs (attempt_id, run_id, kind, amount_microusd, at) "
        f"SELECT id, run_id, 'hold', 0, '' FROM attempts WHERE id = {SETTLED}",
        also=("guards_in_place", "charge_within_hold"),
    ),
    mutant(
        "hold_is_charge_plus_release",
        "UPDATE costs SET amount_microusd = amount_microusd - 1 "
        f"WHERE kind = 'charge' AND attempt_id = {SETTLED}",
    ),
    mutant(
        "charge_within_hold",
        f"UPDATE costs SET amount_microusd = 1500001 WHERE kind = 'charge' AND attempt_id = {SETTLED}",
        also=("hold_is_charge_plus_release",),
    ),
    mutant(
        "one_charge_and_one_release",
        "DROP INDEX costs_once",
        "INSERT INTO costs (attempt_id, run_id, kind, amount_microusd, at) "
        f"SELECT id, run_id, 'charge', 0, '' FROM attempts WHERE id = {SETTLED}",
        also=("guards_in_place",),
    ),
    mutant(
        "adjust_after_close",
        "INSERT INTO costs (attempt_id, run_id, kind, amount_microusd, at) "
        f"SELECT id, run_id, 'adjust', 5, '' FROM attempts WHERE id = {WAITING}",
    ),
    mutant(
        "nothing_costs_less_than_nothing",
        "INSERT INTO costs (attempt_id, run_id, kind, amount_microusd, at) "
        f"SELECT id, run_id, 'adjust', -420001, '' FROM attempts WHERE id = {SETTLED}",
    ),
    mutant(
        "unaccepted_calls_cost_nothing",
        f"UPDATE costs SET kind = 'charge' WHERE kind = 'release' AND attempt_id = {REFUSED}",
    ),
    mutant(
        "nothing_is_charged_twice",
        f"UPDATE costs SET kind = 'charge' WHERE kind = 'release' AND attempt_id = {FIRST_OF_TWO}",
        also=("unaccepted_calls_cost_nothing",),
    ),
    mutant(
        "costs_belong_to_their_attempts_run",
        f"UPDATE costs SET run_id = 2 WHERE kind = 'release' AND attempt_id = {SETTLED}",
    ),
    mutant(
        "balance_gaps_add_up",
        "UPDATE balance_checks SET gap_microusd = gap_microusd + 1 WHERE gap_microusd > 0",
    ),
    mutant("budget_held", "UPDATE runs SET budget_microusd = 1499999 WHERE id = 3"),
    mutant("budget_day_held", "UPDATE runs SET budget_day_microusd = 1499999 WHERE id = 3"),
    mutant("budget_lead_held", "UPDATE runs SET budget_lead_microusd = 1499999 WHERE id = 3"),
    mutant("budget_total_held", "UPDATE runs SET budget_total_microusd = 1499999 WHERE id = 3"),
    # answers
    mutant(
        "answers_have_a_result",
        "DELETE FROM results WHERE job_id = (SELECT id FROM jobs WHERE reason = 'provider_failed' LIMIT 1)",
    ),
    mutant(
        "results_have_an_answer",
        f"INSERT INTO results (job_id, received_at) SELECT job_id, '' FROM attempts WHERE id = {REFUSED}",
    ),
    mutant(
        "final_answers_are_kept_raw", f"DELETE FROM answers WHERE kind = 'poll' AND attempt_id = {SETTLED}"
    ),
    mutant("final_answers_are_kept_raw", f"UPDATE answers SET kind = 'odd' WHERE attempt_id = {REFUSED}"),
    mutant(
        "accepted_calls_have_a_remote_id", f"UPDATE attempts SET remote_job_id = NULL WHERE id = {SETTLED}"
    ),
    mutant(
        "remote_ids_have_a_source", f"DELETE FROM answers WHERE kind = 'accepted' AND attempt_id = {SETTLED}"
    ),
    mutant(
        "remote_ids_are_used_once",
        f"UPDATE attempts SET remote_job_id = 'found-by-person' WHERE id = {SETTLED}",
        also=("guards_in_place",),
        loosen=("attempts", "remote_job_id TEXT UNIQUE", "remote_job_id TEXT"),
    ),
    mutant(
        "bearers_only_while_open",
        f"INSERT INTO poll_bearers SELECT id, 'pb' FROM attempts WHERE id = {SETTLED}",
    ),
    # deliveries and wishes
    mutant(
        "deliveries_settle_their_own_attempt",
        f"UPDATE deliveries SET attempt_id = {SETTLED} WHERE correlation IS NULL AND verdict = 'matched' "
        "AND id = (SELECT MIN(d.id) FROM deliveries d JOIN attempts a ON a.id = d.attempt_id "
        "WHERE d.correlation IS NULL AND a.evidence LIKE 'delivery%: names its job id')",
    ),
    mutant(
        "deliveries_settle_their_own_attempt",
        "UPDATE deliveries SET correlation = 'x' WHERE remote_job_id IS NULL AND attempt_id IS NOT NULL",
    ),
    mutant(
        "delivery_evidence_has_its_delivery",
        "DELETE FROM deliveries WHERE remote_job_id IS NULL AND attempt_id IS NOT NULL",
    ),
    mutant(
        "deliveries_are_applied_or_kept",
        "UPDATE deliveries SET applied_at = '' WHERE attempt_id IS NULL",
    ),
    mutant(
        "deliveries_are_applied_or_kept",
        "UPDATE deliveries SET body = '{}' WHERE id = (SELECT MIN(id) FROM deliveries)",
    ),
    mutant(
        "generations_follow_each_other",
        "UPDATE jobs SET generation = 3 WHERE generation = 2 AND route = 'enrich/person'",
    ),
    mutant(
        "generations_follow_each_other",
        "UPDATE jobs SET created_at = '' WHERE generation = 2 AND route = 'enrich/person'",
    ),
    mutant("no_secret_is_readable", f"UPDATE deliveries SET body = 'Bearer {KEY}' WHERE attempt_id IS NULL"),
    mutant("no_secret_is_readable", f"UPDATE intents SET body = '411k_{KEY}' WHERE kind = 'retry'"),
    # rows and people
    mutant(
        "imports_reconcile",
        "UPDATE imports SET rows_read = rows_read + 1, leads_new = leads_new + 1 WHERE id = 1",
    ),
    mutant("imports_reconcile", "DELETE FROM source_rows WHERE import_id = 2 AND row_number = 2"),
    mutant(
        "rows_are_leads_or_rejections",
        "UPDATE source_rows SET problem = NULL WHERE lead_id IS NULL",
        also=("integrity_check",),
    ),
    mutant("no_secret_is_readable", f"UPDATE answers SET body = 'x Bearer {KEY} y' WHERE id = 1"),
    mutant("no_secret_is_readable", f"UPDATE results SET body = '411k_{KEY}' WHERE job_id = 1"),
    mutant(
        "no_secret_is_readable",
        f"""UPDATE source_rows SET raw = '{{"t": "ech_{KEY}"}}' WHERE import_id = 1 AND row_number = 2""",
    ),
    mutant("no_secret_is_readable", f"""UPDATE runs SET settings = '{{"key": "411k_{KEY}"}}'"""),
    mutant(
        "no_secret_is_readable",
        "UPDATE answers SET body = 'it is ' || (SELECT bearer FROM poll_bearers b "
        "WHERE b.attempt_id = answers.attempt_id) WHERE attempt_id IN (SELECT attempt_id FROM poll_bearers)",
    ),
    mutant(
        "forgotten_leads_keep_nothing_personal",
        "UPDATE leads SET dm_name = 'Ann' WHERE forgotten_at NOT NULL",
    ),
    mutant(
        "forgotten_leads_keep_nothing_personal",
        "UPDATE leads SET phone_key = '1' WHERE forgotten_at NOT NULL",
    ),
    mutant("forgotten_leads_keep_nothing_personal", "UPDATE source_rows SET raw = '{}' WHERE lead_id = 2"),
    mutant("forgotten_leads_keep_nothing_personal", "UPDATE jobs SET request = '{}' WHERE lead_id = 2"),
    mutant("forgotten_leads_keep_nothing_personal", "UPDATE results SET body = '{}' WHERE job_id = 2"),
    mutant(
        "forgotten_leads_keep_nothing_personal",
        "UPDATE answers SET body = '{}' WHERE attempt_id IN (SELECT id FROM attempts WHERE job_id = 2)",
    ),
    # runs
    mutant("runs_end_before_the_next", "UPDATE runs SET ended_at = NULL, stop_reason = NULL WHERE id = 1"),
    mutant("chains_go_on_only_after_an_interruption", "UPDATE runs SET chain_id = 1 WHERE id = 3"),
    mutant("chains_go_on_only_after_an_interruption", "UPDATE runs SET chain_id = 1 WHERE id = 5"),
    # the file
    mutant("schema_is_current", "PRAGMA user_version = 99"),
    mutant("guards_in_place", "DROP TRIGGER costs_no_delete"),
    mutant("guards_in_place", "DROP INDEX costs_run"),
    mutant("guards_in_place", "CREATE TRIGGER theirs AFTER INSERT ON costs BEGIN SELECT 1; END"),
    mutant(
        "guards_in_place",
        "DROP TRIGGER jobs_no_delete",
        "CREATE TRIGGER jobs_no_delete BEFORE DELETE ON jobs BEGIN SELECT 1; END",
    ),
    mutant("guards_in_place", "INSERT INTO allowed_transitions VALUES ('matched', 'queued', 'retried')"),
    mutant(
        "guards_in_place",
        "DELETE FROM allowed_transitions WHERE reason = 'suppressed'",
        also=("history_takes_allowed_steps",),
    ),
    mutant(
        "tables_are_strict",
        also=("guards_in_place",),
        loosen=("deliveries", ") STRICT", ")"),
    ),
    mutant(
        "integrity_check",
        "UPDATE imports SET leads_known = -1, leads_new = leads_new + leads_known + 1 WHERE id = 1",
    ),
    mutant("foreign_key_check", "UPDATE jobs SET lead_id = 4711 WHERE id = " + UNSENT),
)


def break_it(connection: Connection, how: Mutant) -> None:
    """Break a ledger with its guards off, and put the guards back exactly as they were."""
    guards = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    connection.execute("PRAGMA ignore_check_constraints = ON")
    for name, _ in guards:
        connection.execute(f"DROP TRIGGER {name}")
    if how.loosen is not None:
        loosen(connection, *how.loosen)
    about_guards = [statement for statement in how.sql if "TRIGGER" in statement]
    for statement in how.sql:
        if statement not in about_guards:
            done = connection.execute(statement)
            assert done.rowcount != 0, f"nothing to break: {statement}"
    connection.execute("PRAGMA ignore_check_constraints = OFF")  # integrity_check would not look at them
    for _, sql in guards:
        connection.execute(sql)
    for statement in about_guards:
        connection.execute(statement)


def loosen(connection: Connection, table: str, old: str, new: str) -> None:
    of_table = "FROM sqlite_master WHERE tbl_name = ? AND sql IS NOT NULL AND type = ?"
    (sql,) = connection.execute(f"SELECT sql {of_table}", (table, "table")).fetchone()
    indexes = connection.execute(f"SELECT sql {of_table}", (table, "index")).fetchall()
    assert old in sql
    connection.execute("PRAGMA legacy_alter_table = ON")
    connection.execute(f"ALTER TABLE {table} RENAME TO before")
    connection.execute(sql.replace(old, new))
    connection.execute(f"INSERT INTO {table} SELECT * FROM before")
    connection.execute("DROP TABLE before")
    for (index,) in indexes:
        connection.execute(index)


@pytest.mark.parametrize("how", MUTANTS, ids=[f"{number}-{how.breaks}" for number, how in enumerate(MUTANTS)])
def test_exactly_what_is_broken_is_reported(
    copy: Connection, check: Callable[[Connection], Audit], how: Mutant
) -> None:
    break_it(copy, how)
    found = {failure.name for failure in check(copy).failed}
    assert found == {how.breaks, *how.also}


def test_every_check_has_a_mutant() -> None:
    names = [invariant.name for invariant in INVARIANTS]
    assert len(set(names)) == len(names)
    assert {how.breaks for how in MUTANTS} == {*names, *FILE_CHECKS}


def test_every_check_says_what_it_is_in_a_sentence() -> None:
    sentences = [invariant.sentence for invariant in INVARIANTS] + list(FILE_CHECKS.values())
    assert all(text[0].isupper() and text.endswith((".", ").")) for text in sentences)
    assert len(set(sentences)) == len(sentences)
