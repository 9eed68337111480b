"""The gate before Datasette: who may ask, and what a browser may do with the answer.

A page of any site can send requests to a port of this machine, and a name that resolves to 127.0.0.1 makes
its answers readable too (DNS rebinding). So the `Host` must be one of ours, and what changes something must
come from our own pages. Datasette itself checks neither and sends none of these headers.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, MutableMapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from jinja2 import Environment
from jinja2.ext import Extension

from ledger.browse import outside, receiver
from ledger.browse.asgi import App, Receive, Scope, Send, answer

if TYPE_CHECKING:
    from datasette.app import Datasette

_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST: Final = re.compile(r"(\[[0-9a-f:]+\]|[a-z0-9.-]+)(:\d{1,5})?", re.IGNORECASE | re.ASCII)
_SCRIPT: Final = re.compile(r"<script\b")
_NONCE: Final[ContextVar[str]] = ContextVar("leadledger_csp_nonce", default="")
_FIXED_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),  # with none at all, browsers hide the origin of our own forms too
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
# Styles may be inline: Datasette's own pages and the SQL editor write them. Scripts may not, unless a
# template (never a cell of a table) wrote the tag.
_POLICY: Final = (
    "default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; font-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'"
)


class ScriptNonces(Extension):
    """Marks the scripts that stand in a template's source, so that no other script runs."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        environment.globals["csp_nonce"] = _NONCE.get

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """Called before a template is compiled."""
        del name, filename
        return _SCRIPT.sub('<script nonce="{{ csp_nonce() }}"', source)


def guarded(app: App, datasette: Datasette) -> App:
    """`app` behind the gate. Where no ledger is served it is left as it is."""

    async def gate(scope: Scope, receive: Receive, send: Send) -> None:
        book = None if scope["type"] == "lifespan" else await outside.find_book(datasette)
        if book is None:
            await app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})  # we have none, and another plugin's would pass unasked
            return
        if scope["path"] == receiver.PATH:
            await receiver.receive(scope, receive, send, book.path, outside.of(datasette))
            return
        nonce = secrets.token_urlsafe(16)
        _NONCE.set(nonce)
        protected = _with_headers(send, nonce)
        problem = refusal(scope, outside.of(datasette).host_names)
        if problem is not None:
            await answer(protected, 403, problem + "\n")
            return
        await app(scope, receive, protected)

    return gate


def refusal(scope: Scope, host_names: frozenset[str]) -> str | None:
    """Why this request is not for us, as a sentence; None when it may pass."""
    headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
    host = headers.get(b"host", "")
    if host_name(host) not in host_names:
        names = ", ".join(sorted(host_names))
        return f"This ledger answers as {names} only; --allow-host adds a name. Nothing was shown or changed."
    if re.match(r"/[/\\]", unquote(scope["path"])) or "\\" in unquote(scope["path"]):
        return "There is no such page."  # Datasette 0.65 answers /\host with a redirect to that host
    if unquote(scope["path"]).strip().endswith(".db"):  # plain Datasette hands out what it opened with -i
        return (
            "The ledger's file holds secrets and is not handed out: `leadledger snapshot` makes a clean copy."
        )
    if scope["method"] not in _SAFE and not _same_origin(headers, host):
        return "That came from another site. Nothing was changed."
    if headers.get(b"sec-fetch-site") in {"cross-site", "same-site"} and not _opens_a_page(headers):
        return "A page of another site asked for that. Nothing was read."
    return None


def _opens_a_page(headers: Mapping[bytes, str]) -> bool:
    """True when somebody follows a link here, rather than a script, an image or a frame of another page."""
    return (headers.get(b"sec-fetch-mode"), headers.get(b"sec-fetch-dest")) == ("navigate", "document")


def host_name(host: str) -> str:
    """The name in a `Host` header, lower case, without its port; empty when it is none."""
    found = _HOST.fullmatch(host)
    return "" if found is None else found[1].lower().strip("[]").rstrip(".")


def _same_origin(headers: Mapping[bytes, str], host: str) -> bool:
    """Browsers send at least one of the two headers with every request that may change something.

    A client that sends neither is no browser: it holds no user's session and could as well read the file.
    """
    site = headers.get(b"sec-fetch-site")
    if site is not None and site not in {"same-origin", "none"}:
        return False
    origin = headers.get(b"origin")
    return origin is None or urlsplit(origin).netloc.lower() == host.lower()


def _with_headers(send: Send, nonce: str) -> Send:
    policy = (b"content-security-policy", _POLICY.format(nonce=nonce).encode())
    ours = (*_FIXED_HEADERS, policy)
    names = {name for name, _ in ours}

    async def sender(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            rest = [pair for pair in message.get("headers", []) if bytes(pair[0]).lower() not in names]
            message = {**message, "headers": [*rest, *ours]}
        await send(message)

    return sender
