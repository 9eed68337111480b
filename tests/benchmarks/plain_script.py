"""What somebody writes in an afternoon: ten workers, httpx, submit and poll, and nothing kept.

    python plain_script.py BASE_URL LEADS.csv WORKERS

Prints how many jobs were matched, how many were not, and how many polls that took, as JSON.
"""

from __future__ import annotations

import asyncio
import csv
import json
import os
import sys
from collections import Counter
from typing import Any

import httpx

POLLS_MAX = 1000


async def enrich(client: httpx.AsyncClient, lead: dict[str, Any], count: Counter[str]) -> None:
    order = {"route": "enrich/lead-session", "payload": {"lead": lead}, "bill_up_to_usd": 1.5}
    answer = await client.post("/api/v1/enrich/jobs", json=order)
    answer.raise_for_status()
    job = answer.json()
    headers = {"Authorization": f"Bearer {job['poll_bearer']}"}
    for _ in range(POLLS_MAX):
        count["polls"] += 1
        answer = await client.get(f"/api/v1/enrich/jobs/{job['job_id']}", headers=headers)
        answer.raise_for_status()
        job = answer.json()
        if job["status"] in {"completed", "failed"}:
            break
        await asyncio.sleep(0.25)
    count["matched" if job.get("result", {}).get("matched") else "not matched"] += 1


async def work(client: httpx.AsyncClient, leads: list[dict[str, Any]], count: Counter[str]) -> None:
    while leads:
        await enrich(client, leads.pop(), count)


async def main(base_url: str, file: str, workers: int) -> None:
    with open(file, newline="", encoding="utf-8") as stream:  # noqa: ASYNC230, PTH123 - as anybody would
        leads: list[dict[str, Any]] = list(csv.DictReader(stream))
    count: Counter[str] = Counter()
    headers = {"Authorization": f"Bearer {os.environ['LEADLEDGER_API_KEY']}"}
    async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=60) as client:
        await asyncio.gather(*(work(client, leads, count) for _ in range(workers)))
    sys.stdout.write(json.dumps(count) + "\n")


asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
