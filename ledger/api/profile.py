"""The provider as settings: routes, prices, words and places. `profile_411data.toml` explains every key.

Nothing of the provider is hard-coded elsewhere, because nearly everything of it is assumed (provider
notes, section 14) and a user must be able to correct it with `--profile FILE`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.api.settings import (
    Count,
    FieldMap,
    Groups,
    Microusd,
    Names,
    Seconds,
    Span,
    bad_key,
    build,
    merged,
    read_toml,
)
from ledger.errors import UsageProblem
from ledger.model import LEAD_FIELDS
from ledger.money import usd
from ledger.policy import Policy
from ledger.states import ROUTES, full_route

DEFAULT_FILE: Final = Path(__file__).with_name("profile_411data.toml")


@dataclass(frozen=True, slots=True)
class Paths:
    """Paths below the API prefix; `{job_id}` and `{route}` are filled in."""

    submit: str
    poll: str
    sync: str
    balance: str


@dataclass(frozen=True, slots=True)
class Ceiling:
    """What an async job may cost at most: default and allowed range, in micro-dollars."""

    default_microusd: Microusd
    min_microusd: Microusd
    max_microusd: Microusd


@dataclass(frozen=True, slots=True)
class Limits:
    """Our patience with one call, in seconds, and the size of what we read."""

    connect_s: Seconds
    submit_total_s: Seconds
    sync_total_s: Seconds
    poll_total_s: Seconds
    poll_connections: Count
    body_bytes_max: Count


@dataclass(frozen=True, slots=True)
class Lacks:
    """The lead has none of what the route needs: each entry would do (`street+zip`: both together)."""

    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Route:
    """One thing that can be asked, and how a lead becomes its request."""

    mode: str
    modes: Names
    price_microusd: Microusd
    latency_s: Span
    wrap: str
    needs: Groups
    request: FieldMap

    def request_for(self, lead: Mapping[str, str | None]) -> dict[str, Any] | Lacks:
        """The payload for a lead: its fields under the provider's names, empty ones left out."""
        if not any(all(lead.get(name) for name in group) for group in self.needs):
            return Lacks(tuple("+".join(group) for group in self.needs))
        payload = {theirs: value for theirs, ours in self.request.items() if (value := lead.get(ours))}
        return {self.wrap: payload} if self.wrap else payload


@dataclass(frozen=True, slots=True)
class Words:
    """The provider's state words, in lower case, and the 402 codes that refuse the key."""

    done: Names
    failed: Names
    running: Names
    not_allowed: Names


