"""Putting the parts together: the ledger with its migrations, the client with its key and profile."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.clock import Clock
from ledger.errors import UsageProblem
from ledger.events import Secret
from ledger.policy import Policy
from ledger.store.ledger import Ledger
from ledger.store.read import Reader
from ledger.store.selection import Selection

if TYPE_CHECKING:
    from ledger.api.profile import Profile

TYPE_LIMIT = 4096
"""A key is never longer than this."""


def open_ledger(
    path: Path,
    purpose: str,
    clock: Clock,
    policy: Policy | None = None,
    *,
    profile: Profile | None = None,
    create: bool = False,
) -> Ledger:
    """The ledger, ours alone to write. Only with `create` is one made where there is none.

    Only with a profile can it read webhook deliveries; else they stay in the inbox.

    Raises:
        LedgerFileProblem: There is none, or an empty file: a mistyped --db must not look like a night with
            nothing to do.
    """
    if not create:
        with Reader(path):
            pass  # it says what is not there
    from ledger.migrations.migrations import migrations

    read = None
    if profile is not None:
        from ledger.api.delivery import read_delivery

        read = partial(read_delivery, profile)
    return Ledger(path, purpose, clock=clock, migrations=migrations, policy=policy, read_delivery=read)


def api_key(file: Path | None, command: str | None) -> Secret:
    """The API key from `--api-key-file`, `LEADLEDGER_API_KEY` or `api_key_command`.

    Raises:
        UsageProblem: There is none, or where it should be cannot be read.
    """
    key = _from_file(file) if file is not None else os.environ.get("LEADLEDGER_API_KEY", "")
    if not key and command:
        key = _from_command(command)
    key = key.strip()
    if not key:
        raise UsageProblem(
            "There is no API key.",
            next_step="Set LEADLEDGER_API_KEY, or use --api-key-file FILE (- for stdin), or api_key_command "
            "in leadledger.toml. `leadledger demo` needs none.",
        )
    if not (key.isascii() and key.isprintable()) or " " in key or len(key) > TYPE_LIMIT:
        raise UsageProblem(
            "The API key has blanks or other signs that no key has.",
            next_step="A key is one word like 411k_…; check what was pasted.",
        )
    return Secret(key)


def _from_file(file: Path) -> str:
    if str(file) == "-":
        return sys.stdin.readline(TYPE_LIMIT)
    try:
        with file.open(encoding="utf-8") as stream:
            return stream.readline(TYPE_LIMIT)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"The API key file {file} cannot be read: {error}.") from error


def _from_command(command: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - the owner's own command, from the owner's own settings file
            shlex.split(command), capture_output=True, text=True, timeout=30, check=True
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise UsageProblem(
            f"api_key_command failed ({type(error).__name__}).", next_step="Run it by hand to see why."
        ) from error
    return done.stdout


def chosen(
    reader: Reader, import_name: str | None, leads: tuple[str, ...], where: tuple[str, ...], limit: int | None
) -> Selection:
    """The selection that `--import`, `--lead`, `--where` and `--limit` describe.

    Raises:
        UsageProblem: Something in it does not exist.
    """
    pairs = []
    for text in where:
        field, separator, value = text.partition("=")
        if not separator or not field or '"' in field:
            raise UsageProblem(f"--where {text!r} is not FIELD=VALUE.")
        pairs.append((field.strip(), value.strip()))
    return Selection(
        import_id=None if import_name is None else reader.import_id(import_name),
        lead_ids=tuple(reader.find_lead(name) for name in leads),
        where=tuple(pairs),
        limit=limit,
    )


def builder(profile: Any) -> Any:
    """The profile's way to turn a lead into a request, in the store's terms."""
    from ledger.api.profile import Lacks, canonical_json, request_key
    from ledger.store.enqueue import Asked
    from ledger.store.enqueue import Lacks as NotEnough

    def build(route: str, lead: Mapping[str, str]) -> Any:
        payload = profile.request_for(route, lead)
        if isinstance(payload, Lacks):
            return NotEnough(payload.fields)
        return Asked(canonical_json(payload), request_key(payload))

    return build
