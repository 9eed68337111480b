"""The schema of a ledger, step by step, in sqlite-utils' own format.

`leadledger` applies these inside one `BEGIN IMMEDIATE` with a backup before a change; by hand the same file
works with `sqlite-utils migrate LEDGER migrations/`. sqlite-utils runs this file outside any package, so it
imports nothing of ours: the steps a job may take are spelt out here and a test compares them with
`ledger/states.py`. A migration that has been released is never edited; the next one is added below it.

Conventions: STRICT tables; money in integer micro-dollars (`_microusd`), views in dollars (`_usd`); times as
UTC ISO-8601 text with microseconds and `Z`, written by the program's clock, never by SQLite. Guards are
triggers, so that a person with an SQL shell cannot break the state machine or the books by mistake.
"""

from sqlite_utils import Database, Migrations

migrations = Migrations("leadledger")

APPLICATION_ID = 0x4C454447  # "LEDG": lets `file` and us tell a ledger from any other SQLite file

_STATES = (
    "'queued', 'submitting', 'waiting', 'in_doubt', 'matched', 'no_match', 'failed', 'lost', 'skipped', "
    "'cancelled'"
)
_FINAL = "'matched', 'no_match', 'failed', 'lost', 'skipped', 'cancelled'"

_TABLES = (
    """
    CREATE TABLE imports (
        id INTEGER PRIMARY KEY,
        file_name TEXT NOT NULL,
        file_sha256 TEXT NOT NULL,
        source TEXT NOT NULL,
        mapping TEXT NOT NULL,
        imported_at TEXT NOT NULL,
        rows_read INTEGER NOT NULL DEFAULT 0 CHECK (rows_read >= 0),
        leads_new INTEGER NOT NULL DEFAULT 0 CHECK (leads_new >= 0),
        leads_known INTEGER NOT NULL DEFAULT 0 CHECK (leads_known >= 0),
        rows_rejected INTEGER NOT NULL DEFAULT 0 CHECK (rows_rejected >= 0),
        CHECK (rows_read = leads_new + leads_known + rows_rejected)
    ) STRICT
    """,
    """
    CREATE TABLE leads (
        id INTEGER PRIMARY KEY,
        source TEXT NOT NULL,
        contact_id TEXT, company TEXT, street TEXT, city TEXT, state TEXT, zip TEXT,
        number1 TEXT, number2 TEXT, dm_name TEXT, email TEXT, domain TEXT,
        extra TEXT,
        contact_key TEXT, email_key TEXT, place_key TEXT, phone_key TEXT,
        suppressed INTEGER NOT NULL DEFAULT 0 CHECK (suppressed IN (0, 1)),
        created_at TEXT NOT NULL,
        forgotten_at TEXT
    ) STRICT
    """,
    # WITHOUT ROWID: rows are written in key order and read by import, and no second index is paid for.
    """
    CREATE TABLE source_rows (
        import_id INTEGER NOT NULL REFERENCES imports (id),
        row_number INTEGER NOT NULL CHECK (row_number >= 1),
        raw TEXT,
        lead_id INTEGER REFERENCES leads (id),
        problem TEXT,
        PRIMARY KEY (import_id, row_number),
        CHECK (lead_id IS NOT NULL OR problem IS NOT NULL)
    ) STRICT, WITHOUT ROWID
    """,
    f"""
    CREATE TABLE jobs (
        id INTEGER PRIMARY KEY,
        lead_id INTEGER REFERENCES leads (id),
        route TEXT NOT NULL,
        mode TEXT NOT NULL CHECK (mode IN ('async', 'sync', 'batch')),
        request TEXT,
        request_key TEXT NOT NULL,
        generation INTEGER NOT NULL DEFAULT 1 CHECK (generation >= 1),
        state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ({_STATES})),
        reason TEXT NOT NULL DEFAULT 'enqueued',
        priority INTEGER NOT NULL DEFAULT 0,
        attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
        not_before TEXT,
        paused_at TEXT,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        finished_at TEXT,
        UNIQUE (lead_id, route, request_key, generation),
        CHECK ((state IN ({_FINAL})) = (finished_at IS NOT NULL))
    ) STRICT
    """,
    """
    CREATE TABLE runs (
        id INTEGER PRIMARY KEY,
        chain_id INTEGER NOT NULL,
        started_at TEXT NOT NULL,
        ended_at TEXT,
        pid INTEGER NOT NULL,
        host TEXT NOT NULL,
        version TEXT NOT NULL,
        origin TEXT NOT NULL,
        settings TEXT NOT NULL,
        budget_microusd INTEGER CHECK (budget_microusd >= 0),
        budget_day_microusd INTEGER CHECK (budget_day_microusd >= 0),
        budget_lead_microusd INTEGER CHECK (budget_lead_microusd >= 0),
        budget_total_microusd INTEGER CHECK (budget_total_microusd >= 0),
        stop_reason TEXT CHECK (stop_reason IN ('finished', 'limit', 'until', 'budget', 'no_funds',
            'interrupted', 'not_allowed', 'refused', 'unreachable', 'disk', 'died')),
        CHECK ((ended_at IS NULL) = (stop_reason IS NULL))
    ) STRICT
    """,
    """
    CREATE TABLE attempts (
        id INTEGER PRIMARY KEY,
        job_id INTEGER NOT NULL REFERENCES jobs (id),
        number INTEGER NOT NULL CHECK (number >= 1),
        run_id INTEGER NOT NULL REFERENCES runs (id),
        idempotency_key TEXT NOT NULL UNIQUE,
        ceiling_microusd INTEGER NOT NULL CHECK (ceiling_microusd > 0),
        started_at TEXT NOT NULL,
        ended_at TEXT,
        outcome TEXT CHECK (outcome IN ('accepted', 'answered', 'not_sent', 'refused', 'not_allowed',
            'no_money', 'throttled', 'in_doubt', 'proved_free', 'lost')),
        http_status INTEGER,
        error TEXT,
        remote_job_id TEXT UNIQUE,
        billing_mode TEXT,
        polls INTEGER NOT NULL DEFAULT 0 CHECK (polls >= 0),
        evidence TEXT,
        UNIQUE (job_id, number),
        CHECK (outcome IS NULL OR ended_at IS NOT NULL)
    ) STRICT
    """,
    """
    CREATE TABLE poll_bearers (
        attempt_id INTEGER PRIMARY KEY REFERENCES attempts (id),
        bearer TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE costs (
        id INTEGER PRIMARY KEY,
        attempt_id INTEGER REFERENCES attempts (id),
        run_id INTEGER REFERENCES runs (id),
        kind TEXT NOT NULL
            CHECK (kind IN ('hold', 'charge', 'release', 'adjust', 'unattributed', 'top_up')),
        amount_microusd INTEGER NOT NULL CHECK (kind = 'adjust' OR amount_microusd >= 0),
        assumed INTEGER NOT NULL DEFAULT 0 CHECK (assumed IN (0, 1)),
        at TEXT NOT NULL,
        evidence TEXT,
        CHECK ((kind IN ('hold', 'charge', 'release', 'adjust')) = (attempt_id IS NOT NULL))
    ) STRICT
    """,
    """
    CREATE TABLE results (
        job_id INTEGER PRIMARY KEY REFERENCES jobs (id),
        matched INTEGER CHECK (matched IN (0, 1)),
        billed INTEGER CHECK (billed IN (0, 1)),
        cache_hit INTEGER CHECK (cache_hit IN (0, 1)),
        body TEXT,
        received_at TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE answers (
        id INTEGER PRIMARY KEY,
        attempt_id INTEGER NOT NULL REFERENCES attempts (id),
        kind TEXT NOT NULL
            CHECK (kind IN ('accepted', 'answered', 'refused', 'odd', 'poll', 'delivery')),
        http_status INTEGER,
        body TEXT,
        sha256 TEXT NOT NULL,
        received_at TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE transitions (
        id INTEGER PRIMARY KEY,
        job_id INTEGER NOT NULL REFERENCES jobs (id),
        attempt_id INTEGER REFERENCES attempts (id),
        run_id INTEGER REFERENCES runs (id),
        from_state TEXT NOT NULL,
        to_state TEXT NOT NULL,
        reason TEXT NOT NULL,
        at TEXT NOT NULL
    ) STRICT
    """,
    """
    CREATE TABLE balance_checks (
        id INTEGER PRIMARY KEY,
        run_id INTEGER REFERENCES runs (id),
        kind TEXT NOT NULL CHECK (kind IN ('opening', 'reading', 'audit')),
        observed_microusd INTEGER NOT NULL,
        digit_microusd INTEGER NOT NULL CHECK (digit_microusd >= 1),
        expected_microusd INTEGER,
        gap_microusd INTEGER,
        last_cost_id INTEGER NOT NULL,
        conclusion TEXT,
        at TEXT NOT NULL,
        CHECK ((expected_microusd IS NULL) = (gap_microusd IS NULL))
    ) STRICT
    """,
    """
    CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY,
        received_at TEXT NOT NULL,
        event_type TEXT NOT NULL,
        remote_job_id TEXT,
        verdict TEXT,
        sha256 TEXT NOT NULL UNIQUE,
        applied_at TEXT
    ) STRICT
    """,
    """
    CREATE TABLE allowed_transitions (
        from_state TEXT NOT NULL,
        to_state TEXT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (from_state, to_state, reason)
    ) STRICT, WITHOUT ROWID
    """,
)

