"""What is always true of what came in from outside a run: deliveries, and what people asked anew."""

from __future__ import annotations

from typing import Final

from ledger.store.invariants import Invariant

INBOX: Final = (
    Invariant(
        "deliveries_settle_their_own_attempt",
        "A delivery is applied only to the attempt that it names.",
        """
        SELECT d.id AS delivery_id, d.attempt_id, d.remote_job_id, a.remote_job_id AS remote_id_of_attempt
        FROM deliveries d JOIN attempts a ON a.id = d.attempt_id
        WHERE CASE WHEN d.remote_job_id IS NULL THEN d.correlation IS NOT a.idempotency_key
            ELSE d.remote_job_id IS NOT a.remote_job_id END
        """,
    ),
    Invariant(
        "delivery_evidence_has_its_delivery",
        "A step that a delivery is the evidence for has that delivery, applied to the same attempt.",
        """
        SELECT t.id AS transition_id, t.job_id, t.attempt_id FROM transitions t
        WHERE t.reason = 'delivery_evidence'
            AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.attempt_id = t.attempt_id)
        """,
    ),
    Invariant(
        "deliveries_are_applied_or_kept",
        "A delivery has an attempt from the moment it is applied, and its text until then.",
        """
        SELECT id AS delivery_id, attempt_id, applied_at FROM deliveries
        WHERE (attempt_id IS NULL) <> (applied_at IS NULL) OR (applied_at IS NOT NULL AND body IS NOT NULL)
        """,
    ),
    Invariant(
        "generations_follow_each_other",
        "A job is asked again, by a retry or a resend, only once the one before is final.",
        """
        SELECT j.id AS job_id, j.generation, p.id AS before, p.state FROM jobs j
            LEFT JOIN jobs p ON p.lead_id = j.lead_id AND p.route = j.route
                AND p.request_key = j.request_key AND p.generation = j.generation - 1
        WHERE j.generation > 1 AND NOT EXISTS (SELECT 1 FROM transitions t
            WHERE t.job_id = p.id AND t.at <= j.created_at
                AND t.to_state IN ('matched', 'no_match', 'failed', 'lost', 'skipped', 'cancelled'))
        """,
    ),
)
