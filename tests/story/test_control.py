"""A running ledger is controlled from another terminal, and one that nobody runs by the command itself."""

from __future__ import annotations

import fcntl
import hmac
import json
import signal
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ledger.clock import SystemClock
from ledger.sandbox.testing import tell
from ledger.store import inbox
from ledger.store.lock import lock_path

RUN = ("run", "--route", "lead-session", "--budget", "200", "--json")


def yes(stage: Any, *arguments: str) -> dict[str, Any]:
    done = stage.cli(*arguments, "--yes", "--json")
    assert done.code == 0, done
    said: dict[str, Any] = done.json
    return said


@pytest.mark.slow
def test_a_run_is_paused_resumed_and_cancelled_from_outside(stage: Callable[..., Any]) -> None:
    # An hour each, which passes when the test says so: the run cannot end before it has been controlled.
    made = stage(latency_s={"enrich/lead-session": ["fixed", 3600.0]})
    made.leads(60)
    run = made.start(made.command(*RUN, "--in-flight", "10"))
    made.wait(lambda: made.ledger.exists() and made.states().get("waiting", 0) >= 10, "a full house")
    paused = yes(made, "pause", "--all")
    assert (paused["applied"], paused["jobs"]) == (True, 50)
    cancelled = yes(made, "cancel", "--lead", "60")
    assert (cancelled["jobs"], cancelled["applied"]) == (1, True)
    assert made.sql("SELECT COUNT(*) FROM attempts") == [(10,)], "nothing is sent while all is paused"
    assert yes(made, "resume", "--all")["jobs"] == 49

    def over() -> bool:
        tell(made.url, "/sandbox/advance", {"seconds": 3600})
        return run.poll() is not None

    made.wait(over, "the end of the run")
    ended = made.ended(run)
    assert ended.code == 0, ended
    assert sum(ended.json["final"].values()) == 59
    assert made.states()["cancelled"] == 1
    assert inbox.waiting(made.ledger) == []
    made.check_money()
    assert yes(made, "audit", "--no-balance")["ok"]


class Receiver(BaseHTTPRequestHandler):
    """What `browse` will be: checks the signature over the raw body and drops it."""

    ledger: Path
    refused = 0

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        wanted = "sha256=" + hmac.new(b"ech_sandbox", raw, "sha256").hexdigest()
        genuine = hmac.compare_digest(self.headers["X-411data-Signature"], wanted)
        if genuine:
            now = SystemClock().now()
            inbox.drop(
                self.ledger, "delivery", inbox.delivery(raw, received_at=now, delivery_id=None), now=now
            )
        type(self).refused += not genuine
        self.send_response(204 if genuine else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing to stderr."""


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[str]:
    Receiver.ledger, Receiver.refused = tmp_path / "leads.db", 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Receiver) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/hooks"
        server.shutdown()
        thread.join(10)


@pytest.mark.slow
def test_deliveries_alone_settle_a_night_in_which_no_poll_is_answered(
    stage: Callable[..., Any], receiver: str
) -> None:
    faults = {"poll_500": 1.0, "delivery_twice": 0.3, "delivery_forged": 0.3, "delivery_other_job": 0.3}
    made = stage(deliveries=True, callback_url=receiver, faults=faults)
    made.leads(12)
    done = made.cli(*RUN)
    assert done.code in {0, 3}, done
    assert sum(done.json["final"].values()) == 12
    fired = made.books()["faults"]
    assert min(fired[name] for name in faults) > 0
    assert Receiver.refused == fired["delivery_forged"]
    assert made.sql("SELECT COUNT(*) FROM attempts WHERE polls > 0") == [(0,)]
    reasons = "SELECT COUNT(*) FROM transitions WHERE reason = 'delivery_evidence'"
    assert made.sql(reasons) == [(12,)]
    made.check_money()
    assert yes(made, "audit", "--no-balance")["ok"]


@pytest.mark.slow
def test_what_a_killed_run_left_is_decided_at_once(stage: Callable[..., Any]) -> None:
    made = stage()
    made.leads(3)
    run = made.start(made.command(*RUN))
    made.wait(lambda: made.ledger.exists() and made.states().get("submitting", 0) > 0, "a POST in the air")
    run.send_signal(signal.SIGKILL)
    run.wait()
    doubts = yes(made, "resolve", "--all", "--write-off")
    assert made.states().get("in_doubt", 0) == 0
    assert doubts["resolved"] == made.states().get("lost", 0)


def test_without_a_run_the_command_carries_it_out_itself(stage: Callable[..., Any]) -> None:
    made = stage()
    made.leads(3)
    assert made.cli(*RUN).code in {0, 3}
    before = made.rows()["jobs"]
    asked = made.cli("retry", "--state", "matched", "--json")
    assert (asked.code, asked.json["error"]["what"]) == (2, "This needs a yes.")
    assert made.rows()["jobs"] == before
    again = made.cli("retry", "--state", "matched", "--yes")
    matched = made.states().get("matched", 0)
    assert f"{matched} jobs are asked again: up to ${matched * 1.5:.2f} more" in again.err
    assert made.states()["queued"] == matched
    assert made.cli(*RUN).code in {0, 3}
    assert made.states().get("queued", 0) == 0
    twice = [group["charged"] for group in made.books()["duplicates"] if group["charged"] > 1]
    assert len(twice) <= matched, "what a person asks again is paid again, and nothing else"
    assert set(twice) <= {2}
    assert yes(made, "audit", "--no-balance")["ok"]


def test_a_ledger_that_is_held_and_does_not_look_leaves_it_for_the_next_start(
    stage: Callable[..., Any],
) -> None:
    made = stage()
    made.leads(2)
    made.cli("run", "--route", "lead-session", "--budget", "200", "--limit", "1", "--json")
    with lock_path(made.ledger).open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = yes(made, "suppress", "--lead", "2")
        assert (said["jobs"], said["applied"]) == (0, False)
        assert len(inbox.waiting(made.ledger)) == 1
    done = made.cli(*RUN)
    assert "1 leads are suppressed" in done.err
    assert made.sql("SELECT suppressed FROM leads ORDER BY id") == [(0,), (1,)]
    assert len(made.sql("SELECT * FROM attempts")) == 1
    assert inbox.waiting(made.ledger) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("retry",), "Say which jobs"),
        (("cancel", "4711"), "There is no job 4711"),
        (("pause", "--lead", "nobody"), "nobody"),
        (("resume", "--import", "9"), "There is no import '9'"),
        (("retry", "--state", "asleep"), "asleep"),
        (("suppress", "x"), "x"),
    ],
    ids=["nothing named", "no job", "no lead", "no import", "no state", "no number"],
)
def test_a_mistake_is_a_sentence_and_changes_nothing(
    stage: Callable[..., Any], arguments: tuple[str, ...], says: str
) -> None:
    made = stage()
    made.leads(1)
    before = made.rows()
    done = made.cli(*arguments, "--yes", "--json")
    assert done.code == 2
    assert says in json.dumps(done.json["error"])
    assert made.rows() == before
    assert not inbox.inbox_path(made.ledger).exists()


def test_a_wish_for_a_ledger_that_is_not_there_makes_nothing(stage: Callable[..., Any]) -> None:
    made = stage()
    done = made.cli("pause", "--all", "--yes", "--json")
    assert done.code == 2
    assert "There is no ledger" in done.json["error"]["what"]
    assert [entry.name for entry in made.folder.iterdir()] == ["profile.toml"]
