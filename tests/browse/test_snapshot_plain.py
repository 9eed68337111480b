"""A snapshot in a Datasette that has nothing of ours installed: still readable, still without a secret."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ledger.store.snapshot import take

PLAIN = """
import asyncio, sys
sys._called_from_test = True  # Datasette then loads no plugin
from datasette.app import Datasette
from datasette.plugins import pm
assert not [plugin for plugin in pm.get_plugins() if "ledger" in plugin.__name__]

async def look():
    datasette = Datasette([sys.argv[1]])
    await datasette.invoke_startup()
    for path in ("/copy", "/copy/lead_spend", "/copy/job_timeline", "/copy/claims", "/copy/in_doubt",
                 "/copy/poll_bearers", "/copy/run_summary", "/copy/costs.csv"):
        answer = await datasette.client.get(path)
        assert answer.status_code == 200, (path, answer.status_code)
        print(answer.text)

asyncio.run(look())
"""


def test_plain_datasette_reads_a_snapshot(told: Path, tmp_path: Path) -> None:
    file = tmp_path / "copy.db"
    take(told, file, mask=True)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PLAIN, str(file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "Lead 6" in done.stdout
    assert "charged or possibly charged, no result" in done.stdout
    assert "pb-needle" not in done.stdout
    assert "Laser Bella" not in done.stdout
