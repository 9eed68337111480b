CREATE INDEX answers_attempt ON answers (attempt_id);

CREATE INDEX attempts_run ON attempts (run_id);

CREATE INDEX balance_checks_kind ON balance_checks (kind, id);

CREATE INDEX costs_attempt ON costs (attempt_id, kind, amount_microusd) WHERE attempt_id IS NOT NULL;

CREATE INDEX costs_loose ON costs (kind) WHERE attempt_id IS NULL;

CREATE UNIQUE INDEX costs_once ON costs (attempt_id, kind) WHERE kind IN ('hold', 'charge', 'release');

CREATE INDEX costs_run ON costs (run_id);

CREATE INDEX deliveries_attempt ON deliveries (attempt_id) WHERE attempt_id IS NOT NULL;

CREATE INDEX deliveries_kept ON deliveries (remote_job_id) WHERE applied_at IS NULL;

CREATE INDEX deliveries_kept_by_key ON deliveries (correlation) WHERE applied_at IS NULL AND correlation IS NOT NULL;

CREATE UNIQUE INDEX imports_once ON imports (file_sha256, source, mapping);

CREATE INDEX jobs_by_state ON jobs (state);

CREATE INDEX jobs_later ON jobs (not_before) WHERE state = 'queued' AND not_before IS NOT NULL;

CREATE UNIQUE INDEX jobs_one_open ON jobs (lead_id, route) WHERE state IN ('queued', 'submitting', 'waiting', 'in_doubt');

CREATE INDEX jobs_ready ON jobs (route, priority DESC, id) WHERE state = 'queued' AND paused_at IS NULL AND not_before IS NULL;

CREATE INDEX jobs_state ON jobs (state, route);

CREATE UNIQUE INDEX leads_contact_key ON leads (contact_key) WHERE contact_key IS NOT NULL;

CREATE INDEX leads_email_key ON leads (email_key) WHERE email_key IS NOT NULL;

CREATE INDEX leads_phone_key ON leads (phone_key) WHERE phone_key IS NOT NULL;

CREATE INDEX leads_place_key ON leads (place_key) WHERE place_key IS NOT NULL;

CREATE INDEX source_rows_lead ON source_rows (lead_id) WHERE lead_id IS NOT NULL;

CREATE INDEX transitions_job ON transitions (job_id);

CREATE TABLE allowed_transitions (
        from_state TEXT NOT NULL,
        to_state TEXT NOT NULL,
        reason TEXT NOT NULL,
        PRIMARY KEY (from_state, to_state, reason)
    ) STRICT, WITHOUT ROWID
    ;

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
    ;

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
    ;

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
        at TEXT NOT NULL, agent_id TEXT,
        CHECK ((expected_microusd IS NULL) = (gap_microusd IS NULL))
    ) STRICT
    ;

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
    ;

CREATE TABLE deliveries (
        id INTEGER PRIMARY KEY,
        received_at TEXT NOT NULL,
        event_type TEXT NOT NULL,
        remote_job_id TEXT,
        verdict TEXT,
        sha256 TEXT NOT NULL UNIQUE,
        applied_at TEXT
    , delivery_id TEXT, correlation TEXT, route TEXT, body TEXT, attempt_id INTEGER REFERENCES attempts (id)) STRICT
    ;

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
    ;

CREATE TABLE intents (
        id TEXT PRIMARY KEY,
        kind TEXT NOT NULL CHECK (kind IN ('retry', 'cancel', 'pause', 'resume', 'resolve', 'suppress')),
        body TEXT NOT NULL,
        dropped_at TEXT NOT NULL,
        applied_at TEXT NOT NULL,
        refused INTEGER NOT NULL CHECK (refused IN (0, 1)),
        jobs INTEGER NOT NULL CHECK (jobs >= 0),
        charged_microusd INTEGER NOT NULL CHECK (charged_microusd >= 0),
        outcome TEXT NOT NULL,
        CHECK (refused = 0 OR (jobs = 0 AND charged_microusd = 0))
    ) STRICT
    ;

