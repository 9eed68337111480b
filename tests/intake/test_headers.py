from pathlib import Path

import pytest

from ledger.intake import ImportFile, open_file
from ledger.intake.headers import map_by_name
from ledger.intake.normalise import fold
from ledger.intake.synonyms import FIRST_NAMES, LAST_NAMES, OPT_OUTS, SIGNATURES, SYNONYMS
from ledger.model import LEAD_FIELDS


def opened(folder: Path, text: str) -> ImportFile:
    path = folder / "leads.csv"
    path.write_text(text, encoding="utf-8")
    return open_file(path)


def test_every_name_in_the_table_is_folded_and_stands_once() -> None:
    names = [name for names in (*SYNONYMS.values(), FIRST_NAMES, LAST_NAMES, OPT_OUTS) for name in names]
    names_in_signatures = [name for _, signature in SIGNATURES for name in signature]
    assert [name for name in names + names_in_signatures if fold(name) != name] == []
    assert len(names) == len(set(names))


def test_canonical_names_map_to_themselves() -> None:
    columns = map_by_name(LEAD_FIELDS, "leads.csv")
    assert columns.mapping() == {name: [name] for name in LEAD_FIELDS}
    assert columns.source == "file"


@pytest.mark.parametrize(
    ("headers", "source", "mapping", "unmapped"),
    [
        (
            "Record ID,First Name,Last Name,Email,Phone Number,Contact owner,Associated Company",
            "hubspot",
            {
                "contact_id": ["Record ID"],
                "company": ["Associated Company"],
                "number1": ["Phone Number"],
                "dm_name": ["First Name", "Last Name"],
                "email": ["Email"],
            },
            ("Contact owner",),
        ),
        (
            "Lead ID,First Name,Last Name,Company / Account,Zip/Postal Code,State,Mobile,Email Opt Out",
            "salesforce",
            {
                "contact_id": ["Lead ID"],
                "company": ["Company / Account"],
                "state": ["State"],
                "zip": ["Zip/Postal Code"],
                "number1": ["Mobile"],
                "dm_name": ["First Name", "Last Name"],
                "suppressed": ["Email Opt Out"],
            },
            (),
        ),
        (
            (
                "Person - ID,Person - Name,Person - Organization,Person - Email - Home,Person - Email - Work,"
                "Person - Phone - Mobile,Person - Phone - Work"
            ),
            "pipedrive",
            {
                "contact_id": ["Person - ID"],
                "company": ["Person - Organization"],
                "number1": ["Person - Phone - Work"],
                "number2": ["Person - Phone - Mobile"],
                "dm_name": ["Person - Name"],
                "email": ["Person - Email - Work", "Person - Email - Home"],
            },
            (),
        ),
        (
            "id,lead_name,status_label,primary_contact_primary_email,url",
            "close",
            {
                "contact_id": ["id"],
                "company": ["lead_name"],
                "email": ["primary_contact_primary_email"],
                "domain": ["url"],
            },
            ("status_label",),
        ),
        (
            "Apollo Contact Id,Company Name,Company City,City,Person Linkedin Url,Email,Secondary Email",
            "apollo",
            {
                "contact_id": ["Apollo Contact Id"],
                "company": ["Company Name"],
                "city": ["Company City"],
                "email": ["Email", "Secondary Email"],
            },
            ("City", "Person Linkedin Url"),
        ),
        (
            "Record Id,Lead Owner,Company,Full Name,First Name,Mobile,Phone,Website",
            "zoho",
            {
                "contact_id": ["Record Id"],
                "company": ["Company"],
                "number1": ["Phone"],
                "number2": ["Mobile"],
                "dm_name": ["Full Name"],
                "domain": ["Website"],
            },
            ("Lead Owner", "First Name"),
        ),
        ("\u00a0E-MAIL ,Notes", "file", {"email": ["E-MAIL"]}, ("Notes",)),
    ],
)
def test_exports_are_known_by_their_headers(
    tmp_path: Path, headers: str, source: str, mapping: dict[str, list[str]], unmapped: tuple[str, ...]
) -> None:
    facts = opened(tmp_path, f"{headers}\n{'x,' * headers.count(',')}x\n").facts
    assert (facts.source, facts.mapping, facts.unmapped) == (source, mapping, unmapped)


def test_second_email_fills_in_for_a_missing_or_bad_first(tmp_path: Path) -> None:
    file = opened(tmp_path, "Email,Secondary Email\n,b@x.example\nbad,c@x.example\na@x.example,d@x.example\n")
    rows = list(file.rows())
    assert [row.keys.email for row in rows] == ["b@x.example", "c@x.example", "a@x.example"]
    assert [row.problem for row in rows] == [None, "email: not an e-mail address: 'bad'", None]


@pytest.mark.parametrize("word", ["true", "TRUE", "1", "Yes", "x", "2024-05-01", "unsubscribed"])
def test_whatever_is_not_a_no_is_an_opt_out(tmp_path: Path, word: str) -> None:
    (row,) = opened(tmp_path, f"email,Unsubscribed from all email\na@x.example,{word}\n").rows()
    assert row.suppressed is True


@pytest.mark.parametrize("word", ["", " ", "false", "No", "0", "n/a"])
def test_no_is_no_opt_out(tmp_path: Path, word: str) -> None:
    (row,) = opened(tmp_path, f"email,Email Opt Out\na@x.example,{word}\n").rows()
    assert row.suppressed is False


def test_salesforce_ids_are_extended_only_for_salesforce(tmp_path: Path) -> None:
    (ours,) = opened(tmp_path, "Lead ID,Lead Source\n001A0000006Vm9r,Web\n").rows()
    (other,) = opened(tmp_path, "Lead ID,Notes\n001A0000006Vm9r,Web\n").rows()
    assert ours.keys.contact == "salesforce:001A0000006Vm9rIAC"
    assert other.keys.contact == "file:001A0000006Vm9r"