_INDEXES = (
    "CREATE UNIQUE INDEX leads_contact_key ON leads (contact_key) WHERE contact_key IS NOT NULL",
    "CREATE INDEX leads_email_key ON leads (email_key) WHERE email_key IS NOT NULL",
    "CREATE INDEX leads_place_key ON leads (place_key) WHERE place_key IS NOT NULL",
    "CREATE INDEX leads_phone_key ON leads (phone_key) WHERE phone_key IS NOT NULL",
    "CREATE UNIQUE INDEX imports_once ON imports (file_sha256, source, mapping)",
    "CREATE INDEX source_rows_lead ON source_rows (lead_id) WHERE lead_id IS NOT NULL",
    (
        "CREATE UNIQUE INDEX jobs_one_open ON jobs (lead_id, route) "
        "WHERE state IN ('queued', 'submitting', 'waiting', 'in_doubt')"
    ),
    # The claim's own index: its columns are the claim's WHERE and ORDER BY, so a claim costs the same
    # on ten thousand jobs and on a million.
    (
        "CREATE INDEX jobs_ready ON jobs (route, priority DESC, id) "
        "WHERE state = 'queued' AND paused_at IS NULL AND not_before IS NULL"
    ),
    "CREATE INDEX jobs_later ON jobs (not_before) WHERE state = 'queued' AND not_before IS NOT NULL",
    "CREATE INDEX jobs_state ON jobs (state, route)",
    "CREATE INDEX attempts_run ON attempts (run_id)",
    "CREATE INDEX costs_attempt ON costs (attempt_id) WHERE attempt_id IS NOT NULL",
    "CREATE UNIQUE INDEX costs_once ON costs (attempt_id, kind) WHERE kind IN ('hold', 'charge', 'release')",
    "CREATE INDEX costs_run ON costs (run_id)",
    "CREATE INDEX costs_loose ON costs (kind) WHERE attempt_id IS NULL",
    "CREATE INDEX answers_attempt ON answers (attempt_id)",
    "CREATE INDEX transitions_job ON transitions (job_id)",
    "CREATE INDEX balance_checks_kind ON balance_checks (kind, id)",
)


