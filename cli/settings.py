"""Where values come from, in growing strength: `leadledger.toml`, the environment, a flag."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ledger.errors import UsageProblem

KEYS: Final[dict[str, str]] = {
    "db": "the ledger file",
    "log_format": "text or json",
    "base_url": "the provider's address",
    "profile": "a profile file laid over the built-in one",
    "api_key_file": "a file that holds the API key",
    "api_key_command": "a command that prints the API key",
    "route": "the route to ask",
    "mode": "async or sync",
    "budget": "USD a budget chain may spend",
    "budget_day": "USD a UTC day may spend",
    "budget_lead": "USD one lead may cost over the ledger's life",
    "budget_total": "USD the whole ledger may spend",
    "ceiling": "USD one attempt may cost at most",
    "concurrency": "paid POSTs in the air at once",
    "in_flight": "jobs at the provider at once",
    "freeze": "seconds after which a lost POST can no longer act",
    "port": "where `browse` listens",
    "webhook_secret_file": "a file that holds the signing secrets of webhooks",
    "region": "region of phone numbers without a country code",
}
"""What `leadledger.toml` may say: each key is the option of that name; a table `[run]` is for `run` only."""


@dataclass(frozen=True, slots=True)
class Globals:
    """The options before the command."""

    db: Path
    log_format: str


def default_map(path: Path, commands: list[str]) -> dict[str, Any]:
    """Click's `default_map` from a settings file; empty when there is none.

    Raises:
        UsageProblem: The file is not TOML, or says something unknown.
    """
    if not path.exists():
        return {}
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageProblem(f"{path} cannot be read: {error}.") from error
    common = {key: value for key, value in table.items() if not isinstance(value, dict)}
    _check(path, common)
    result: dict[str, Any] = {key: value for key, value in common.items() if key in {"db", "log_format"}}
    for name in commands:
        own = table.get(name, {})
        _check(path, own)
        result[name] = {**common, **own}
    unknown = [key for key, value in table.items() if isinstance(value, dict) and key not in commands]
    if unknown:
        raise UsageProblem(
            f"{path}: there is no command {unknown[0]!r}.", next_step=f"Tables: {', '.join(commands)}."
        )
    return result


def _check(path: Path, values: dict[str, Any]) -> None:
    for key, value in values.items():
        if key not in KEYS:
            raise UsageProblem(
                f"{path}: unknown setting {key!r}.", next_step=f"Settings: {', '.join(sorted(KEYS))}."
            )
        if isinstance(value, dict | list):
            raise UsageProblem(f"{path}: {key} must be one value.")
