"""A city's real licence register, with the map file of docs/maps."""

import csv
import re
import tomllib
from pathlib import Path

import pytest

from ledger.intake import open_file

ROOT = Path(__file__).resolve().parents[2]
REGISTER = ROOT.parent / "shared" / "data" / "tucson-business-licenses.tsv"
MAP = ROOT / "docs" / "maps" / "tucson.toml"
STREET = ("Street_Number", "Street_Direction", "Street_Name", "Street_Suffix", "Suite.Apt_No.")

pytestmark = pytest.mark.skipif(
    not REGISTER.exists(), reason="the shared data folder is not beside this clone"
)


def test_map_has_at_most_a_dozen_lines() -> None:
    assert len(MAP.read_text().splitlines()) <= 12


def test_register_is_read_whole_and_licences_of_one_business_are_one_lead() -> None:
    with REGISTER.open(encoding="utf-8", newline="") as text:
        records = list(csv.DictReader(text, delimiter="\t"))
    squeezed = {
        tuple(
            re.sub(r"[^\w+$^~<>=`]+|_", " ", part.lower()).strip()
            for part in (
                record["Business_Name"],
                " ".join(record[column] for column in STREET if record[column] != "NA"),
                record["Zip_Code"][:5],
            )
        )
        for record in records
    }
    file = open_file(REGISTER, map_file=MAP)
    rows = list(file.rows())
    assert len(rows) == len(records) == 4270
    assert not any(row.rejection or row.problem for row in rows)
    assert len({row.keys.place for row in rows}) == len(squeezed) < 4270
    assert [row.number for row in rows] == list(range(2, 4272))
    assert not {"NA"} & {value for row in rows for value in row.fields}


def test_register_keeps_what_the_map_asks_for() -> None:
    file = open_file(REGISTER, map_file=MAP)
    first = next(file.rows())
    assert first.fields[:6] == (None, "IN HOPES OF HEALING", "2810 N WINSTEL BL", "TUCSON", "AZ", "85716")
    assert first.keys == (None, None, "in hopes of healing|2810 n winstel bl|85716", None)
    assert file.facts.source == "tucson"
    asked = tomllib.loads(MAP.read_text())["fields"]
    assert file.facts.mapping["street"] == asked["street"] == list(STREET)
    assert set(file.facts.unmapped).isdisjoint(asked["extra"])
    phones = [row.keys.phone for row in file.rows() if row.keys.phone]
    assert len(phones) == 1093
    assert all(re.fullmatch(r"\+1[2-9]\d{9}", phone) for phone in phones)
