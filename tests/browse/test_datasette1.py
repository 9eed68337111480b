"""These tests once more, on the newest alpha of Datasette 1.0, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ledger.browse import compat

ROOT = Path(__file__).parent.parent.parent
NEXT = ROOT / ".cache" / "datasette1"


@pytest.mark.skipif(compat.IS_ONE, reason="this is Datasette 1.0")
@pytest.mark.skipif(
    not (NEXT / ".ready").exists(), reason="Datasette 1.0 could not be installed beside this one (make test)"
)
@pytest.mark.timeout(300)
def test_the_browse_tests_pass_on_datasette_1() -> None:
    command = [
        str(NEXT / "bin" / "python"),
        *("-m", "pytest", "-q", "-n0", "-p", "no:cacheprovider", "-m", "not browser", "tests/browse"),
        "--ignore=tests/browse/test_receiver.py",  # answered before Datasette sees it
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert "Datasette 1." in done.stdout