CREATE TABLE jobs (
        id INTEGER PRIMARY KEY,
        lead_id INTEGER REFERENCES leads (id),
        route TEXT NOT NULL,
        mode TEXT NOT NULL CHECK (mode IN ('async', 'sync', 'batch')),
        request TEXT,
        request_key TEXT NOT NULL,
        generation INTEGER NOT NULL DEFAULT 1 CHECK (generation >= 1),
        state TEXT NOT NULL DEFAULT 'queued' CHECK (state IN ('queued', 'submitting', 'waiting', 'in_doubt', 'matched', 'no_match', 'failed', 'lost', 'skipped', 'cancelled')),
        reason TEXT NOT NULL DEFAULT 'enqueued',
        priority INTEGER NOT NULL DEFAULT 0,
        attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),
        not_before TEXT,
        paused_at TEXT,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        finished_at TEXT,
        UNIQUE (lead_id, route, request_key, generation),
        CHECK ((state IN ('matched', 'no_match', 'failed', 'lost', 'skipped', 'cancelled')) = (finished_at IS NOT NULL))
    ) STRICT
    ;

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
    ;

CREATE TABLE poll_bearers (
        attempt_id INTEGER PRIMARY KEY REFERENCES attempts (id),
        bearer TEXT NOT NULL
    ) STRICT
    ;

CREATE TABLE results (
        job_id INTEGER PRIMARY KEY REFERENCES jobs (id),
        matched INTEGER CHECK (matched IN (0, 1)),
        billed INTEGER CHECK (billed IN (0, 1)),
        cache_hit INTEGER CHECK (cache_hit IN (0, 1)),
        body TEXT,
        received_at TEXT NOT NULL
    ) STRICT
    ;

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
    ;

CREATE TABLE source_rows (
        import_id INTEGER NOT NULL REFERENCES imports (id),
        row_number INTEGER NOT NULL CHECK (row_number >= 1),
        raw TEXT,
        lead_id INTEGER REFERENCES leads (id),
        problem TEXT,
        PRIMARY KEY (import_id, row_number),
        CHECK (lead_id IS NOT NULL OR problem IS NOT NULL)
    ) STRICT, WITHOUT ROWID
    ;

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
    ;

CREATE TRIGGER allowed_transitions_no_delete BEFORE DELETE ON allowed_transitions WHEN 1 BEGIN SELECT RAISE(ABORT, 'allowed_transitions is append-only'); END;

CREATE TRIGGER allowed_transitions_no_replace BEFORE INSERT ON allowed_transitions WHEN EXISTS (SELECT 1 FROM allowed_transitions WHERE from_state = NEW.from_state AND to_state = NEW.to_state AND reason = NEW.reason) BEGIN SELECT RAISE(ABORT, 'allowed_transitions is append-only'); END;

CREATE TRIGGER allowed_transitions_no_update BEFORE UPDATE ON allowed_transitions WHEN 1 BEGIN SELECT RAISE(ABORT, 'allowed_transitions is append-only'); END;

CREATE TRIGGER answers_no_delete BEFORE DELETE ON answers WHEN 1 BEGIN SELECT RAISE(ABORT, 'answers is append-only'); END;

CREATE TRIGGER answers_no_replace BEFORE INSERT ON answers WHEN EXISTS (SELECT 1 FROM answers WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'answers is append-only'); END;

CREATE TRIGGER answers_no_update BEFORE UPDATE ON answers WHEN NOT (NEW.body IS NULL AND NEW.id IS OLD.id AND NEW.attempt_id IS OLD.attempt_id AND NEW.kind IS OLD.kind AND NEW.http_status IS OLD.http_status AND NEW.sha256 IS OLD.sha256 AND NEW.received_at IS OLD.received_at) BEGIN SELECT RAISE(ABORT, 'answers is append-only'); END;

CREATE TRIGGER attempts_no_delete BEFORE DELETE ON attempts WHEN 1 BEGIN SELECT RAISE(ABORT, 'attempts are never deleted'); END;

CREATE TRIGGER attempts_no_replace BEFORE INSERT ON attempts
    WHEN EXISTS (SELECT 1 FROM attempts WHERE id = NEW.id OR (job_id = NEW.job_id AND number = NEW.number)
            OR idempotency_key = NEW.idempotency_key OR remote_job_id = NEW.remote_job_id)
    BEGIN SELECT RAISE(ABORT, 'what was sent never changes'); END;

