"""Where requests go: which base URLs are allowed, and when two of them are the same provider."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import SplitResult, urlsplit

from ledger.errors import UsageProblem

_HOST: Final = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?|[0-9a-f:.]*:[0-9a-f:.]*")


def checked_base_url(base_url: str) -> str:
    """`base_url` as scheme, host and port, with nothing after them.

    Raises:
        UsageProblem: Not https (plain http is for loopback only), with credentials, with a path, or no URL.
    """
    parts = _split(base_url)
    return f"{parts.scheme}://{parts.netloc.lower()}"


def origin(base_url: str) -> str:
    """What the ledger remembers of its provider; the port of a loopback host does not count.

    Raises:
        UsageProblem: As `checked_base_url`.
    """
    parts = _split(base_url)
    host = parts.hostname or ""
    shown = f"[{host}]" if ":" in host else host
    if is_loopback(host) or parts.port in (None, 443 if parts.scheme == "https" else 80):
        return f"{parts.scheme}://{shown}"
    return f"{parts.scheme}://{shown}:{parts.port}"


def is_loopback(host: str) -> bool:
    """Whether `host` is this machine: `localhost`, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _split(base_url: str) -> SplitResult:
    # Before parsing: urlsplit silently drops tabs and line ends.
    if not base_url.isascii() or not base_url.isprintable() or " " in base_url:
        raise _bad("has characters that do not belong in a URL")
    try:
        parts = urlsplit(base_url)
        port = parts.port
    except ValueError:
        raise _bad("is not a URL") from None
    if parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or "") or port == 0:
        raise _bad("is not an https URL")
    if "@" in parts.netloc:
        raise _bad("carries credentials")  # the text is not repeated: it holds a password
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise _bad("has something after the host (the path belongs in the profile's api_prefix)")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise _bad("is plain http, which would show the key to everybody on the way")
    return parts


def _bad(why: str) -> UsageProblem:
    return UsageProblem(
        f"The base URL {why}.", next_step="Give one like https://411data.io (http only for loopback)."
    )