@dataclass(frozen=True, slots=True)
class Places:
    """Where each thing is looked for in an answer, in order; `once` names keys that may not repeat."""

    job_id: Names
    bearer: Names
    billing_mode: Names
    state: Names
    result: Names
    matched: Names
    billed: Names
    cache_hit: Names
    cost: Names
    refunded: Names
    ceiling: Names
    error: Names
    error_code: Names
    error_message: Names
    billing_reason: Names
    balance: Names
    agent_id: Names
    once: Names


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Where a webhook delivery says what it is about, in order, and which events mean that a job is final."""

    event: Names
    job: Names
    route: Names
    correlation: Names
    final: Names


@dataclass(frozen=True, slots=True)
class Profile:
    """Everything settable about the provider."""

    name: str
    base_url: str
    api_prefix: str
    honours_idempotency_key: bool
    sends_idempotency_key: bool
    correlation: bool
    balance_exclusive: bool
    freeze_s: Seconds
    refund_settle_s: Seconds
    job_deadline_s: Seconds
    paths: Paths
    ceiling: Ceiling
    limits: Limits
    routes: dict[str, Route]
    words: Words
    places: Places
    deliveries: Deliveries

    @classmethod
    def load(cls, path: Path | None = None) -> Profile:
        """The built-in profile, with what the file at `path` sets laid over it.

        Raises:
            UsageProblem: The file cannot be read, or a key in it is unknown or not what it must be.
        """
        table = read_toml(DEFAULT_FILE)
        if path is not None:
            table = merged(table, read_toml(path), whole=frozenset({"request"}))
        profile = build(cls, table)
        _check(profile)
        return profile

    def route(self, name: str) -> Route:
        """The route of that name, in full or short.

        Raises:
            UsageProblem: There is no such route.
        """
        found = self.routes.get(full_route(name))
        if found is None:
            known = ", ".join(self.routes)
            raise UsageProblem(f"There is no route {name!r}.", next_step=f"Routes: {known}.")
        return found

    def request_for(self, route: str, lead: Mapping[str, str | None]) -> dict[str, Any] | Lacks:
        """The payload that asks `route` about a lead (canonical fields), or what the lead lacks."""
        return self.route(route).request_for(lead)

    def mode_for(self, route: str, asked: str | None = None) -> str:
        """`asked`, or the route's own mode.

        Raises:
            UsageProblem: The route is not offered in the mode asked for.
        """
        known = self.route(route)
        if asked is not None and asked not in known.modes:
            raise UsageProblem(
                f"{full_route(route)} is not offered {asked}, only {' or '.join(known.modes)}."
            )
        return asked or known.mode

    def ceiling_for(self, route: str, mode: str, asked_microusd: int | None = None) -> int:
        """The ceiling of one attempt in micro-dollars: what is asked, else async the default, sync the price.

        Raises:
            UsageProblem: What is asked is outside the provider's range, or below a sync call's fixed price.
        """
        if mode == "async":
            low, high = self.ceiling.min_microusd, self.ceiling.max_microusd
            ceiling = self.ceiling.default_microusd if asked_microusd is None else asked_microusd
        else:
            low, high = self.route(route).price_microusd, self.ceiling.max_microusd
            ceiling = low if asked_microusd is None else asked_microusd
        if not low <= ceiling <= max(low, high):
            raise UsageProblem(
                f"A ceiling of {usd(ceiling)} cannot be kept on {full_route(route)} ({mode}).",
                next_step=f"It must be between {usd(low)} and {usd(max(low, high))}.",
            )
        return ceiling

    def deadline_s(self, mode: str) -> float:
        """How long one paid POST may take at most, in seconds, before we give it up as doubtful."""
        return self.limits.submit_total_s if mode == "async" else self.limits.sync_total_s

    def policy(self, **overrides: Any) -> Policy:
        """The runner's numbers as this profile has them; `overrides` are fields of `Policy`."""
        policy = Policy(
            freeze_s=self.freeze_s,
            refund_settle_s=self.refund_settle_s,
            job_deadline_s=self.job_deadline_s,
            latency_s={name: route.latency_s for name, route in self.routes.items()},
        )
        return dataclasses.replace(policy, **overrides)


def canonical_json(payload: Any) -> str:
    """JSON text that is the same for equal payloads: keys sorted, compact, not escaped to ASCII."""
    return json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def request_key(payload: Any) -> str:
    """What makes two requests the same question: SHA-256 of the canonical payload, in hex."""
    return hashlib.sha256(canonical_json(payload).encode()).hexdigest()


def _check(profile: Profile) -> None:
    if not profile.api_prefix.startswith("/"):
        raise bad_key("api_prefix", 'a path that begins with "/"')
    if "{job_id}" not in profile.paths.poll:
        raise bad_key("paths.poll", "a path with {job_id} in it")
    if "{route}" not in profile.paths.sync:
        raise bad_key("paths.sync", "a path with {route} in it")
    if not all(path.startswith("/") for path in dataclasses.astuple(profile.paths)):
        raise bad_key("paths", 'paths that begin with "/"')
    limits = profile.limits
    if not all((limits.connect_s, limits.submit_total_s, limits.sync_total_s, limits.poll_total_s)):
        raise bad_key("limits", "seconds above 0")
    ceiling = profile.ceiling
    if not 0 < ceiling.min_microusd <= ceiling.default_microusd <= ceiling.max_microusd:
        raise bad_key("ceiling", "amounts with 0 < min_usd <= default_usd <= max_usd")
    for name, route in profile.routes.items():
        _check_route(name, route)


def _check_route(name: str, route: Route) -> None:
    if name not in ROUTES:
        raise bad_key("routes", f"tables named {', '.join(ROUTES)}")
    if not route.modes or not set(route.modes) <= {"async", "sync"}:
        raise bad_key(f'routes."{name}".modes', '"async", "sync" or both')
    if route.mode not in route.modes:
        raise bad_key(f'routes."{name}".mode', f"one of its modes, {' or '.join(route.modes)}")
    ours = {*route.request.values(), *(field for group in route.needs for field in group)}
    if not ours <= set(LEAD_FIELDS):
        raise bad_key(f'routes."{name}"', f"made of lead fields: {', '.join(LEAD_FIELDS)}")