CREATE TRIGGER attempts_no_update BEFORE UPDATE ON attempts WHEN NOT (NEW.id IS OLD.id AND NEW.job_id IS OLD.job_id AND NEW.number IS OLD.number AND NEW.run_id IS OLD.run_id AND NEW.idempotency_key IS OLD.idempotency_key AND NEW.ceiling_microusd IS OLD.ceiling_microusd AND NEW.started_at IS OLD.started_at AND (OLD.remote_job_id IS NULL OR NEW.remote_job_id IS OLD.remote_job_id) AND NOT EXISTS (SELECT 1 FROM attempts o WHERE o.remote_job_id = NEW.remote_job_id AND o.id <> NEW.id)) BEGIN SELECT RAISE(ABORT, 'what was sent never changes'); END;

CREATE TRIGGER attempts_one_open BEFORE INSERT ON attempts
    WHEN EXISTS (SELECT 1 FROM attempts a WHERE a.job_id = NEW.job_id AND NOT EXISTS
            (SELECT 1 FROM costs c WHERE c.attempt_id = a.id AND c.kind IN ('charge', 'release')))
    BEGIN SELECT RAISE(ABORT, 'an earlier attempt of this job is still open'); END;

CREATE TRIGGER balance_checks_no_delete BEFORE DELETE ON balance_checks WHEN 1 BEGIN SELECT RAISE(ABORT, 'balance_checks is append-only'); END;

CREATE TRIGGER balance_checks_no_replace BEFORE INSERT ON balance_checks WHEN EXISTS (SELECT 1 FROM balance_checks WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'balance_checks is append-only'); END;

CREATE TRIGGER balance_checks_no_update BEFORE UPDATE ON balance_checks WHEN 1 BEGIN SELECT RAISE(ABORT, 'balance_checks is append-only'); END;

CREATE TRIGGER costs_no_delete BEFORE DELETE ON costs WHEN 1 BEGIN SELECT RAISE(ABORT, 'costs is append-only'); END;

CREATE TRIGGER costs_no_replace BEFORE INSERT ON costs WHEN EXISTS (SELECT 1 FROM costs WHERE id = NEW.id OR (attempt_id = NEW.attempt_id AND kind = NEW.kind AND kind IN ('hold', 'charge', 'release'))) BEGIN SELECT RAISE(ABORT, 'costs is append-only'); END;

CREATE TRIGGER costs_no_update BEFORE UPDATE ON costs WHEN 1 BEGIN SELECT RAISE(ABORT, 'costs is append-only'); END;

CREATE TRIGGER costs_within_hold BEFORE INSERT ON costs
    WHEN NEW.kind IN ('charge', 'release') AND NEW.amount_microusd > (
        SELECT COALESCE(SUM(CASE kind WHEN 'hold' THEN amount_microusd
            WHEN 'adjust' THEN 0 ELSE -amount_microusd END), 0)
        FROM costs WHERE attempt_id = NEW.attempt_id)
    BEGIN SELECT RAISE(ABORT, 'charge and release never exceed the hold'); END;

CREATE TRIGGER deliveries_no_delete BEFORE DELETE ON deliveries WHEN 1 BEGIN SELECT RAISE(ABORT, 'deliveries is append-only'); END;

CREATE TRIGGER deliveries_no_replace BEFORE INSERT ON deliveries WHEN EXISTS (SELECT 1 FROM deliveries WHERE id = NEW.id OR sha256 = NEW.sha256) BEGIN SELECT RAISE(ABORT, 'deliveries is append-only'); END;

CREATE TRIGGER deliveries_no_update BEFORE UPDATE ON deliveries WHEN NOT (NEW.id IS OLD.id AND NEW.received_at IS OLD.received_at AND NEW.event_type IS OLD.event_type AND NEW.remote_job_id IS OLD.remote_job_id AND NEW.sha256 IS OLD.sha256 AND NEW.delivery_id IS OLD.delivery_id AND NEW.correlation IS OLD.correlation AND NEW.route IS OLD.route AND (NEW.body IS OLD.body OR NEW.body IS NULL) AND (OLD.applied_at IS NULL OR (NEW.applied_at IS OLD.applied_at AND NEW.attempt_id IS OLD.attempt_id AND NEW.verdict IS OLD.verdict))) BEGIN SELECT RAISE(ABORT, 'deliveries is append-only'); END;

