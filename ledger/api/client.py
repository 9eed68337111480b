"""The client: paid POSTs, polls and balance readings as events. `submit` is the one place that pays."""

from __future__ import annotations

import asyncio
import re
from types import TracebackType
from typing import Final, Self

from ledger import events as ev
from ledger.api import wire
from ledger.api.origin import checked_base_url
from ledger.api.profile import Profile
from ledger.api.reading import is_remote_id
from ledger.api.reply import NoReply, Reply
from ledger.api.transport import Network, Transport
from ledger.clock import Clock
from ledger.errors import UsageProblem
from ledger.model import OpenJob, PaidCall

_TOKEN: Final = re.compile(r"[!-~]+")


class Client:
    """The provider over HTTP; an async context manager that closes its connections.

    Args:
        base_url: Scheme, host and port; https except on loopback.
        key: The account's API key.
        profile: What is known of the provider.
        clock: Read only to understand a `Retry-After` that is a date.
        network: For tests: makes httpx transports that need no socket.

    Raises:
        UsageProblem: The base URL or the key will not do.
    """

    def __init__(
        self, base_url: str, key: ev.Secret, profile: Profile, clock: Clock, *, network: Network | None = None
    ) -> None:
        if not _TOKEN.fullmatch(key.reveal()):
            raise UsageProblem("The API key is empty or has characters that no key has.")
        self._base_url = checked_base_url(base_url)
        self._key = key
        self._profile = profile
        self._clock = clock
        limits = profile.limits
        self._transport = Transport(
            self._base_url,
            connect_s=limits.connect_s,
            lanes=limits.poll_connections,
            bytes_max=limits.body_bytes_max,
            network=network,
        )

    def __repr__(self) -> str:
        return f"Client({self._base_url})"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._transport.aclose()

    async def submit(self, call: PaidCall) -> ev.PostEvent:
        """Make one paid POST, once, and say how it came out. Its intent and hold must be on disk.

        Raises:
            asyncio.CancelledError: The caller was cancelled; `provider.what_came` says what is known.
            Bug: The stored request cannot be sent; nothing was.
        """
        path, body = wire.submit_body(call, self._profile)
        headers = _bearing(self._key)
        if self._profile.sends_idempotency_key:
            headers["Idempotency-Key"] = call.idempotency_key
        try:
            reply = await self._transport.post(path, body, headers, self._profile.deadline_s(call.mode))
        except asyncio.CancelledError as cancelled:
            part = cancelled.args[0] if cancelled.args else None
            if isinstance(part, Reply | NoReply):
                cancelled.args = (self._outcome(call, part),)
            raise
        return self._outcome(call, reply)

    async def poll(self, job: OpenJob) -> ev.PollEvent:
        """Ask once how a job is getting on; with the account's key where its bearer is missing or refused."""
        if not is_remote_id(job.remote_job_id):
            return ev.PollFailed("bad_remote_job_id")
        token = job.bearer or self._key
        event = await self._poll_with(token, job)
        if isinstance(event, ev.Gone) and event.http_status in (401, 403) and token is not self._key:
            event = await self._poll_with(self._key, job)
        return event

    async def balance(self) -> ev.Balance | ev.BalanceUnknown:
        """Look once at the balance."""
        reply = await self._get(self._profile.paths.balance, self._key)
        if isinstance(reply, NoReply):
            return ev.BalanceUnknown(reply.error)
        return wire.read_balance(reply, self._profile, (self._key.reveal(),))

    def _outcome(self, call: PaidCall, reply: Reply | NoReply) -> ev.PostEvent:
        secrets = (self._key.reveal(),)
        if isinstance(reply, NoReply):
            return wire.read_no_reply(reply, secrets)
        read = wire.read_submit if call.mode == "async" else wire.read_sync
        return read(reply, self._profile, self._clock.now(), secrets)

    async def _poll_with(self, token: ev.Secret, job: OpenJob) -> ev.PollEvent:
        path = self._profile.paths.poll.replace("{job_id}", job.remote_job_id)
        reply = await self._get(path, token)
        if isinstance(reply, NoReply):
            return ev.PollFailed(reply.error)
        secrets = tuple(secret.reveal() for secret in (self._key, job.bearer) if secret is not None)
        return wire.read_poll(
            reply, self._profile, self._clock.now(), job.remote_job_id, job.ceiling_microusd, secrets
        )

    async def _get(self, path: str, token: ev.Secret) -> Reply | NoReply:
        limits = self._profile.limits
        return await self._transport.get(
            self._profile.api_prefix + path, _bearing(token), limits.poll_total_s
        )


def _bearing(token: ev.Secret) -> dict[str, str]:
    return {"Authorization": f"Bearer {token.reveal()}"}