def _refuse(table: str, action: str, message: str, condition: str = "1") -> str:
    name = f"{table}_no_{action.split(maxsplit=1)[0].lower()}"
    return (
        f"CREATE TRIGGER {name} BEFORE {action} ON {table} WHEN {condition} "
        f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
    )


def _unchanged(*columns: str) -> str:
    return " AND ".join(f"NEW.{column} IS OLD.{column}" for column in columns)


def _append_only(table: str, key: str, update_condition: str = "1") -> tuple[str, ...]:
    """Refuse UPDATE, DELETE, and an INSERT over an existing key.

    The last one because INSERT OR REPLACE skips delete triggers unless recursive_triggers is on.
    """
    message = f"{table} is append-only"
    return (
        _refuse(table, "UPDATE", message, update_condition),
        _refuse(table, "DELETE", message),
        (
            f"CREATE TRIGGER {table}_no_replace BEFORE INSERT ON {table} "
            f"WHEN EXISTS (SELECT 1 FROM {table} WHERE {key}) "
            f"BEGIN SELECT RAISE(ABORT, '{message}'); END"
        ),
    )


_TRIGGERS = (
    # The state machine. A job is born queued, moves only by allowed steps and is never deleted.
    """
    CREATE TRIGGER jobs_born_queued BEFORE INSERT ON jobs
    WHEN NEW.state <> 'queued' OR NEW.attempt <> 0
        OR NOT EXISTS (SELECT 1 FROM allowed_transitions
            WHERE from_state = 'new' AND to_state = NEW.state AND reason = NEW.reason)
    BEGIN SELECT RAISE(ABORT, 'a new job is queued, with an allowed reason'); END
    """,
    """
    CREATE TRIGGER jobs_no_replace BEFORE INSERT ON jobs
    WHEN EXISTS (SELECT 1 FROM jobs WHERE id = NEW.id)
        OR EXISTS (SELECT 1 FROM jobs WHERE lead_id = NEW.lead_id AND route = NEW.route
            AND (state IN ('queued', 'submitting', 'waiting', 'in_doubt')
                OR (request_key = NEW.request_key AND generation = NEW.generation)))
    BEGIN SELECT RAISE(ABORT, 'this lead already has that job'); END
    """,
    """
    CREATE TRIGGER jobs_allowed_step BEFORE UPDATE OF state ON jobs
    WHEN NEW.state IS NOT OLD.state AND NOT EXISTS (SELECT 1 FROM allowed_transitions
        WHERE from_state = OLD.state AND to_state = NEW.state AND reason = NEW.reason)
    BEGIN SELECT RAISE(ABORT, 'this change of state is not allowed'); END
    """,
    _refuse(
        "jobs",
        "UPDATE OF id, lead_id, route, request, request_key, generation, created_at",
        "what a job asks never changes",
        "NOT ("
        + _unchanged("id", "lead_id", "route", "request_key", "generation", "created_at")
        + " AND (NEW.request IS OLD.request OR NEW.request IS NULL))",
    ),
    _refuse("jobs", "DELETE", "jobs are never deleted"),
    *_append_only(
        "allowed_transitions",
        "from_state = NEW.from_state AND to_state = NEW.to_state AND reason = NEW.reason",
    ),
    # Attempts: written once, one open hold a job.
    """
    CREATE TRIGGER attempts_one_open BEFORE INSERT ON attempts
    WHEN EXISTS (SELECT 1 FROM attempts a WHERE a.job_id = NEW.job_id AND NOT EXISTS
            (SELECT 1 FROM costs c WHERE c.attempt_id = a.id AND c.kind IN ('charge', 'release')))
    BEGIN SELECT RAISE(ABORT, 'an earlier attempt of this job is still open'); END
    """,
    """
    CREATE TRIGGER attempts_no_replace BEFORE INSERT ON attempts
    WHEN EXISTS (SELECT 1 FROM attempts WHERE id = NEW.id OR (job_id = NEW.job_id AND number = NEW.number)
            OR idempotency_key = NEW.idempotency_key OR remote_job_id = NEW.remote_job_id)
    BEGIN SELECT RAISE(ABORT, 'what was sent never changes'); END
    """,
    _refuse(
        "attempts",
        "UPDATE",
        "what was sent never changes",
        "NOT ("
        + _unchanged("id", "job_id", "number", "run_id", "idempotency_key", "ceiling_microusd", "started_at")
        + " AND (OLD.remote_job_id IS NULL OR NEW.remote_job_id IS OLD.remote_job_id)"
        # UPDATE OR REPLACE would delete the other attempt, unseen by its delete trigger.
        + " AND NOT EXISTS (SELECT 1 FROM attempts o WHERE o.remote_job_id = NEW.remote_job_id "
        + "AND o.id <> NEW.id))",
    ),
    _refuse("attempts", "DELETE", "attempts are never deleted"),
    _refuse("runs", "DELETE", "runs are never deleted"),
    """
    CREATE TRIGGER runs_no_replace BEFORE INSERT ON runs WHEN EXISTS (SELECT 1 FROM runs WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'runs are never deleted'); END
    """,
    # The books.
    *_append_only(
        "costs",
        "id = NEW.id OR (attempt_id = NEW.attempt_id AND kind = NEW.kind "
        "AND kind IN ('hold', 'charge', 'release'))",
    ),
    """
    CREATE TRIGGER costs_within_hold BEFORE INSERT ON costs
    WHEN NEW.kind IN ('charge', 'release') AND NEW.amount_microusd > (
        SELECT COALESCE(SUM(CASE kind WHEN 'hold' THEN amount_microusd
            WHEN 'adjust' THEN 0 ELSE -amount_microusd END), 0)
        FROM costs WHERE attempt_id = NEW.attempt_id)
    BEGIN SELECT RAISE(ABORT, 'charge and release never exceed the hold'); END
    """,
    *_append_only("transitions", "id = NEW.id"),
    """
    CREATE TRIGGER transitions_allowed BEFORE INSERT ON transitions
    WHEN NOT EXISTS (SELECT 1 FROM allowed_transitions
        WHERE from_state = NEW.from_state AND to_state = NEW.to_state AND reason = NEW.reason)
    BEGIN SELECT RAISE(ABORT, 'this change of state is not allowed'); END
    """,
    # What came in. The one update allowed erases a person (`forget`).
    *_append_only(
        "answers",
        "id = NEW.id",
        "NOT (NEW.body IS NULL AND "
        + _unchanged("id", "attempt_id", "kind", "http_status", "sha256", "received_at")
        + ")",
    ),
    *_append_only(
        "results",
        "job_id = NEW.job_id",
        "NOT (NEW.body IS NULL AND "
        + _unchanged("job_id", "matched", "billed", "cache_hit", "received_at")
        + ")",
    ),
    *_append_only(
        "source_rows",
        "import_id = NEW.import_id AND row_number = NEW.row_number",
        "NOT (NEW.raw IS NULL AND " + _unchanged("import_id", "row_number", "lead_id", "problem") + ")",
    ),
)