CREATE TRIGGER intents_no_delete BEFORE DELETE ON intents WHEN 1 BEGIN SELECT RAISE(ABORT, 'intents is append-only'); END;

CREATE TRIGGER intents_no_replace BEFORE INSERT ON intents WHEN EXISTS (SELECT 1 FROM intents WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'intents is append-only'); END;

CREATE TRIGGER intents_no_update BEFORE UPDATE ON intents WHEN 1 BEGIN SELECT RAISE(ABORT, 'intents is append-only'); END;

CREATE TRIGGER jobs_allowed_step BEFORE UPDATE OF state ON jobs
    WHEN NEW.state IS NOT OLD.state AND NOT EXISTS (SELECT 1 FROM allowed_transitions
        WHERE from_state = OLD.state AND to_state = NEW.state AND reason = NEW.reason)
    BEGIN SELECT RAISE(ABORT, 'this change of state is not allowed'); END;

CREATE TRIGGER jobs_born_queued BEFORE INSERT ON jobs
    WHEN NEW.state <> 'queued' OR NEW.attempt <> 0
        OR NOT EXISTS (SELECT 1 FROM allowed_transitions
            WHERE from_state = 'new' AND to_state = NEW.state AND reason = NEW.reason)
    BEGIN SELECT RAISE(ABORT, 'a new job is queued, with an allowed reason'); END;

CREATE TRIGGER jobs_no_delete BEFORE DELETE ON jobs WHEN 1 BEGIN SELECT RAISE(ABORT, 'jobs are never deleted'); END;

CREATE TRIGGER jobs_no_replace BEFORE INSERT ON jobs
    WHEN EXISTS (SELECT 1 FROM jobs WHERE id = NEW.id)
        OR EXISTS (SELECT 1 FROM jobs WHERE lead_id = NEW.lead_id AND route = NEW.route
            AND (state IN ('queued', 'submitting', 'waiting', 'in_doubt')
                OR (request_key = NEW.request_key AND generation = NEW.generation)))
    BEGIN SELECT RAISE(ABORT, 'this lead already has that job'); END;

CREATE TRIGGER jobs_no_update BEFORE UPDATE OF id, lead_id, route, request, request_key, generation, created_at ON jobs WHEN NOT (NEW.id IS OLD.id AND NEW.lead_id IS OLD.lead_id AND NEW.route IS OLD.route AND NEW.request_key IS OLD.request_key AND NEW.generation IS OLD.generation AND NEW.created_at IS OLD.created_at AND (NEW.request IS OLD.request OR NEW.request IS NULL)) BEGIN SELECT RAISE(ABORT, 'what a job asks never changes'); END;

CREATE TRIGGER results_no_delete BEFORE DELETE ON results WHEN 1 BEGIN SELECT RAISE(ABORT, 'results is append-only'); END;

CREATE TRIGGER results_no_replace BEFORE INSERT ON results WHEN EXISTS (SELECT 1 FROM results WHERE job_id = NEW.job_id) BEGIN SELECT RAISE(ABORT, 'results is append-only'); END;

CREATE TRIGGER results_no_update BEFORE UPDATE ON results WHEN NOT (NEW.body IS NULL AND NEW.job_id IS OLD.job_id AND NEW.matched IS OLD.matched AND NEW.billed IS OLD.billed AND NEW.cache_hit IS OLD.cache_hit AND NEW.received_at IS OLD.received_at) BEGIN SELECT RAISE(ABORT, 'results is append-only'); END;

CREATE TRIGGER runs_no_delete BEFORE DELETE ON runs WHEN 1 BEGIN SELECT RAISE(ABORT, 'runs are never deleted'); END;

CREATE TRIGGER runs_no_replace BEFORE INSERT ON runs WHEN EXISTS (SELECT 1 FROM runs WHERE id = NEW.id)
    BEGIN SELECT RAISE(ABORT, 'runs are never deleted'); END;

