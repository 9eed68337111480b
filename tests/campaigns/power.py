"""Power cuts: the ledger as a cut may leave it, at every call that touched the disk (`disk.py` rebuilds it).

    python tests/campaigns/power.py --store 5000 --resumed 2000 --jobs 2 --log FILE

Two recordings by strace. Store images: the store's verbs acknowledge each commit on standard output; in no
image may anything acknowledged be missing, the file be damaged or an invariant be broken. Resumed images: the
real `import` and `run`; the provider's books are set back to the POSTs that had left by the cut, the same
commands go on from the image, and the books judge. The controls record with `synchronous=NORMAL`: the store
must lose what it acknowledged, and the resumed runs must pay twice.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from email.parser import BytesParser
from functools import cache, partial
from http.client import HTTPConnection
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import disk
import kill
import points
import totals
from disk import Op

from ledger import events as ev
from ledger.api.profile import Profile
from ledger.cli.wiring import builder
from ledger.clock import SystemClock
from ledger.intake import open_file
from ledger.migrations.migrations import migrations
from ledger.sandbox.testing import tell
from ledger.states import State, StopReason
from ledger.store import reserve
from ledger.store.audit import INVARIANTS
from ledger.store.claims import ClaimRules
from ledger.store.engine import sqlite3
from ledger.store.exposure import Caps
from ledger.store.ledger import Ledger
from ledger.store.selection import Selection

ROUTE: Final = "enrich/lead-session"
DB: Final = "leads.db"
SUBMIT: Final = b"POST /api/v1/enrich/jobs "
COUNTED: Final = ("leads", "source_rows", "runs", "transitions", "costs", "answers", "results")
"""Tables that only grow: what was acknowledged is there when they are not shorter."""
STORE_LEADS: Final = 12
NORMAL: Final = """\
from ledger.store import ledger as verbs
connect = verbs.connect
def hasty(path):
    connection = connect(path)
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection
verbs.connect = hasty
"""
"""The control: commits that return before they are on disk."""
FINAL: Final = ev.Finished(
    ev.Verdict(
        State.MATCHED,
        matched=True,
        billed=True,
        cache_hit=False,
        cost_microusd=700_000,
        error_code=None,
        body="{}",
    ),
    ev.Answer("poll", 200, '{"owner": "Dana"}'),
)
DRIVE: Final = "import sys\nsys.path.insert(0, sys.argv[1])\nimport power\npower.drive(sys.argv[2])\n"


# --- the store alone ---


def drive(db: str) -> None:
    """Two lives of a ledger, every kind of commit among them; each is acknowledged on standard output."""
    reserve.SIZE = 65_536  # type: ignore[misc] # its writes are the same either way; 4 MiB are only slower
    asyncio.run(_live(Path(db), turns=4))
    asyncio.run(_live(Path(db), turns=None))


async def _live(db: Path, turns: int | None) -> None:
    """Import, recover, and claim in twos; after `turns` of it the last two stay open and the run unended."""
    with Ledger(db, "campaign", clock=SystemClock(), migrations=migrations) as ledger:
        file = open_file(db.with_suffix(".csv"))
        ledger.import_rows(file.facts, file.rows())
        _acknowledge(ledger)
        ledger.recover()
        ledger.begin_run(origin="http://127.0.0.1:9", settings={}, caps=Caps())
        _acknowledge(ledger)
        ledger.enqueue(ROUTE, "async", Selection(), builder(Profile.load()))
        _acknowledge(ledger)
        await _work(ledger, turns)
        if turns is None:
            ledger.end_run(StopReason.FINISHED)
        _acknowledge(ledger)


async def _work(ledger: Ledger, turns: int | None) -> None:
    rules = ClaimRules(ROUTE, "async", 1_500_000, Caps())
    answer = ev.Answer("accepted", 202, "{}")
    for turn in range(STORE_LEADS):  # more than enough: two leads a turn
        claim = await ledger.claim(rules, 2)
        _acknowledge(ledger)
        if not claim.calls or turn == turns:
            return
        for call in claim.calls:
            accepted = ev.Accepted(f"job_{call.idempotency_key}", ev.Secret("b" * 40), None, answer)
            await ledger.record(call.job_id, call.fence, accepted)
            _acknowledge(ledger)
        for call in claim.calls:
            await ledger.record(call.job_id, call.fence, FINAL, polls=1)
            _acknowledge(ledger)


def _acknowledge(ledger: Ledger) -> None:
    sys.stdout.write(json.dumps(_counts(ledger.books.connection)) + "\n")
    sys.stdout.flush()


def _counts(connection: sqlite3.Connection) -> list[int]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    if ("runs",) not in found:
        return [0] * len(COUNTED)
    return [connection.execute("SELECT COUNT(*) FROM " + table).fetchone()[0] for table in COUNTED]


def record_store(folder: Path, *, planted: str = "") -> list[Op]:
    """The verbs on a new ledger in `folder`, as strace saw them."""
    db = folder / DB
    kill.write_leads(db, "Store", STORE_LEADS)
    log = folder.with_suffix(".strace")
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", planted + DRIVE, here, str(db)]
    traced = [str(kill.STRACE), "-f", "-qq", *disk.STRACE, "-o", str(log), *command]
    subprocess.run(traced, stdout=subprocess.DEVNULL, timeout=300, check=True)
    ops = disk.recorded(log, folder)
    log.unlink()
    return ops


@dataclass(slots=True)
class Lost:
    """What the store images came to."""

    images: int = 0
    damaged: int = 0
    broken: int = 0
    """Images in which an invariant does not hold."""
    forgetful: int = 0
    """Images that lost something acknowledged."""


def look_at_store(ops: list[Op], wanted: int, seed: int, scratch: Path) -> Lost:
    """Rebuild about `wanted` images, spread over all cuts, and look into each."""
    chance = Random(seed)
    lost = Lost()
    loose = sum(not state.settled for _, state in disk.states(ops))
    draws = max(1, -(-(wanted - 2 * loose) // (2 * loose)))
    share = min(1.0, wanted / (4 * loose))
    said = b""
    acknowledged = [0] * len(COUNTED)
    seen = 0
    for cut, state in disk.states(ops):
        for op in ops[seen:cut]:
            said += op.data if op.kind == "said" else b""
        seen = cut
        if said.endswith(b"\n"):
            acknowledged, said = json.loads(said.splitlines()[-1]), b""
        if chance.random() > share:
            continue
        modes = ["all"] if state.settled else ["none", "all", *["half", "torn"] * draws]
        for mode in modes:
            _look(lost, state.image(mode, chance), acknowledged, scratch)
    return lost


def _look(lost: Lost, image: dict[str, bytes], acknowledged: list[int], scratch: Path) -> None:
    lost.images += 1
    lay_out(image, scratch)
    with closing(sqlite3.connect(scratch / DB)) as connection:
        try:
            whole = connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            counts = _counts(connection)
            holds = not counts[0] or all(not connection.execute(one.sql).fetchone() for one in INVARIANTS)
        except sqlite3.DatabaseError:
            whole, counts, holds = False, acknowledged, True
    lost.damaged += not whole
    lost.broken += not holds
    lost.forgetful += any(has < told for has, told in zip(counts, acknowledged, strict=True))


def lay_out(image: dict[str, bytes], folder: Path) -> None:
    """Put an image where the next start will find it, and nothing else."""
    for path in folder.glob(DB + "*"):
        path.unlink()
    for name, contents in image.items():
        if name.startswith(DB):
            (folder / name).write_bytes(contents)


# --- the real commands ---


def record_run(where: kill.Bench, *, planted: str = "") -> list[Op]:
    """`import`, then `run`, in a folder of their own."""
    folder = where.folder / "disk"
    folder.mkdir()
    db = folder / DB
    kill.write_leads(db, "Point disk")
    ops: list[Op] = []
    for phase in ("import", "run"):
        log = where.folder / f"{phase}.strace"
        code = where.strace(phase, db, *disk.STRACE, "-o", str(log), planted=planted)
        assert code == 0, f"the recorded {phase} ended with {code}"
        ops += [*disk.recorded(log, folder), Op("done", phase)]
    return ops


def posts(ops: list[Op], cut: int) -> list[bytes]:
    """The paid POSTs that had left by the cut, as the bytes that left, in the order of their last byte."""
    leaving: dict[int, bytes] = {}
    left = []
    for op in ops[:cut]:
        if op.kind != "sent":
            continue
        leaving[op.at] = leaving.get(op.at, b"") + op.data
        head, _, body = leaving[op.at].partition(b"\r\n\r\n")
        length = _length(head)
        if len(body) >= length:
            request = leaving.pop(op.at)
            left += [request] if request.startswith(SUBMIT) else []
    return left


def _length(head: bytes) -> int:
    """What a request's head says of the length of its body."""
    fields = BytesParser().parsebytes(head.partition(b"\r\n")[2])
    return int(fields.get("content-length", "0"))


