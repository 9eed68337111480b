"""Everything that can be set, as JSON. Each default is what section 14 of the provider notes assumes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self
from urllib.parse import urlsplit

from ledger.sandbox.dollars import to_microusd
from ledger.sandbox.faults import check_names

ROUTES: Final = ("enrich/phone", "enrich/person", "enrich/websearch", "enrich/lead-session")
SHAPES: Final = ("fixed", "uniform", "exponential", "lognormal", "bimodal")
ENDPOINTS: Final = ("submit", "sync", "poll", "balance", "me")
"""The endpoints that can be made slow; `/sandbox/…` always answers at once."""
NOT_NEGATIVE: Final = (
    "speed",
    "answer_ms",
    "rate_per_s",
    "max_posts_at_once",
    "max_open_jobs",
    "late_accept_s",
    "refund_late_s",
    "unknown_word_polls",
    "slow_byte_ms",
    "delivery_late_s",
)
FROZEN: Final = ("seed", "opening_usd", "start_s")
"""Changing these in mid-run would make the books contradict themselves."""


class Latency(NamedTuple):
    """How long a route works, in virtual seconds. JSON: a list, such as `["uniform", 5, 30]`."""

    shape: str
    """`fixed` S · `uniform` LOW HIGH · `exponential` MEAN · `lognormal` MEDIAN SIGMA · `bimodal` FAST SLOW
    SHARE (the share of slow ones; each mode spreads by a fifth)."""
    first: float
    second: float = 0.0
    share: float = 0.0


PRICES_USD: Final = {
    "enrich/phone": "0.33",
    "enrich/person": "0.50",
    "enrich/websearch": "1.00",
    "enrich/lead-session": "1.50",
}
LATENCY_S: Final = {
    "enrich/phone": Latency("uniform", 1, 3),
    "enrich/person": Latency("uniform", 1, 3),
    "enrich/websearch": Latency("uniform", 5, 30),
    "enrich/lead-session": Latency("uniform", 30, 180),
}
WORDS: Final = {"queued": "queued", "running": "running", "completed": "completed", "failed": "failed"}
CHOICES: Final = {
    "result_at": ("result", "data", "output", "body"),
    "flags_in": ("result", "body", "absent"),
    "cost_in": ("body", "result"),
    "money_as": ("number", "text", "noisy"),
    "error_shape": ("flat", "error", "detail"),
}


@dataclass(frozen=True, slots=True)
class Speech:
    """The shapes of the answers: what the pages leave open, and every way we can imagine it."""

    state_field: str = "status"
    words: Mapping[str, str] = field(default_factory=dict)
    """What `queued`, `running`, `completed` and `failed` are called; unnamed ones keep their name."""
    unknown_word: str = "marinating"
    result_at: str = "result"
    """`result`, `data`, `output`, or `body`: beside the job id."""
    flags_in: str = "result"
    """Where `matched`, `billed`, `cache_hit` are: `result`, `body` (beside the result), `absent`."""
    cost_field: str = "charged_usd"
    """Empty: no answer states its cost."""
    refund_field: str = "refunded_usd"
    """Empty: no answer states its refund."""
    cost_in: str = "body"
    sync_states_cost: bool = True
    money_as: str = "number"
    """`number`, `text`, or `noisy` (a number with a float's last digit wrong)."""
    error_shape: str = "flat"
    """`flat` {code, message} · `error` {error: {…}} · `detail` {detail: {…}}."""
    balance_field: str = "virtual_balance_usd"
    balance_decimals: int = 6

    def __post_init__(self) -> None:
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"speech.{name} is one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if set(self.words) - set(WORDS):
            raise ValueError(f"speech.words knows only {', '.join(WORDS)}")
        if not 0 <= self.balance_decimals <= 6:
            raise ValueError("speech.balance_decimals is 0 to 6")
        object.__setattr__(self, "words", {**WORDS, **self.words})


@dataclass(frozen=True, slots=True)
class Settings:
    """One sandbox. Money is text in dollars, times are virtual seconds unless the name says `_ms` (real).

    Raises:
        ValueError: On construction, with a sentence about the field that will not do.
    """

    seed: int = 0
    opening_usd: str = "10000"
    start_s: float = 1_767_225_600.0
    """Virtual seconds since 1970 at the start: 2026-01-01, fixed so that two runs tell the same times."""
    speed: float = 1.0
    agent_id: str = "agent_sandbox"
    keys: tuple[str, ...] = ()
    """The account keys accepted; none named: any that starts with `411_` or `411k_`."""
    revoked_keys: tuple[str, ...] = ()
    account_key_polls: bool = True
    """Whether a job may be polled with an account key instead of its own bearer."""
    match_rate: float = 0.72
    prices_usd: Mapping[str, str] = field(default_factory=dict)
    cost_spread: tuple[float, float] = (0.5, 1.1)
    """An async job costs its price times something between these, never above its ceiling."""
    sync_true_up: bool = False
    """Whether a sync lead-session may cost more than the price it was pre-charged."""
    default_ceiling_usd: str = "1.50"
    max_ceiling_usd: str = "50"
    latency_s: Mapping[str, Latency] = field(default_factory=dict)
    answer_ms: float = 0.0
    """Real milliseconds before each HTTP answer."""
    answer_ms_of: Mapping[str, float] = field(default_factory=dict)
    """The same for single endpoints: `submit`, `sync`, `poll`, `balance`, `me`."""
    async_routes: tuple[str, ...] = ("enrich/websearch", "enrich/lead-session")
    required_fields: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Route -> payload fields without which it answers 422; no page states any."""
    honours_keys: bool = False
    """Whether a repeated `Idempotency-Key` gets the first answer again, without a second charge."""
    cache: str = "off"
    """A repeated payload that matched before: `off` (worked again), `free`, or `billed` (`cache_hit`)."""
    rate_per_s: float = 0.0
    """Requests a real second before 429; 0: no limit."""
    rate_burst: int = 10
    limit_polls: bool = True
    """Whether polls count towards `rate_per_s`."""
    max_posts_at_once: int = 0
    """Paid POSTs in the air before 429; 0: no limit."""
    max_open_jobs: int = 0
    """Accepted and unfinished jobs before 429; 0: no limit."""
    retry_after: str = "seconds"
    """`seconds`, `date` (HTTP date), `absent`; any other text is sent as it is (`nonsense`, `-1`)."""
    faults: Mapping[str, float] = field(default_factory=dict)
    fault_limits: Mapping[str, int] = field(default_factory=dict)
    """Fault -> how often it may fire at most."""
    late_accept_s: float = 5.0
    refund_late_s: float = 30.0
    unknown_word_polls: int = 2
    slow_byte_ms: float = 50.0
    balance_wrong_usd: str = "1.00"
    deliveries: bool = False
    """Whether a finished async job is pushed as a signed webhook delivery."""
    signing_secret: str = "ech_sandbox"  # noqa: S105 - the sandbox's own, shown to whoever asks
    callback_url: str = ""
    """Where deliveries are POSTed; http on loopback only. Empty: they only stand in /sandbox/deliveries."""
    delivery_shape: str = "flat"
    """`flat`: the job beside the event · `data`: inside `data` · `bare`: only its id."""
    delivery_late_s: float = 30.0
    speech: Speech = field(default_factory=Speech)

    def __post_init__(self) -> None:
        fill = object.__setattr__
        fill(self, "prices_usd", {**PRICES_USD, **self.prices_usd})
        fill(self, "latency_s", {**LATENCY_S, **{r: Latency(*shape) for r, shape in self.latency_s.items()}})
        fill(self, "required_fields", {r: tuple(names) for r, names in self.required_fields.items()})
        for name in ("keys", "revoked_keys", "async_routes", "cost_spread"):
            fill(self, name, tuple(getattr(self, name)))
        self._check()

    def _check(self) -> None:
        check_names(self.faults)
        check_names(self.fault_limits)
        self._check_numbers()
        for route, shape in self.latency_s.items():
            if shape.shape not in SHAPES or min(shape.first, shape.second) < 0:
                raise ValueError(f"latency_s of {route}: one of {', '.join(SHAPES)}, and times of 0 or more")
        routes = {*self.prices_usd, *self.latency_s, *self.async_routes, *self.required_fields}
        if routes - set(ROUTES):
            raise ValueError(f"no such route: {', '.join(sorted(routes - set(ROUTES)))}")
        if set(self.answer_ms_of) - set(ENDPOINTS):
            raise ValueError(f"answer_ms_of knows only {', '.join(ENDPOINTS)}")
        if self.delivery_shape not in ("flat", "data", "bare"):
            raise ValueError("delivery_shape is one of flat, data, bare")
        if self.callback_url and not _on_loopback(self.callback_url):
            raise ValueError("callback_url is an http URL on loopback")
        if self.cache not in ("off", "free", "billed"):
            raise ValueError("cache is one of off, free, billed")

    def _check_numbers(self) -> None:
        for name, rate in {**self.faults, "match_rate": self.match_rate}.items():
            if not 0 <= rate <= 1:
                raise ValueError(f"{name} is a probability between 0 and 1, not {rate!r}")
        own = (self.opening_usd, self.default_ceiling_usd, self.max_ceiling_usd, self.balance_wrong_usd)
        for amount in (*self.prices_usd.values(), *own):
            if to_microusd(amount) < 0:
                raise ValueError(f"an amount is not negative: {amount!r}")
        for name in NOT_NEGATIVE:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is not negative")
        if any(wait_ms < 0 for wait_ms in self.answer_ms_of.values()):
            raise ValueError("answer_ms_of is not negative")
        if self.rate_burst < 1 or len(self.cost_spread) != 2 or min(self.cost_spread) < 0:
            raise ValueError("rate_burst is at least 1 and cost_spread two numbers of 0 or more")

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back to an equal value."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The settings in a JSON object; fields that are not named keep their default.

        Raises:
            ValueError: Not a JSON object, an unknown field, or a value that will not do.
        """
        return cls._from_fields(json.loads(text))

    def changed(self, changes: object) -> Self:
        """These settings with some fields replaced (`faults` and other tables as a whole).

        Raises:
            ValueError: As `from_json`; also for `seed`, `opening_usd` and `start_s`, which stay.
        """
        fields = _fields_of(type(self), changes)
        if set(fields) & set(FROZEN):
            raise ValueError(f"fixed for the life of a sandbox: {', '.join(FROZEN)}")
        return self._from_fields({**dataclasses.asdict(self), **fields})

    @classmethod
    def _from_fields(cls, given: object) -> Self:
        fields = _fields_of(cls, given)
        try:
            if "speech" in fields:
                fields["speech"] = Speech(**_fields_of(Speech, fields["speech"]))
            return cls(**fields)
        except (TypeError, AttributeError) as error:
            raise ValueError(f"a setting has the wrong type: {error}") from None


def _on_loopback(url: str) -> bool:
    try:
        where = urlsplit(url)
        host, port = where.hostname, where.port
    except ValueError:
        return False
    return where.scheme == "http" and host in {"127.0.0.1", "::1", "localhost"} and bool(port)


def _fields_of(cls: type, given: object) -> dict[str, Any]:
    if not isinstance(given, Mapping):
        raise ValueError(f"{cls.__name__} is a JSON object")  # noqa: TRY004 - callers catch one error
    unknown = sorted(set(given) - {field.name for field in dataclasses.fields(cls)})
    if unknown:
        raise ValueError(f"{cls.__name__} has no {', '.join(unknown)}")
    return dict(given)