CREATE TRIGGER source_rows_no_delete BEFORE DELETE ON source_rows WHEN 1 BEGIN SELECT RAISE(ABORT, 'source_rows is append-only'); END;

CREATE TRIGGER source_rows_no_replace BEFORE INSERT ON source_rows WHEN EXISTS (SELECT 1 FROM source_rows WHERE import_id = NEW.import_id AND row_number = NEW.row_number) BEGIN SELECT RAISE(ABORT, 'source_rows is append-only'); END;

CREATE TRIGGER source_rows_no_update BEFORE UPDATE ON source_rows WHEN NOT (NEW.raw IS NULL AND NEW.import_id IS OLD.import_id AND NEW.row_number IS OLD.row_number AND NEW.lead_id IS OLD.lead_id AND NEW.problem IS OLD.problem) BEGIN SELECT RAISE(ABORT, 'source_rows is append-only'); END;

CREATE TRIGGER transitions_allowed BEFORE INSERT ON transitions
    WHEN NOT EXISTS (SELECT 1 FROM allowed_transitions
        WHERE from_state = NEW.from_state AND to_state = NEW.to_state AND reason = NEW.reason)
    BEGIN SELECT RAISE(ABORT, 'this change of state is not allowed'); END;

CREATE TRIGGER transitions_no_delete BEFORE DELETE ON transitions WHEN 1 BEGIN SELECT RAISE(ABORT, 'transitions is append-only'); END;

CREATE TRIGGER transitions_no_replace BEFORE INSERT ON transitions WHEN EXISTS (SELECT 1 FROM transitions WHERE id = NEW.id) BEGIN SELECT RAISE(ABORT, 'transitions is append-only'); END;

CREATE TRIGGER transitions_no_update BEFORE UPDATE ON transitions WHEN 1 BEGIN SELECT RAISE(ABORT, 'transitions is append-only'); END;

CREATE VIEW claims AS
    SELECT a.id AS attempt_id, j.id AS job_id, j.lead_id, j.route, a.started_at AS sent_at, a.ended_at,
        a.remote_job_id, a.idempotency_key, a.http_status, a.error, j.state, a.evidence,
        ROUND(COALESCE((SELECT SUM(CASE WHEN c.kind IN ('charge', 'adjust') THEN c.amount_microusd ELSE 0 END) FROM costs c WHERE c.attempt_id = a.id), 0) / 1000000.0, 6) AS charged_usd,
        CASE WHEN j.state = 'lost' THEN 'charged or possibly charged, no result'
            ELSE 'charged above the ceiling' END AS claim
    FROM attempts a JOIN jobs j ON j.id = a.job_id
    WHERE a.outcome = 'lost'
        OR EXISTS (SELECT 1 FROM costs c WHERE c.attempt_id = a.id AND c.kind = 'adjust'
            AND c.amount_microusd > 0);

CREATE VIEW duplicates_avoided AS
    SELECT l.id AS lead_id, l.company, l.email,
        (SELECT COUNT(*) FROM source_rows s WHERE s.lead_id = l.id) - 1 AS rows_not_paid_again
    FROM leads l
    WHERE (SELECT COUNT(*) FROM source_rows s WHERE s.lead_id = l.id) > 1;

CREATE VIEW in_doubt AS
    SELECT j.id AS job_id, j.lead_id, l.company, j.route, j.updated_at AS since, j.reason,
        a.number AS attempt, a.started_at AS sent_at, a.http_status, a.error, a.remote_job_id,
        ROUND(a.ceiling_microusd / 1000000.0, 6) AS may_have_cost_usd
    FROM jobs j JOIN attempts a ON a.job_id = j.id AND a.number = j.attempt
        LEFT JOIN leads l ON l.id = j.lead_id
    WHERE j.state = 'in_doubt';

CREATE VIEW job_timeline AS
    SELECT t.id, t.at, t.job_id, j.lead_id, j.route, t.from_state, t.to_state, t.reason, a.number AS attempt,
        a.remote_job_id, t.run_id
    FROM transitions t JOIN jobs j ON j.id = t.job_id LEFT JOIN attempts a ON a.id = t.attempt_id;

