"""`leadledger browse`: the live ledger in Datasette, with pages made for the questions people have."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import webbrowser
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.cli import options, output
from ledger.errors import LeadledgerError, UsageProblem
from ledger.events import Secret

if TYPE_CHECKING:
    from ledger.cli.settings import Globals

_SECRET: Final = re.compile(r"[!-~]{8,512}")
_SECRETS_MAX: Final = 8
_APPLY_S: Final = 60.0
"""Long enough to bring a schema up to date on the way; what takes longer stays in the inbox."""
_NICE: Final = 10
"""Who looks gives way to who works: a run on the same cores is not to take longer because of it."""
_HOST: Final = "127.0.0.1"


@click.command(epilog="Example: leadledger browse --open")
@click.argument("ledger", type=click.Path(path_type=Path), required=False)
@click.option("--port", type=click.IntRange(0, 65535), default=8001, show_default=True, help="0: a free one.")
@click.option("--open", "open_it", is_flag=True, help="Open it in your browser (on a terminal only).")
@click.option(
    "--allow-host",
    "host_names",
    multiple=True,
    metavar="NAME",
    help="Answer to this name too, besides localhost.",
)
@click.option(
    "--webhook-secret-file",
    type=click.Path(path_type=Path),
    help="Signing secrets of webhooks, one a line; else LEADLEDGER_WEBHOOK_SECRET.",
)
@options.profile
@options.common
@click.pass_obj
def command(
    obj: Globals,
    *,
    ledger: Path | None,
    port: int,
    open_it: bool,
    host_names: tuple[str, ...],
    webhook_secret_file: Path | None,
    profile: Path | None,
    as_json: bool,
    yes: bool,
) -> None:
    """Look at the LEDGER (default: --db) while a run is on, or after it. Ctrl+C stops looking.

    Overview, leads, runs, charts, and every table, view and query of Datasette; reads beside the writer and
    never writes the ledger. No secret is shown. Listens on this machine only. Webhook deliveries come in at
    /-/ledger/webhooks/411data once a signing secret is given.
    """
    del yes
    from ledger.api.profile import Profile
    from ledger.sandbox.serve import listen
    from ledger.store.read import Reader

    Profile.load(profile)  # a mistake in it is said now, not when the first wish comes
    secrets = webhook_secrets(webhook_secret_file)
    with Reader(ledger or obj.db) as reader:
        path, columns = reader.path, reader.columns()
    try:
        ear = listen(_HOST, port)
    except OSError as error:
        raise UsageProblem(
            f"Nothing can listen on {_HOST}:{port}: {error.strerror}.", next_step="--port 0 takes a free one."
        ) from error
    with ear:
        url = f"http://{_HOST}:{ear.getsockname()[1]}/-/ledger"
        names = frozenset(name.lower().rstrip(".") for name in host_names)
        datasette = _datasette(path, columns, secrets, names, profile)

        def ready() -> None:
            if as_json:
                output.emit_json({"schema": 1, "url": url})
            else:
                output.say(f"Browse at {url} (Ctrl+C stops it)")
                sys.stdout.flush()
            if open_it and sys.stdout.isatty():
                webbrowser.open(url)

        asyncio.run(_serve(datasette, ear, ready))


def webhook_secrets(file: Path | None) -> tuple[Secret, ...]:
    """The signing secrets in force, from the file or the environment; none when neither is given.

    Raises:
        UsageProblem: The file cannot be read, or what is in it is no secret.
    """
    where = "LEADLEDGER_WEBHOOK_SECRET" if file is None else str(file)
    try:
        text = os.environ.get(where, "") if file is None else file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageProblem(f"The webhook secrets in {where} cannot be read: {error}.") from error
    words = text.split()
    if (file is not None and not words) or len(words) > _SECRETS_MAX:
        raise UsageProblem(f"{where} holds {len(words)} webhook secrets; 1 to {_SECRETS_MAX} are understood.")
    if not all(_SECRET.fullmatch(word) for word in words):
        raise UsageProblem(
            f"What {where} holds is no webhook secret: words like ech_…, plain ASCII, 8 signs or more.",
            next_step="The provider shows it once, when the subscription is made.",
        )
    return tuple(Secret(word) for word in words)


def _datasette(
    path: Path,
    columns: dict[str, tuple[str, ...]],
    secrets: tuple[Secret, ...],
    names: frozenset[str],
    profile: Path | None,
) -> Any:
    from ledger.browse import outside
    from ledger.browse.compat import build

    datasette = build(path, columns)
    outside.attach(
        datasette,
        outside.Outside(
            holder=holder,
            apply=partial(apply_inbox, profile=profile),
            webhook_secrets=secrets,
            host_names=outside.LOOPBACK_NAMES | names,
        ),
    )
    return datasette


def holder(path: Path) -> str:
    """Who holds the ledger, as a phrase; empty when nobody does."""
    from ledger.store.lock import is_held, read_holder

    if not is_held(path):
        return ""
    facts = read_holder(path)
    return f"process {facts['pid']} ({facts.get('command')})" if "pid" in facts else "another process"


def apply_inbox(path: Path, profile: Path | None = None) -> None:
    """Have the inbox taken in, if nobody holds the ledger, by a process of its own: this one only reads."""
    laid_over = () if profile is None else (str(profile),)
    with suppress(subprocess.TimeoutExpired):
        subprocess.run(  # noqa: S603 - our own interpreter and our own words
            [sys.executable, "-c", "from ledger.cli.browse import take_in; take_in()", str(path), *laid_over],
            stdin=subprocess.DEVNULL,
            timeout=_APPLY_S,
            check=False,
        )


def take_in() -> None:
    """What that process does; says on stderr what it carried out, or why it could not."""
    from ledger.api.profile import Profile
    from ledger.cli.control import settle

    path, *laid_over = map(Path, sys.argv[1:])
    try:
        settle(path, Profile.load(*laid_over))
    except LeadledgerError as error:
        output.tell(f"The inbox waits: {output.clean(error)}")


async def _serve(datasette: Any, ear: Any, ready: Any) -> None:
    import uvicorn

    from ledger.browse import pages
    from ledger.sandbox.serve import SHUTDOWN_S, stopped_by_signals

    os.nice(_NICE)
    await datasette.invoke_startup()
    server = uvicorn.Server(
        uvicorn.Config(
            datasette.app(),
            lifespan="off",
            ws="none",  # nothing here speaks it
            log_config=None,
            log_level="warning",
            access_log=False,  # addresses hold names and queries
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
    )
    # A large ledger is read once for its totals: it starts before anybody asks.
    warming = asyncio.create_task(pages.warm(datasette))
    with stopped_by_signals(server):
        ready()
        await server.serve(sockets=[ear])
    warming.cancel()
    await asyncio.gather(warming, return_exceptions=True)
