"""Random damage: whatever happens to a file, it is refused in a sentence or every record of it is a row."""

import csv
import io
import json
import re
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ledger.errors import BadInput
from ledger.intake import open_file
from ledger.model import SourceRow

CELL = st.text(
    st.sampled_from(list("abAB09 @.,;\t|\"'-+\r\n\\%{}:=")) | st.characters(codec="utf-8"), max_size=12
)
TABLE = st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=30)
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["flip", "cut", "quote", "newline", "nul", "delimiter"]), st.integers(0, 2**16)
    ),
    max_size=6,
)
RELAXED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def written(table: list[tuple[str, str, str]], delimiter: str, terminator: str) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator=terminator)
    writer.writerow(["id", "company", "note", "email"])
    for number, (company, note, email) in enumerate(table):
        writer.writerow([f"key{number:04}", company, note, email])
    return text.getvalue()


def damaged(content: bytes, damage: list[tuple[str, int]]) -> bytes:
    for kind, at in damage:
        place = at % (len(content) + 1)
        before, after = content[:place], content[place:]
        match kind:
            case "flip":
                content = before + bytes([at % 256]) + after[1:]
            case "cut":
                content = before + after[1 + at % 20 :]
            case "quote":
                content = before + b'"' + after
            case "newline":
                content = before + b"\n" + after
            case "nul":
                content = before + b"\0" + after
            case "delimiter":
                content = before + b"," + after
    return content


def taken_in(content: bytes, encoding: str | None = None, delimiter: str | None = None) -> list[SourceRow]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "leads.csv")
        path.write_bytes(content)
        return list(open_file(path, encoding=encoding, delimiter=delimiter).rows())


@RELAXED
@given(table=TABLE, delimiter=st.sampled_from(",;\t|"), terminator=st.sampled_from(["\n", "\r\n", "\r"]))
def test_an_undamaged_file_has_one_row_for_each_record(
    table: list[tuple[str, str, str]], delimiter: str, terminator: str
) -> None:
    text = written(table, delimiter, terminator)
    records = enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), start=1)
    expected = [(number, record) for number, record in records if record][1:]
    rows = taken_in(text.encode())
    assert [(row.number, list(json.loads(row.raw).values())) for row in rows] == expected


@RELAXED
@given(
    table=TABLE, damage=DAMAGE, encoding=st.sampled_from([None, "utf-8", "cp1252", "utf-16-le", "shift_jis"])
)
def test_a_damaged_file_is_refused_or_nothing_of_it_is_lost(
    table: list[tuple[str, str, str]], damage: list[tuple[str, int]], encoding: str | None
) -> None:
    content = damaged(written(table, ",", "\n").encode(), damage)
    try:
        rows = taken_in(content, encoding)
    except BadInput:
        return
    numbers = [row.number for row in rows]
    assert numbers == sorted(set(numbers))
    for row in rows:
        row.raw.encode()
        assert isinstance(json.loads(row.raw), dict)
        assert any(row.keys) == (row.rejection is None)
    kept = " ".join(row.raw for row in rows)
    header, body = content.split(b"\n", 1)
    for key in re.findall(rb"key\d{4}", body):
        assert key.decode() in kept or key in header


@RELAXED
@given(
    content=st.binary(max_size=300), encoding=st.sampled_from([None, "utf-8", "utf-16", "utf-7", "gb18030"])
)
def test_garbage_after_a_good_header_raises_nothing_else(content: bytes, encoding: str | None) -> None:
    try:
        rows = taken_in(b"id,company\n" + content, encoding)
    except BadInput:
        return
    for row in rows:
        row.raw.encode()
        assert any(row.keys) == (row.rejection is None)
