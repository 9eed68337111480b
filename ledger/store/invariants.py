"""What is always true of a ledger, as SQL: each statement returns the rows that break it, so none.

Read-only and plain, so that any of them can be pasted into Datasette or the `sqlite3` shell. Rows carry ids,
states and amounts (micro-dollars), never a person's data nor a secret. Where the books' triggers and indexes
already refuse a thing, it is checked all the same: a guard can be dropped.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from ledger.model import LEAD_FIELDS


class Invariant(NamedTuple):
    """One truth: its name, its sentence for a person, and the query for whatever breaks it."""

    name: str
    sentence: str
    sql: str


_OPEN: Final = "('submitting', 'waiting', 'in_doubt')"
_IS_ANSWERED: Final = "(j.state IN ('matched', 'no_match') OR (j.state = 'failed' AND j.reason <> 'refused'))"
_NOT_CLOSED: Final = """NOT EXISTS (SELECT 1 FROM costs c WHERE c.attempt_id = a.id
        AND c.kind IN ('charge', 'release'))"""

HISTORY: Final = (
    Invariant(
        "history_begins",
        "Every job has a history.",
        """
        SELECT j.id AS job_id, j.state FROM jobs j
        WHERE NOT EXISTS (SELECT 1 FROM transitions t WHERE t.job_id = j.id)
        """,
    ),
    Invariant(
        "history_is_a_chain",
        "A job's first step leaves `new`, and every later one starts where the one before ended.",
        """
        SELECT t.job_id, t.id AS transition_id, t.from_state FROM transitions t
        WHERE t.from_state IS NOT COALESCE((SELECT p.to_state FROM transitions p
            WHERE p.job_id = t.job_id AND p.id < t.id ORDER BY p.id DESC LIMIT 1), 'new')
        """,
    ),
    Invariant(
        "history_takes_allowed_steps",
        "Every step is one of `allowed_transitions`.",
        """
        SELECT t.job_id, t.id AS transition_id, t.from_state, t.to_state, t.reason FROM transitions t
        WHERE NOT EXISTS (SELECT 1 FROM allowed_transitions s
            WHERE s.from_state = t.from_state AND s.to_state = t.to_state AND s.reason = t.reason)
        """,
    ),
    Invariant(
        "history_ends_in_the_present",
        "A job's last step is its present state and reason.",
        """
        SELECT j.id AS job_id, j.state, j.reason, t.to_state, t.reason AS last_reason
        FROM (SELECT job_id, to_state, reason, MAX(id) FROM transitions GROUP BY job_id) t
            JOIN jobs j ON j.id = t.job_id
        WHERE t.to_state <> j.state OR t.reason <> j.reason
        """,
    ),
    Invariant(
        "steps_name_their_own_attempt",
        "A step about a call names an attempt of its own job.",
        """
        SELECT t.job_id, t.id AS transition_id, t.attempt_id, a.job_id AS attempt_of_job
        FROM transitions t LEFT JOIN attempts a ON a.id = t.attempt_id
        WHERE a.job_id <> t.job_id
            OR (a.id IS NULL AND (t.from_state NOT IN ('new', 'queued') OR t.reason = 'claimed'))
        """,
    ),
    Invariant(
        "attempts_are_claimed_once",
        "Every attempt begins with exactly one `claimed` step.",
        """
        SELECT a.id AS attempt_id, a.job_id, t.claims FROM attempts a LEFT JOIN (
            SELECT attempt_id, COUNT(*) AS claims FROM transitions WHERE reason = 'claimed'
            GROUP BY attempt_id
        ) t ON t.attempt_id = a.id
        WHERE t.claims IS NOT 1
        """,
    ),
    Invariant(
        "outcome_follows_history",
        "An attempt's outcome is what its last step says.",
        """
        WITH says (reason, outcome) AS (VALUES ('claimed', NULL), ('same_key_resend', 'in_doubt'),
            ('accepted', 'accepted'), ('answered', 'answered'), ('refused', 'refused'),
            ('provider_failed', 'answered'), ('provider_failed', 'accepted'), ('not_sent', 'not_sent'),
            ('throttled', 'throttled'), ('no_money', 'no_money'), ('not_allowed', 'not_allowed'),
            ('outcome_unknown', 'in_doubt'), ('found_at_start', 'in_doubt'), ('unreachable', 'in_doubt'),
            ('completed', 'accepted'), ('poll_evidence', 'accepted'), ('delivery_evidence', 'accepted'),
            ('delivery_evidence', 'answered'), ('late_answer', 'answered'),
            ('accepted_by_person', 'accepted'), ('late_answer', 'accepted'), ('proved_free', 'proved_free'),
            ('audit_charged', 'lost'), ('written_off', 'lost'), ('resent_by_person', 'lost'))
        SELECT a.id AS attempt_id, a.job_id, a.outcome, t.reason FROM (
            SELECT attempt_id, reason, MAX(id) FROM transitions
            WHERE attempt_id IS NOT NULL AND (from_state <> 'queued' OR reason = 'claimed')
            GROUP BY attempt_id
        ) t JOIN attempts a ON a.id = t.attempt_id
        WHERE NOT EXISTS (SELECT 1 FROM says s WHERE s.reason = t.reason AND s.outcome IS a.outcome)
        """,
    ),
    Invariant(
        "doubt_ends_with_evidence",
        "A doubt, or a lost call, is settled only with its evidence noted.",
        """
        SELECT t.job_id, t.attempt_id, t.from_state, t.to_state, t.reason
        FROM transitions t JOIN attempts a ON a.id = t.attempt_id
        WHERE t.from_state IN ('in_doubt', 'lost') AND t.to_state <> 'submitting'
            AND COALESCE(a.evidence, '') = ''
        """,
    ),
)

ATTEMPTS: Final = (
    Invariant(
        "attempts_are_numbered",
        "A job's `attempt` is the number of its latest attempt, and none is missing.",
        """
        SELECT j.id AS job_id, j.attempt, a.attempts, a.latest FROM jobs j LEFT JOIN (
            SELECT job_id, COUNT(*) AS attempts, MAX(number) AS latest FROM attempts GROUP BY job_id
        ) a ON a.job_id = j.id
        WHERE j.attempt <> COALESCE(a.attempts, 0) OR j.attempt <> COALESCE(a.latest, 0)
        """,
    ),
    Invariant(
        "one_open_attempt_a_job",
        "A job has at most one attempt that may still cost money.",
        "SELECT a.job_id, COUNT(*) AS open_attempts FROM attempts a WHERE "
        + _NOT_CLOSED
        + " GROUP BY a.job_id HAVING COUNT(*) > 1",
    ),
    Invariant(
        "open_attempts_belong_to_open_jobs",
        "Money is set aside only for jobs that are submitting, waiting or in doubt: a final, skipped, "
        "cancelled or queued job has its attempts closed.",
        "SELECT a.id AS attempt_id, a.job_id, j.state FROM jobs j JOIN attempts a ON a.job_id = j.id "
        "WHERE j.state NOT IN " + _OPEN + " AND " + _NOT_CLOSED,
    ),
    Invariant(
        "open_jobs_have_an_open_attempt",
        "A job that is submitting, waiting or in doubt has its latest attempt open.",
        "SELECT j.id AS job_id, j.state FROM jobs j WHERE j.state IN "
        + _OPEN
        + " AND NOT EXISTS (SELECT 1 FROM attempts a WHERE a.job_id = j.id AND a.number = j.attempt AND "
        + _NOT_CLOSED
        + ")",
    ),
    Invariant(
        "next_attempt_after_the_last_closed",
        "A job is sent again only after the attempt before was closed.",
        """
        SELECT b.job_id, b.id AS attempt_id FROM attempts b
            JOIN attempts a ON a.job_id = b.job_id AND a.number = b.number - 1
        WHERE b.number > 1
            AND (SELECT MIN(c.id) FROM costs c WHERE c.attempt_id = b.id AND c.kind = 'hold')
                < (SELECT MAX(c.id) FROM costs c WHERE c.attempt_id = a.id
                    AND c.kind IN ('charge', 'release'))
        """,
    ),
    Invariant(
        "one_open_job_a_lead_and_route",
        "A lead has at most one job on a route that is not final.",
        """
        SELECT lead_id, route, COUNT(*) AS open_jobs FROM jobs
        WHERE state IN ('queued', 'submitting', 'waiting', 'in_doubt') AND lead_id IS NOT NULL
        GROUP BY lead_id, route HAVING COUNT(*) > 1
        """,
    ),
)

ANSWERS: Final = (
    Invariant(
        "answers_have_a_result",
        "A job that was answered has its result.",
        "SELECT j.id AS job_id, j.state FROM jobs j WHERE "
        + _IS_ANSWERED
        + " AND NOT EXISTS (SELECT 1 FROM results r WHERE r.job_id = j.id)",
    ),
    Invariant(
        "results_have_an_answer",
        "Only a job that was answered has a result (a refused one has none).",
        "SELECT j.id AS job_id, j.state, j.reason FROM results r JOIN jobs j ON j.id = r.job_id WHERE NOT "
        + _IS_ANSWERED,
    ),
    Invariant(
        "final_answers_are_kept_raw",
        "A job that was answered or refused keeps the raw answer with its latest attempt.",
        """
        SELECT j.id AS job_id, a.id AS attempt_id, j.state, j.reason FROM jobs j
            LEFT JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
        WHERE j.state IN ('matched', 'no_match', 'failed')
            AND NOT EXISTS (SELECT 1 FROM answers w WHERE w.attempt_id = a.id
                AND (w.kind = 'refused') = (j.reason = 'refused')
                AND w.kind IN ('refused', 'answered', 'poll', 'delivery'))
        """,
    ),
    Invariant(
        "accepted_calls_have_a_remote_id",
        "An accepted attempt has the provider's job id.",
        """
        SELECT id AS attempt_id, job_id FROM attempts WHERE outcome = 'accepted' AND remote_job_id IS NULL
        """,
    ),
    Invariant(
        "remote_ids_have_a_source",
        "A remote job id comes from a raw acceptance, a delivery or a person.",
        """
        SELECT a.id AS attempt_id, a.job_id, a.remote_job_id FROM attempts a
        WHERE a.remote_job_id IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM answers w WHERE w.attempt_id = a.id
                AND w.kind IN ('accepted', 'delivery'))
            AND NOT EXISTS (SELECT 1 FROM transitions t WHERE t.job_id = a.job_id AND t.attempt_id = a.id
                AND t.reason IN ('accepted_by_person', 'delivery_evidence'))
        """,
    ),
    Invariant(
        "remote_ids_are_used_once",
        "A remote job id belongs to one attempt.",
        """
        SELECT remote_job_id, COUNT(*) AS attempts FROM attempts WHERE remote_job_id IS NOT NULL
        GROUP BY remote_job_id HAVING COUNT(*) > 1
        """,
    ),
    Invariant(
        "bearers_only_while_open",
        "A poll bearer is kept only while its attempt is open.",
        """
        SELECT b.attempt_id, a.job_id, j.state FROM poll_bearers b
            LEFT JOIN attempts a ON a.id = b.attempt_id LEFT JOIN jobs j ON j.id = a.job_id
        WHERE COALESCE(j.state, '') NOT IN """
        + _OPEN
        + " OR NOT "
        + _NOT_CLOSED,
    ),
)

# A prefix and enough of what a credential is made of: a lead called "Bearer & Sons" is no secret. `instr`
# first, because it is many times faster than GLOB and almost every text ends there.
_SIGN: Final = "[A-Za-z0-9._~+/=-]"
_LOOKS_SECRET: Final = (
    "((instr(s.text, 'earer ') AND s.text GLOB '*[Bb]earer "
    + _SIGN * 20
    + "*') OR (instr(s.text, '411k_') AND s.text GLOB '*411k_"
    + _SIGN * 8
    + "*') OR (instr(s.text, 'ech_') AND (' ' || s.text) GLOB '*[^A-Za-z0-9]ech_"
    + _SIGN * 16
    + "*'))"
)

ROWS: Final = (
    Invariant(
        "imports_reconcile",
        "Rows read = new + known + rejected leads, and every one of them is kept.",
        """
        SELECT i.id AS import_id, i.rows_read, i.rows_rejected, s.kept, s.rejected FROM imports i LEFT JOIN (
            SELECT import_id, COUNT(*) AS kept, SUM(lead_id IS NULL) AS rejected FROM source_rows
            GROUP BY import_id
        ) s ON s.import_id = i.id
        WHERE i.rows_read <> COALESCE(s.kept, 0) OR i.rows_rejected <> COALESCE(s.rejected, 0)
            OR i.rows_read <> i.leads_new + i.leads_known + i.rows_rejected
        """,
    ),
    Invariant(
        "rows_are_leads_or_rejections",
        "Every imported row is a lead's, or says why it is none.",
        "SELECT import_id, row_number FROM source_rows WHERE lead_id IS NULL AND problem IS NULL",
    ),
    Invariant(
        "no_secret_is_readable",
        "No bearer and no key stands in a text that people read.",
        """
        SELECT s.source, s.id FROM (
            SELECT 'answers' AS source, id, body AS text FROM answers
            UNION ALL SELECT 'results', job_id, body FROM results
            UNION ALL SELECT 'source_rows of import', import_id, raw FROM source_rows
            UNION ALL SELECT 'runs', id, settings FROM runs
            UNION ALL SELECT 'deliveries', id, body FROM deliveries
            UNION ALL SELECT 'intents', rowid, body FROM intents) s
        WHERE """
        + _LOOKS_SECRET
        + """
        UNION ALL SELECT 'answers', w.id FROM poll_bearers b JOIN answers w ON w.attempt_id = b.attempt_id
        WHERE instr(w.body, b.bearer)
        """,
    ),
    Invariant(
        "forgotten_leads_keep_nothing_personal",
        "Of a forgotten person the ledger keeps the money and nothing else.",
        "SELECT l.id AS lead_id FROM leads l WHERE l.forgotten_at IS NOT NULL AND (COALESCE("
        + ", ".join("l." + name for name in (*LEAD_FIELDS, "extra", "contact_key", "email_key"))
        + """, l.place_key, l.phone_key) IS NOT NULL
            OR EXISTS (SELECT 1 FROM source_rows s WHERE s.lead_id = l.id AND s.raw IS NOT NULL)
            OR EXISTS (SELECT 1 FROM jobs j LEFT JOIN results r ON r.job_id = j.id
                WHERE j.lead_id = l.id AND (j.request IS NOT NULL OR r.body IS NOT NULL))
            OR EXISTS (SELECT 1 FROM jobs j JOIN attempts a ON a.job_id = j.id
                JOIN answers w ON w.attempt_id = a.id WHERE j.lead_id = l.id AND w.body IS NOT NULL))
        """,
    ),
)
