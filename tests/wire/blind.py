"""The control: the client that everybody writes first. An error? Send it again."""

from __future__ import annotations

from typing import Final

import httpx

from ledger.sandbox.testing import KEY

_TRIES: Final = 3


async def submit(url: str, company: str) -> int:
    """Ask about one company and return how many POSTs that took.

    Raises:
        httpx.TransportError: The last try failed too.
    """
    body = {"route": "enrich/websearch", "payload": {"business_name": company}, "bill_up_to_usd": 1.5}
    async with httpx.AsyncClient(trust_env=False, headers={"Authorization": f"Bearer {KEY}"}) as client:
        for attempt in range(1, _TRIES + 1):
            try:
                answer = await client.post(f"{url}/api/v1/enrich/jobs", json=body)
                answer.raise_for_status()
            except httpx.TransportError:
                if attempt == _TRIES:
                    raise
            else:
                return attempt
    raise AssertionError("unreachable")
