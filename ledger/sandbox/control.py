"""`/sandbox/…`: the side door for tests: books, deliveries, top-ups, time, settings. No key is asked for."""

from __future__ import annotations

import json
import math
from typing import Any

from ledger.sandbox import speech
from ledger.sandbox.dollars import to_microusd
from ledger.sandbox.provider import Provider
from ledger.sandbox.report import report
from ledger.sandbox.wire import Answer, Request, json_answer


def control(provider: Provider, request: Request) -> Answer:
    """Answer a request below `/sandbox/`."""
    match request.method, request.path.removeprefix("/sandbox/"):
        case "GET", "books":
            return json_answer(200, report(provider, submissions="submissions=0" not in request.query))
        case "GET", "deliveries":
            return json_answer(200, {"deliveries": [one.shown() for one in provider.hooks.pushed]})
        case "GET", "settings":
            return _settings(provider)
        case "POST", "top-up":
            step = _top_up
        case "POST", "advance":
            step = _advance
        case "POST", "reset":
            step = _reset
        case "POST" | "PATCH", "settings":
            step = _change
        case _:
            return speech.error(provider.settings.speech, 404, "NOT_FOUND", "no such page in the sandbox")
    try:
        return step(provider, json.loads(request.body))
    except (ValueError, RecursionError) as wrong:
        return speech.invalid((), str(wrong))


def _top_up(provider: Provider, body: Any) -> Answer:
    amount = to_microusd(_field(body, "usd"))
    if amount < 0:
        raise ValueError("a top-up is not negative")
    provider.books.top_up(amount, provider.clock.now())
    return json_answer(200, {"balance_microusd": provider.books.balance_microusd})


def _advance(provider: Provider, body: Any) -> Answer:
    seconds = _field(body, "seconds")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        raise ValueError("seconds is a number of 0 or more")
    provider.clock.advance(seconds)
    provider.catch_up()
    return json_answer(200, {"now_s": provider.clock.now()})


def _reset(provider: Provider, body: Any) -> Answer:
    del body
    provider.reset()
    return json_answer(200, {"balance_microusd": provider.books.balance_microusd})


def _change(provider: Provider, body: Any) -> Answer:
    provider.configure(provider.settings.changed(body))
    return _settings(provider)


def _settings(provider: Provider) -> Answer:
    return Answer(200, provider.settings.to_json().encode())


def _field(body: Any, name: str) -> Any:
    if not isinstance(body, dict) or name not in body:
        raise ValueError(f"field required: {name}")
    return body[name]