_ALLOWED = """
new queued enqueued|new queued retried|new queued resent|queued submitting claimed
queued skipped suppressed|queued skipped lacks_fields|queued cancelled cancelled_by_person
submitting waiting accepted|submitting matched answered|submitting no_match answered
submitting failed refused|submitting failed provider_failed
submitting queued not_sent|submitting queued throttled|submitting queued no_money
submitting queued not_allowed|submitting in_doubt outcome_unknown|submitting in_doubt found_at_start
waiting matched completed|waiting no_match completed|waiting failed provider_failed
waiting matched delivery_evidence|waiting no_match delivery_evidence|waiting failed delivery_evidence
waiting in_doubt unreachable|in_doubt submitting same_key_resend
in_doubt waiting poll_evidence|in_doubt waiting delivery_evidence|in_doubt waiting accepted_by_person
in_doubt matched poll_evidence|in_doubt no_match poll_evidence|in_doubt failed poll_evidence
in_doubt matched delivery_evidence|in_doubt no_match delivery_evidence|in_doubt failed delivery_evidence
in_doubt queued proved_free|in_doubt lost audit_charged|in_doubt lost written_off
in_doubt lost resent_by_person
lost matched late_answer|lost no_match late_answer|lost failed late_answer
"""

_HELD = (
    "SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'charge' THEN -c.amount_microusd "
    "WHEN 'release' THEN -c.amount_microusd ELSE 0 END)"
)
_CHARGED = "SUM(CASE WHEN c.kind IN ('charge', 'adjust') THEN c.amount_microusd ELSE 0 END)"


