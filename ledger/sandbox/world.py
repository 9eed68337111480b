"""What becomes of a submission, from the seed and its payload alone: ids, latency, match, cost, result."""

from __future__ import annotations

import hashlib
import json
import math
from statistics import NormalDist
from typing import Any, Final, NamedTuple

from ledger.sandbox.dollars import to_microusd
from ledger.sandbox.faults import draw
from ledger.sandbox.settings import Latency, Settings

COST_STEP_MICROUSD: Final = 100
"""Vendors bill in hundredths of a cent, so a client that rounds to cents is caught."""
_NORMAL: Final = NormalDist()


class Fate(NamedTuple):
    """What the world does with one payload on one route."""

    latency_s: float
    matched: bool
    cost_microusd: int
    """What a match costs before any ceiling."""


def canonical(payload: dict[str, Any]) -> str:
    """The payload as compact JSON with sorted keys."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"))


def correlation(payload: dict[str, Any]) -> str | None:
    """The correlation value (`source_ref`) a client put into the payload or its lead."""
    lead = payload.get("lead")
    value = lead.get("source_ref") if isinstance(lead, dict) else None
    value = payload.get("source_ref") if value is None else value
    return value if isinstance(value, str) else None


def fingerprint(payload: dict[str, Any]) -> str:
    """SHA-256 of the canonical payload without correlation values: a fresh one must not hide a duplicate."""
    bare = {name: value for name, value in payload.items() if name != "source_ref"}
    lead = bare.get("lead")
    if isinstance(lead, dict):
        bare["lead"] = {name: value for name, value in lead.items() if name != "source_ref"}
    return hashlib.sha256(canonical(bare).encode()).hexdigest()


def identities(seed: int, key: str) -> tuple[str, str]:
    """Job id and poll bearer of the submission `key`."""
    digest = hashlib.blake2b(f"{seed}|{key}".encode(), digest_size=28).hexdigest()
    return f"job_{digest[:24]}", f"pb_{digest[24:]}"


def fate(settings: Settings, route: str, payload_sha256: str) -> Fate:
    """What happens to this payload on this route; the same for every submission of it."""
    key = (settings.seed, route, payload_sha256)
    low, high = settings.cost_spread
    factor = low + (high - low) * draw(*key, "cost")
    steps = round(to_microusd(settings.prices_usd[route]) * factor / COST_STEP_MICROUSD)
    return Fate(
        latency_s=latency(settings.latency_s[route], draw(*key, "latency"), draw(*key, "mode")),
        matched=draw(*key, "match") < settings.match_rate,
        cost_microusd=steps * COST_STEP_MICROUSD,
    )


def latency(shape: Latency, at: float, mode: float) -> float:
    """Seconds at the quantile `at` of the distribution; `mode` chooses between the two of `bimodal`."""
    match shape.shape:
        case "uniform":
            return shape.first + (shape.second - shape.first) * at
        case "exponential":
            return -shape.first * math.log1p(-at)
        case "lognormal":
            return shape.first * math.exp(shape.second * _NORMAL.inv_cdf(max(at, 1e-12)))
        case "bimodal":
            return (shape.second if mode < shape.share else shape.first) * (0.9 + 0.2 * at)
        case _:
            return shape.first


def findings(route: str, payload_sha256: str) -> dict[str, Any]:
    """The part of a result that says what was found: invented, and the same for the same payload."""
    number = int(payload_sha256[:8], 16)
    # 555-0100 to 555-0199 and example.com are reserved for fiction: nobody is called or written to.
    phone = {"type": "phone", "value": f"+1{200 + number % 800}555{100 + number % 100:04d}"}
    email = {"type": "email", "value": f"owner{number % 100_000}@example.com"}
    if route == "enrich/phone":
        return {"entities": [phone]}
    if route == "enrich/person":
        return {"entities": [phone, email]}
    summary = f"Found one phone number and one address for record {payload_sha256[:8]}."
    return {"summary_markdown": summary, "entities": [phone, email]}
