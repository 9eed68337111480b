"""What came back over the wire, before anybody reads meaning into it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: its head and every byte of its body, decoded."""

    status: int
    headers: dict[str, str] = field(repr=False)
    """Names in lower case; a repeated header is joined with commas."""
    body: bytes = field(repr=False)
    """Not in the repr: a 202 carries the poll bearer."""


@dataclass(frozen=True, slots=True)
class NoReply:
    """No whole answer came. What did come is kept."""

    error: str
    """A code in snake case, mostly the name of the httpx exception (`read_timeout`)."""
    sent: bool
    """False only where no connection was ever made: the request surely did not leave."""
    status: int | None = None
    """The status line, if that much came."""
    body: bytes = field(default=b"", repr=False)