CREATE VIEW lead_spend AS
    SELECT l.id AS lead_id, l.company, l.dm_name, l.email, l.city, l.state,
        (SELECT COUNT(*) FROM jobs j WHERE j.lead_id = l.id) AS jobs,
        (SELECT COUNT(*) FROM jobs j JOIN attempts a ON a.job_id = j.id WHERE j.lead_id = l.id) AS attempts,
        ROUND(COALESCE((SELECT SUM(CASE WHEN c.kind IN ('charge', 'adjust') THEN c.amount_microusd ELSE 0 END) FROM jobs j JOIN attempts a ON a.job_id = j.id JOIN costs c ON c.attempt_id = a.id WHERE j.lead_id = l.id), 0) / 1000000.0, 6) AS charged_usd,
        ROUND(COALESCE((SELECT SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'charge' THEN -c.amount_microusd WHEN 'release' THEN -c.amount_microusd ELSE 0 END) FROM jobs j JOIN attempts a ON a.job_id = j.id JOIN costs c ON c.attempt_id = a.id WHERE j.lead_id = l.id), 0) / 1000000.0, 6) AS held_usd,
        (SELECT j.state FROM jobs j WHERE j.lead_id = l.id ORDER BY j.id DESC LIMIT 1) AS last_state,
        (SELECT MAX(j.finished_at) FROM jobs j WHERE j.lead_id = l.id) AS last_result_at
    FROM leads l;

CREATE VIEW run_summary AS
    SELECT r.id AS run_id, r.chain_id, r.started_at, r.ended_at, r.stop_reason,
        (SELECT COUNT(*) FROM attempts a WHERE a.run_id = r.id) AS attempts,
        ROUND(COALESCE((SELECT SUM(CASE WHEN c.kind IN ('charge', 'adjust') THEN c.amount_microusd ELSE 0 END) FROM costs c WHERE c.run_id = r.id), 0) / 1000000.0, 6) AS charged_usd,
        ROUND(COALESCE((SELECT SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'charge' THEN -c.amount_microusd WHEN 'release' THEN -c.amount_microusd ELSE 0 END) FROM costs c WHERE c.run_id = r.id), 0) / 1000000.0, 6) AS held_usd,
        ROUND(r.budget_microusd / 1000000.0, 6) AS budget_usd, r.host, r.pid, r.version
    FROM runs r;

CREATE VIEW spend_by_day AS
    SELECT substr(a.started_at, 1, 10) AS day, COUNT(DISTINCT a.id) AS attempts,
        ROUND(SUM(CASE WHEN c.kind IN ('charge', 'adjust') THEN c.amount_microusd ELSE 0 END) / 1000000.0, 6) AS charged_usd, ROUND(SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'charge' THEN -c.amount_microusd WHEN 'release' THEN -c.amount_microusd ELSE 0 END) / 1000000.0, 6) AS held_usd
    FROM attempts a JOIN costs c ON c.attempt_id = a.id GROUP BY day;

CREATE VIEW spend_by_route AS
    SELECT j.route, j.mode, COUNT(DISTINCT j.id) AS jobs, COUNT(DISTINCT a.id) AS attempts,
        ROUND(SUM(CASE WHEN c.kind IN ('charge', 'adjust') THEN c.amount_microusd ELSE 0 END) / 1000000.0, 6) AS charged_usd, ROUND(SUM(CASE c.kind WHEN 'hold' THEN c.amount_microusd WHEN 'charge' THEN -c.amount_microusd WHEN 'release' THEN -c.amount_microusd ELSE 0 END) / 1000000.0, 6) AS held_usd
    FROM jobs j JOIN attempts a ON a.job_id = j.id JOIN costs c ON c.attempt_id = a.id
    GROUP BY j.route, j.mode;

CREATE VIEW stuck AS
    SELECT j.id AS job_id, j.lead_id, j.route, j.state, j.reason, j.attempt AS attempts,
        j.updated_at AS since, j.not_before, j.paused_at
    FROM jobs j
    WHERE j.state IN ('submitting', 'waiting', 'in_doubt')
            AND j.updated_at < (SELECT MAX(started_at) FROM runs)
        OR (j.state = 'queued' AND (j.attempt >= 3 OR j.paused_at IS NOT NULL));