def set_back(where: kill.Bench, sent: list[bytes]) -> None:
    """Bring the provider's books to where they were: empty, then the same POSTs again, byte for byte."""
    tell(where.base_url, "/sandbox/reset", {})
    at = urlsplit(where.base_url)
    for request in sent:
        head, _, body = request.partition(b"\r\n\r\n")
        fields = BytesParser().parsebytes(head.partition(b"\r\n")[2])
        with closing(HTTPConnection(at.hostname or "", at.port, timeout=10)) as connection:
            connection.request("POST", head.split(b" ")[1].decode(), body, dict(fields.items()))
            assert connection.getresponse().status == 202


@cache
def _loaded(recording: Path) -> list[Op]:
    return disk.load(recording)


Point = tuple[int, str]
"""(cut, mode)."""


def run_image(recording: Path, where: kill.Bench, key: str, point: Point) -> points.Row:
    """Rebuild one image, set the books back, go on to the end, and judge."""
    cut, mode = point
    ops = _loaded(recording)
    db = where.folder / DB
    lay_out(disk.disk_at(ops, cut).image(mode, Random(key)), where.folder)
    sent = posts(ops, cut)
    set_back(where, sent)
    kill.write_leads(db, "Point disk")
    phase = "run" if Op("done", "import") in ops[:cut] else "import"
    return {"point": point, "posts": len(sent), **kill.resume(where, db, "disk", phase)}


