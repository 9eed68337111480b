"""What is always true of the books: the money half of `ledger/store/invariants.py`.

The replay of the caps walks `costs` in the order of its ids, which is the order in which the one writer
booked them: no hold was written that lifted exposure above a cap of the run that wrote it (DESIGN 2.3).
"""

from __future__ import annotations

from typing import Final

from ledger.store.invariants import Invariant

_MONEY: Final = """
        WITH money AS (
            SELECT attempt_id, SUM(kind = 'hold') AS holds, SUM(kind IN ('charge', 'release')) AS closings,
                SUM(CASE kind WHEN 'hold' THEN amount_microusd ELSE 0 END) AS held_microusd,
                SUM(CASE kind WHEN 'charge' THEN amount_microusd ELSE 0 END) AS charged_microusd,
                SUM(CASE kind WHEN 'release' THEN amount_microusd ELSE 0 END) AS released_microusd
            FROM costs WHERE attempt_id IS NOT NULL GROUP BY attempt_id)
"""
_EXPOSED: Final = """CASE WHEN c.kind IN ('hold', 'adjust', 'unattributed') THEN c.amount_microusd
                WHEN c.kind = 'release' THEN -c.amount_microusd ELSE 0 END"""

BOOKS: Final = (
    Invariant(
        "attempts_have_one_hold",
        "Every attempt has exactly one hold, equal to its ceiling.",
        _MONEY
        + """
        SELECT a.id AS attempt_id, a.job_id, a.ceiling_microusd, m.holds, m.held_microusd
        FROM attempts a LEFT JOIN money m ON m.attempt_id = a.id
        WHERE m.holds IS NOT 1 OR m.held_microusd IS NOT a.ceiling_microusd
        """,
    ),
    Invariant(
        "hold_is_charge_plus_release",
        "Once an attempt is closed, its hold is its charge plus its release.",
        _MONEY
        + """
        SELECT attempt_id, held_microusd, charged_microusd, released_microusd FROM money
        WHERE closings > 0 AND held_microusd <> charged_microusd + released_microusd
        """,
    ),
    Invariant(
        "charge_within_hold",
        "No charge and no release is above its hold.",
        """
        SELECT c.attempt_id, c.kind, c.amount_microusd, h.amount_microusd AS held_microusd
        FROM costs c JOIN costs h ON h.attempt_id = c.attempt_id AND h.kind = 'hold'
        WHERE c.kind IN ('charge', 'release') AND c.amount_microusd > h.amount_microusd
        """,
    ),
    Invariant(
        "one_charge_and_one_release",
        "An attempt has at most one charge and one release.",
        """
        SELECT attempt_id, kind, COUNT(*) AS times FROM costs
        WHERE kind IN ('charge', 'release') GROUP BY attempt_id, kind HAVING COUNT(*) > 1
        """,
    ),
    Invariant(
        "adjust_after_close",
        "An adjust corrects only an attempt that is already closed.",
        """
        SELECT x.id AS cost_id, x.attempt_id, x.amount_microusd FROM costs x
        WHERE x.kind = 'adjust' AND NOT EXISTS (SELECT 1 FROM costs c WHERE c.attempt_id = x.attempt_id
            AND c.kind IN ('charge', 'release') AND c.id < x.id)
        """,
    ),
    Invariant(
        "nothing_costs_less_than_nothing",
        "Charge and adjusts of an attempt together are never below zero.",
        """
        SELECT x.id AS cost_id, x.attempt_id, x.amount_microusd FROM costs x
        WHERE x.kind = 'adjust' AND x.amount_microusd < 0
            AND (SELECT SUM(c.amount_microusd) FROM costs c WHERE c.attempt_id = x.attempt_id
                AND c.kind IN ('charge', 'adjust')) < 0
        """,
    ),
    Invariant(
        "unaccepted_calls_cost_nothing",
        "A call that the provider surely did not take is charged nothing, unless a later answer to it says "
        "what it cost.",
        """
        SELECT a.id AS attempt_id, a.job_id, a.outcome, c.kind, c.amount_microusd
        FROM costs c JOIN attempts a ON a.id = c.attempt_id
        WHERE c.kind IN ('charge', 'adjust') AND c.amount_microusd <> 0
            AND a.outcome IN ('not_sent', 'refused', 'not_allowed', 'no_money', 'throttled', 'proved_free')
            AND NOT (c.kind = 'adjust' AND EXISTS (SELECT 1 FROM answers w
                WHERE w.attempt_id = a.id AND w.kind IN ('delivery', 'poll')))
        """,
    ),
    Invariant(
        "nothing_is_charged_twice",
        "One lead, route, request and generation is charged at most once.",
        """
        SELECT MIN(j.id) AS job_id, j.lead_id, j.route, j.generation, COUNT(*) AS charged_attempts FROM (
            SELECT attempt_id FROM costs WHERE kind IN ('charge', 'adjust')
            GROUP BY attempt_id HAVING SUM(amount_microusd) > 0
        ) c JOIN attempts a ON a.id = c.attempt_id JOIN jobs j ON j.id = a.job_id
        GROUP BY COALESCE(j.lead_id, -j.id), j.route, j.request_key, j.generation HAVING COUNT(*) > 1
        """,
    ),
    Invariant(
        "costs_belong_to_their_attempts_run",
        "Every movement of a call's money has its attempt and is paid by the attempt's run; "
        "top-ups and unattributed amounts have none.",
        """
        SELECT c.id AS cost_id, c.kind, c.attempt_id, c.run_id, a.run_id AS run_of_attempt
        FROM costs c LEFT JOIN attempts a ON a.id = c.attempt_id
        WHERE CASE WHEN c.kind IN ('top_up', 'unattributed') THEN c.attempt_id IS NOT NULL
            ELSE a.id IS NULL OR c.run_id IS NOT a.run_id END
        """,
    ),
    Invariant(
        "balance_gaps_add_up",
        "A gap is what was expected less what was seen.",
        """
        SELECT id AS balance_check_id, expected_microusd, observed_microusd, gap_microusd FROM balance_checks
        WHERE gap_microusd IS NOT expected_microusd - observed_microusd
        """,
    ),
)

