from pathlib import Path

import pytest

from ledger.errors import BadInput
from ledger.intake import ImportFile, open_file

REGISTER = "No,Street,Firm,Tel,Kind,Stop\n12,Main St,Acme,NA,shop,\nNA,Elm St,NA,5205550100,NA,yes\n"


def mapped(folder: Path, toml: str | bytes, text: str = REGISTER) -> ImportFile:
    (folder / "leads.csv").write_text(text, encoding="utf-8")
    map_file = folder / "map.toml"
    map_file.write_bytes(toml if isinstance(toml, bytes) else toml.encode())
    return open_file(folder / "leads.csv", map_file=map_file)


def test_map_joins_columns_and_knows_missing_words(tmp_path: Path) -> None:
    file = mapped(
        tmp_path,
        """
        source = "city"
        missing = "NA"
        [fields]
        company = "Firm"
        street = ["No", "Street"]
        number1 = "Tel"
        suppressed = "Stop"
        extra = ["Kind"]
        """,
    )
    first, second = file.rows()
    assert file.facts.source == "city"
    assert file.facts.mapping == {
        "company": ["Firm"],
        "street": ["No", "Street"],
        "number1": ["Tel"],
        "suppressed": ["Stop"],
        "extra": ["Kind"],
        "missing": ["NA"],
    }
    assert file.facts.unmapped == ()
    assert (first.fields[1:3], first.extra, first.suppressed) == (
        ("Acme", "12 Main St"),
        '{"Kind": "shop"}',
        False,
    )
    assert (second.fields[1:3], second.extra, second.suppressed) == ((None, "Elm St"), None, True)
    assert second.keys == (None, None, None, "+15205550100")
    assert first.problem is second.problem is None


def test_with_a_map_nothing_else_is_mapped(tmp_path: Path) -> None:
    file = mapped(tmp_path, '[fields]\nemail = "mail"\n', "mail,company,id\na@x.example,Acme,7\n")
    assert file.facts.unmapped == ("company", "id")
    assert next(file.rows()).keys == (None, "a@x.example", None, None)


@pytest.mark.parametrize(
    ("toml", "says"),
    [
        ('[fields]\ncompany = "Firma"\n', "fields.company names the column 'Firma', which the file lacks"),
        ('[fields]\ncompany = "Firma"\n', "'No', 'Street', 'Firm'"),
        ('[fields]\nname = "Firm"\n', "fields.name is not a field"),
        ("[fields]\ncompany = 3\n", "fields.company must be a text or a list of texts"),
        ('[fields]\ncompany = ["Firm", 3]\n', "fields.company must be"),
        ("[fields]\ncompany = []\n", "fields.company names no column"),
        ('[fields]\nstreet = "Street"\n', "maps none of contact_id"),
        ("[fields]\n", "no [fields] table"),
        ('fields = "Firm"\n', "no [fields] table"),
        ('color = "red"\n', "the key 'color' is not known"),
        ('source = "a:b"\n[fields]\ncompany = "Firm"\n', "source must be"),
        ('source = 7\n[fields]\ncompany = "Firm"\n', "source must be"),
        ('missing = [""]\n[fields]\ncompany = "Firm"\n', "missing must be"),
        ("[fields\n", "is not TOML"),
        (b"\xff\xfe", "is not TOML"),
        ("#" * 70_000, "is over 65,536 bytes"),
    ],
)
def test_mistakes_in_a_map_are_named(tmp_path: Path, toml: str | bytes, says: str) -> None:
    with pytest.raises(BadInput) as caught:
        mapped(tmp_path, toml)
    assert says in str(caught.value)
    assert caught.value.file == str(tmp_path / "map.toml")


def test_a_map_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "leads.csv").write_text(REGISTER)
    with pytest.raises(BadInput, match=r"map\.toml: cannot be read"):
        open_file(tmp_path / "leads.csv", map_file=tmp_path / "map.toml")