def _usd(expression: str, source: str) -> str:
    return f"ROUND(COALESCE((SELECT {expression} FROM {source}), 0) / 1000000.0, 6)"


_LEAD_COSTS = (
    "jobs j JOIN attempts a ON a.job_id = j.id JOIN costs c ON c.attempt_id = a.id WHERE j.lead_id = l.id"
)
_RUN_COSTS = "costs c WHERE c.run_id = r.id"
_ATTEMPT_COSTS = "costs c WHERE c.attempt_id = a.id"

# Correlated subqueries, so that one page of a million-row view costs one page.
_VIEWS = (
    f"""
    CREATE VIEW lead_spend AS
    SELECT l.id AS lead_id, l.company, l.dm_name, l.email, l.city, l.state,
        (SELECT COUNT(*) FROM jobs j WHERE j.lead_id = l.id) AS jobs,
        (SELECT COUNT(*) FROM jobs j JOIN attempts a ON a.job_id = j.id WHERE j.lead_id = l.id) AS attempts,
        {_usd(_CHARGED, _LEAD_COSTS)} AS charged_usd,
        {_usd(_HELD, _LEAD_COSTS)} AS held_usd,
        (SELECT j.state FROM jobs j WHERE j.lead_id = l.id ORDER BY j.id DESC LIMIT 1) AS last_state,
        (SELECT MAX(j.finished_at) FROM jobs j WHERE j.lead_id = l.id) AS last_result_at
    FROM leads l
    """,
    """
    CREATE VIEW job_timeline AS
    SELECT t.id, t.at, t.job_id, j.lead_id, j.route, t.from_state, t.to_state, t.reason, a.number AS attempt,
        a.remote_job_id, t.run_id
    FROM transitions t JOIN jobs j ON j.id = t.job_id LEFT JOIN attempts a ON a.id = t.attempt_id
    """,
    f"""
    CREATE VIEW spend_by_day AS
    SELECT substr(a.started_at, 1, 10) AS day, COUNT(DISTINCT a.id) AS attempts,
        ROUND({_CHARGED} / 1000000.0, 6) AS charged_usd, ROUND({_HELD} / 1000000.0, 6) AS held_usd
    FROM attempts a JOIN costs c ON c.attempt_id = a.id GROUP BY day
    """,
    f"""
    CREATE VIEW spend_by_route AS
    SELECT j.route, j.mode, COUNT(DISTINCT j.id) AS jobs, COUNT(DISTINCT a.id) AS attempts,
        ROUND({_CHARGED} / 1000000.0, 6) AS charged_usd, ROUND({_HELD} / 1000000.0, 6) AS held_usd
    FROM jobs j JOIN attempts a ON a.job_id = j.id JOIN costs c ON c.attempt_id = a.id
    GROUP BY j.route, j.mode
    """,
    f"""
    CREATE VIEW run_summary AS
    SELECT r.id AS run_id, r.chain_id, r.started_at, r.ended_at, r.stop_reason,
        (SELECT COUNT(*) FROM attempts a WHERE a.run_id = r.id) AS attempts,
        {_usd(_CHARGED, _RUN_COSTS)} AS charged_usd,
        {_usd(_HELD, _RUN_COSTS)} AS held_usd,
        ROUND(r.budget_microusd / 1000000.0, 6) AS budget_usd, r.host, r.pid, r.version
    FROM runs r
    """,
    """
    CREATE VIEW in_doubt AS
    SELECT j.id AS job_id, j.lead_id, l.company, j.route, j.updated_at AS since, j.reason,
        a.number AS attempt, a.started_at AS sent_at, a.http_status, a.error, a.remote_job_id,
        ROUND(a.ceiling_microusd / 1000000.0, 6) AS may_have_cost_usd
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
        LEFT JOIN leads l ON l.id = j.lead_id
    WHERE j.state = 'in_doubt'
    """,
    f"""
    CREATE VIEW claims AS
    SELECT a.id AS attempt_id, j.id AS job_id, j.lead_id, j.route, a.started_at AS sent_at, a.ended_at,
        a.remote_job_id, a.idempotency_key, a.http_status, a.error, j.state, a.evidence,
        {_usd(_CHARGED, _ATTEMPT_COSTS)} AS charged_usd,
        CASE WHEN j.state = 'lost' THEN 'charged or possibly charged, no result'
            ELSE 'charged above the ceiling' END AS claim
    FROM attempts a JOIN jobs j ON j.id = a.job_id
    WHERE a.outcome = 'lost'
        OR EXISTS (SELECT 1 FROM costs c WHERE c.attempt_id = a.id AND c.kind = 'adjust'
            AND c.amount_microusd > 0)
    """,
    """
    CREATE VIEW stuck AS
    SELECT j.id AS job_id, j.lead_id, j.route, j.state, j.reason, j.attempt AS attempts,
        j.updated_at AS since, j.not_before, j.paused_at
    FROM jobs j
    WHERE j.state IN ('submitting', 'waiting', 'in_doubt')
            AND j.updated_at < (SELECT MAX(started_at) FROM runs)
        OR (j.state = 'queued' AND (j.attempt >= 3 OR j.paused_at IS NOT NULL))
    """,
    """
    CREATE VIEW duplicates_avoided AS
    SELECT l.id AS lead_id, l.company, l.email,
        (SELECT COUNT(*) FROM source_rows s WHERE s.lead_id = l.id) - 1 AS rows_not_paid_again
    FROM leads l
    WHERE (SELECT COUNT(*) FROM source_rows s WHERE s.lead_id = l.id) > 1
    """,
)