# What a hold counts against --budget: all money now set aside, by whichever chain, and what its own chain has
# spent. That is the sum of `store.exposure.load`, written so that two running sums give it.
_CHAIN: Final = """
            SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'charge' THEN -c.amount_microusd
                WHEN 'release' THEN -c.amount_microusd ELSE 0 END) OVER (ORDER BY c.id)
            + SUM(CASE WHEN c.kind IN ('charge', 'adjust', 'unattributed') THEN c.amount_microusd
                ELSE 0 END) OVER (PARTITION BY r.chain_id ORDER BY c.id ROWS UNBOUNDED PRECEDING)"""


def _cap(option: str, column: str, exposure: str, source: str = "") -> str:
    """The holds that lifted `exposure` above a cap; nothing is summed where no run has that cap.

    A run's settings and its holds are read together: the cap is the one of the run that wrote the hold.
    """
    return (
        "SELECT id AS cost_id, attempt_id, run_id, exposure_microusd, cap_microusd AS "
        + option
        + "_microusd FROM (SELECT c.id, c.attempt_id, c.run_id, c.kind, r."
        + column
        + " AS cap_microusd, "
        + exposure
        + " AS exposure_microusd FROM costs c LEFT JOIN runs r ON r.id = c.run_id "
        + source
        + " WHERE EXISTS (SELECT 1 FROM runs WHERE "
        + column
        + " IS NOT NULL)) WHERE kind = 'hold' AND exposure_microusd > cap_microusd"
    )


def _running(partition: str) -> str:
    return "SUM(" + _EXPOSED + ") OVER (" + partition + " ORDER BY c.id ROWS UNBOUNDED PRECEDING)"


_WITH_ATTEMPT: Final = "JOIN attempts a ON a.id = c.attempt_id"

CAPS: Final = (
    Invariant(
        "budget_held",
        "No hold lifted its budget chain above --budget.",
        _cap("budget", "budget_microusd", _CHAIN),
    ),
    Invariant(
        "budget_day_held",
        "No hold lifted its UTC day above --budget-day.",
        _cap(
            "budget_day",
            "budget_day_microusd",
            _running("PARTITION BY substr(a.started_at, 1, 10)"),
            _WITH_ATTEMPT,
        ),
    ),
    Invariant(
        "budget_lead_held",
        "No hold lifted its lead above --budget-lead.",
        _cap(
            "budget_lead",
            "budget_lead_microusd",
            _running("PARTITION BY j.lead_id"),
            _WITH_ATTEMPT + " JOIN jobs j ON j.id = a.job_id AND j.lead_id IS NOT NULL",
        ),
    ),
    Invariant(
        "budget_total_held",
        "No hold lifted the whole ledger above --budget-total.",
        _cap("budget_total", "budget_total_microusd", _running("")),
    ),
)

RUNS: Final = (
    Invariant(
        "runs_end_before_the_next",
        "A run has ended when the next one begins.",
        """
        SELECT r.id AS run_id FROM runs r
        WHERE r.ended_at IS NULL AND r.id < (SELECT MAX(id) FROM runs)
        """,
    ),
    Invariant(
        "chains_go_on_only_after_an_interruption",
        "A run continues its predecessor's budget chain only where that one did not end it.",
        """
        SELECT r.id AS run_id, r.chain_id, p.id AS before, p.chain_id AS chain_before, p.stop_reason
        FROM runs r LEFT JOIN runs p ON p.id = (SELECT MAX(id) FROM runs WHERE id < r.id)
        WHERE r.chain_id <> r.id AND (p.id IS NULL OR r.chain_id <> p.chain_id
            OR p.stop_reason IN ('finished', 'limit', 'until', 'budget'))
        """,
    ),
)
