"""What a run may do, and what it has done so far: the values between the loop and the command line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime

from ledger.store.claims import ClaimRules


@dataclass(frozen=True, slots=True)
class Options:
    """What this run may do."""

    rules: ClaimRules
    in_flight: int = 10_000
    """Jobs at the provider at most (submitting or waiting)."""
    until: datetime | None = None
    """Claim nothing from this time on."""
    limit: int | None = None
    """The selection's `--limit`: a run that sent that many stops as `limit`, not `finished`."""
    balance_microusd: int | None = None
    """The provider's balance when the run began; None when it could not be read."""
    same_key_rounds: int = 0
    """How often doubts are sent once more with their own key: 0 unless the provider is known to honour it."""
    audit: bool = True
    """Work doubts through the quiet balance audit when the rest is done."""
    alone: bool = False
    """The balance is ours alone: a delivered job nobody knows may be matched to the one doubt it fits."""
    smallest_price_microusd: int = 50_000
    """A balance shown more coarsely than this cannot prove anything free."""
    post_deadline_s: float = 60.0
    """The longest a paid POST can be in the air: bounds the drain and adds to the freeze."""


@dataclass(slots=True)
class Progress:
    """What the run has done so far; the command line shows it."""

    phase: str = "starting"
    submitted: int = 0
    submitting: int = 0
    waiting: int = 0
    charged_microusd: int = 0
    final: Counter[str] = field(default_factory=Counter)
    cap: str = ""
    """The cap that stopped a claim last (`budget`, `budget_day`, `budget_lead`, `budget_total`)."""
    note: str = ""
    """Why nothing is being sent right now, if that is so."""