def plan_images(ops: list[Op], wanted: int, seed: int) -> list[Point]:
    """Every cut with each of its modes, until there are `wanted`; half and torn ones are drawn more often."""
    loose = [(cut, state.settled) for cut, state in disk.states(ops)]
    whole = [(cut, "all") for cut, settled in loose if settled]
    every = whole + [(cut, mode) for cut, settled in loose if not settled for mode in disk.MODES]
    chance = Random(seed)
    if wanted <= len(every):
        return sorted(chance.sample(every, wanted))
    again = [(cut, mode) for cut, settled in loose if not settled for mode in ("half", "torn")]
    return sorted(every + [chance.choice(again) for _ in range(wanted - len(every))])


def resumed(
    recording: Path, wanted: int, seed: int, *, jobs: int = 1, log: Path | None = None, shown: bool = False
) -> list[points.Row]:
    """Resume from `wanted` images of a recording."""
    plan = plan_images(disk.load(recording), wanted, seed)
    keyed = [(f"{seed}:{number}:{cut}:{mode}", (cut, mode)) for number, (cut, mode) in enumerate(plan)]
    return points.play(keyed, partial(run_image, recording), kill.bench, jobs=jobs, log=log, shown=shown)


def recording_of(path: Path, *, planted: str = "") -> Path:
    """A recording of the real commands at `path`, made unless it is there."""
    if not path.exists():
        with kill.bench() as where:
            disk.save(record_run(where, planted=planted), path)
    return path


# --- all of it ---


def store(wanted: int, seed: int, *, planted: str = "") -> Lost:
    """Record the verbs and look into `wanted` images."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory(dir=memory()) as scratch:
        live = Path(folder) / "disk"
        live.mkdir()
        return look_at_store(record_store(live, planted=planted), wanted, seed, Path(scratch))


def memory() -> str | None:
    """Where images cost no disk: what they hold is a cut's doing already."""
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    totals.add_options(parser)
    parser.add_argument("--store", type=int, default=5000, help="store images")
    parser.add_argument("--resumed", type=int, default=2000, help="images with a full resume")
    parser.add_argument("--control", type=int, default=100, help="resumed images of the control")
    wanted = parser.parse_args()
    if kill.STRACE is None:
        sys.exit("strace is not installed (Debian: apt-get install strace)")
    begun = time.perf_counter()
    lost = store(wanted.store, wanted.seed)
    hasty = store(wanted.store // 5, wanted.seed, planted=NORMAL)
    with tempfile.TemporaryDirectory() as folder:
        kept = Path(folder) / "ops" if wanted.log is None else wanted.log.with_suffix(".ops")
        rows = resumed(
            recording_of(kept), wanted.resumed, wanted.seed, jobs=wanted.jobs, log=wanted.log, shown=True
        )
        normal = recording_of(Path(folder) / "normal.ops", planted=NORMAL)
        control = resumed(normal, wanted.control, wanted.seed, jobs=wanted.jobs)
    paid_twice = sum("paid twice" in str(row["bad"]) for row in control)
    result: dict[str, Any] = {
        "campaign": "power",
        "seed": wanted.seed,
        "store_images": lost.images,
        "store_damaged": lost.damaged,
        "store_invariants_broken": lost.broken,
        "store_lost_acknowledged": lost.forgetful,
        "resumed_images": len(rows),
        "by_mode": dict(Counter(row["point"][1] for row in rows)),
        "by_posts_sent": {str(n): c for n, c in sorted(Counter(row["posts"] for row in rows).items())},
        "doubts_left": sum(row["doubts"] for row in rows),
        "control_store_images": hasty.images,
        "control_store_lost_acknowledged": hasty.forgetful,
        "control_resumed_images": len(control),
        "control_paid_twice": paid_twice,
    }
    failed = "" if hasty.forgetful and paid_twice else "a control was not caught"
    bad = [row for row in rows if row["bad"]]
    if lost.damaged or lost.broken or lost.forgetful:
        bad.insert(0, {"key": "store images", "bad": [str(lost)]})
    return totals.finish(result, bad, begun=begun, record=wanted.record, failed=failed)


if __name__ == "__main__":
    sys.exit(main())