@migrations()
def m001_the_ledger(db: Database) -> None:
    """Every table, index, guard and view of DESIGN section 4."""
    execute = db.conn.execute
    for statement in (*_TABLES, *_INDEXES):
        execute(statement)
    for step in _ALLOWED.replace("|", "\n").split("\n"):
        if step:
            execute("INSERT INTO allowed_transitions VALUES (?, ?, ?)", step.split())
    for statement in (*_TRIGGERS, *_VIEWS):
        execute(statement)
    execute(f"PRAGMA application_id = {APPLICATION_ID}")
    execute("PRAGMA user_version = 1")


_KINDS = "'retry', 'cancel', 'pause', 'resume', 'resolve', 'suppress'"

_INBOX = (
    # A wish of a person, applied once: its row is written in the transaction that carries it out.
    f"""
    CREATE TABLE intents (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ({_KINDS})),
        body TEXT NOT NULL,
        dropped_at TEXT NOT NULL,
        applied_at TEXT NOT NULL,
        refused INTEGER NOT NULL CHECK (refused IN (0, 1)),
        jobs INTEGER NOT NULL CHECK (jobs >= 0),
        charged_microusd INTEGER NOT NULL CHECK (charged_microusd >= 0),
        outcome TEXT NOT NULL,
        CHECK (refused = 0 OR (jobs = 0 AND charged_microusd = 0))
    ) STRICT
    """,
    "ALTER TABLE deliveries ADD COLUMN delivery_id TEXT",
    "ALTER TABLE deliveries ADD COLUMN correlation TEXT",
    "ALTER TABLE deliveries ADD COLUMN route TEXT",
    # The raw text until it belongs to an attempt; from then on it is one of that attempt's `answers`.
    "ALTER TABLE deliveries ADD COLUMN body TEXT",
    "ALTER TABLE deliveries ADD COLUMN attempt_id INTEGER REFERENCES attempts (id)",
    "CREATE INDEX deliveries_kept ON deliveries (remote_job_id) WHERE applied_at IS NULL",
    (
        "CREATE INDEX deliveries_kept_by_key ON deliveries (correlation) "
        "WHERE applied_at IS NULL AND correlation IS NOT NULL"
    ),
    "CREATE INDEX deliveries_attempt ON deliveries (attempt_id) WHERE attempt_id IS NOT NULL",
    *_append_only("intents", "id = NEW.id"),
    # A delivery is applied once and its text may go (into `answers`, or with the person it is about).
    *_append_only(
        "deliveries",
        "id = NEW.id OR sha256 = NEW.sha256",
        "NOT ("
        + _unchanged(
            "id",
            "received_at",
            "event_type",
            "remote_job_id",
            "sha256",
            "delivery_id",
            "correlation",
            "route",
        )
        + " AND (NEW.body IS OLD.body OR NEW.body IS NULL)"
        + " AND (OLD.applied_at IS NULL OR ("
        + _unchanged("applied_at", "attempt_id", "verdict")
        + ")))",
    ),
)


