"""What fits on a line of a terminal, and what a message does to the line that is written over."""

from __future__ import annotations

import pytest

from ledger.cli import output


@pytest.mark.parametrize(
    ("text", "columns", "fits"),
    [
        ("12345", 5, "12345"),
        ("123456", 5, "1234…"),
        ("日本語", 6, "日本語"),
        ("日本語x", 6, "日本…"),
        ("日本語", 5, "日本…"),
        ("cafe\u0301s", 5, "cafe\u0301s"),
        ("", 5, ""),
    ],
)
def test_a_line_is_cut_to_its_columns(text: str, columns: int, fits: str) -> None:
    assert output.fitted(text, columns) == fits


@pytest.mark.parametrize(
    "write",
    [output.tell, output.say, lambda text: output.emit_json({"x": text})],
    ids=["tell", "say", "json"],
)
def test_whatever_is_written_clears_the_line_first_and_once(
    write: object, capsys: pytest.CaptureFixture[str]
) -> None:
    assert callable(write)
    write("before")
    assert "\r" not in capsys.readouterr().err
    output.line.show("1 done")
    write("first")
    assert capsys.readouterr().err.startswith("\r\x1b[2K1 done\r\x1b[2K")
    write("second")
    assert "\r" not in capsys.readouterr().err
