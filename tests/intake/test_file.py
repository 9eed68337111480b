import hashlib
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from ledger.errors import BadInput, UsageProblem
from ledger.intake import open_file

TEXT = "id,company,phone,note\n1,Acme,020 7183 8750,x\n2,Bob,+44 20 7183 8750,y\n"


def written(folder: Path, text: str = TEXT) -> Path:
    path = folder / "leads.csv"
    path.write_bytes(text.encode())
    return path


def test_facts_and_guesses(tmp_path: Path) -> None:
    file = open_file(written(tmp_path))
    assert file.facts.name == "leads.csv"
    assert file.facts.sha256 == hashlib.sha256(TEXT.encode()).hexdigest()
    assert file.facts.unmapped == ("note",)
    assert file.guesses == ["read as UTF-8, comma separated"]


def test_guesses_name_the_source_and_what_is_left_out(tmp_path: Path) -> None:
    text = "Record ID;Phone Number;;\n1;5205550100;;\n"
    assert open_file(written(tmp_path, text)).guesses == [
        "read as UTF-8, semicolon separated",
        "taken for an export of hubspot, whose contact ids it has",
        "2 blank columns at the right end left out",
    ]


def test_rows_can_be_read_twice(tmp_path: Path) -> None:
    file = open_file(written(tmp_path))
    assert list(file.rows()) == list(file.rows()) != []


def test_region_decides_about_numbers_without_a_country(tmp_path: Path) -> None:
    first, second = open_file(written(tmp_path), region="gb").rows()
    assert first.problem == "number1: not a phone number: '020 7183 8750'"
    assert second.keys.phone == "+442071838750"


@pytest.mark.parametrize("region", ["", "U", "USA", "1A", "Ü1"])
def test_region_is_two_letters(tmp_path: Path, region: str) -> None:
    with pytest.raises(UsageProblem, match="two letters"):
        open_file(written(tmp_path), region=region)


def test_a_file_that_changed_is_refused(tmp_path: Path) -> None:
    file = open_file(written(tmp_path))
    written(tmp_path, TEXT + "3,Eve,,\n")
    with pytest.raises(BadInput, match="changed while it was read"):
        next(file.rows())


def test_a_file_that_changes_between_rows_is_refused(tmp_path: Path) -> None:
    file = open_file(written(tmp_path))
    rows = file.rows()
    next(rows)
    written(tmp_path, TEXT + "3,Eve,,\n")
    with pytest.raises(BadInput, match="changed while it was read"):
        list(rows)


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, says in (
        (tmp_path, "is a folder"),
        (tmp_path / "none.csv", "cannot be read: No such file"),
        (tmp_path / "pipe", "not a regular file"),
        (Path("with\0nul"), "cannot be read"),
    ):
        with pytest.raises(BadInput, match=says):
            open_file(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.chmod(0)
    with pytest.raises(BadInput, match="cannot be read: Permission denied"):
        open_file(path)


def test_memory_stays_flat(tmp_path: Path) -> None:
    lines = (f"{number},Firm {number},5205550100,{'n' * 500}\n" for number in range(20_000))
    path = written(tmp_path, "id,company,phone,note\n" + "".join(lines))
    tracemalloc.start()
    try:
        count = sum(1 for _ in open_file(path).rows())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 20_000
    assert peak < 4_000_000 < path.stat().st_size


def test_headers_are_kept_as_raw_keys_in_order(tmp_path: Path) -> None:
    row = next(open_file(written(tmp_path)).rows())
    assert list(json.loads(row.raw)) == ["id", "company", "phone", "note"]
    assert row.raw == json.dumps(json.loads(row.raw), ensure_ascii=False)