@migrations()
def m002_the_inbox(db: Database) -> None:
    """What people wish of a locked ledger (`intents`), and deliveries that are kept until they fit."""
    for statement in _INBOX:
        db.conn.execute(statement)
    db.conn.execute("PRAGMA user_version = 2")


@migrations()
def m003_whose_balance(db: Database) -> None:
    """Whose balance was read: two readings of different agents say nothing about each other."""
    db.conn.execute("ALTER TABLE balance_checks ADD COLUMN agent_id TEXT")
    db.conn.execute("PRAGMA user_version = 3")


_LOOKING = (
    # Jobs of one state, newest first: sorting the finished ones of a million takes over a second.
    "CREATE INDEX jobs_by_state ON jobs (state)",
    # Sums by attempt from the index alone: a million leads sorted by what they cost.
    "DROP INDEX costs_attempt",
    ("CREATE INDEX costs_attempt ON costs (attempt_id, kind, amount_microusd) WHERE attempt_id IS NOT NULL"),
)


@migrations()
def m004_looking(db: Database) -> None:
    """Indexes for people who look: the pages of `browse`, lists sorted by a sum."""
    for statement in _LOOKING:
        db.conn.execute(statement)
    db.conn.execute("PRAGMA user_version = 4")


@migrations()
def m005_balances_stay(db: Database) -> None:
    """What the balance was is evidence for what a doubt cost: it is altered no more than the costs are."""
    for statement in _append_only("balance_checks", "id = NEW.id"):
        db.conn.execute(statement)
    db.conn.execute("PRAGMA user_version = 5")
