from ledger.intake.identity import keys_of
from ledger.model import LEAD_FIELDS


def keys(source: str = "file", region: str = "US", **values: str) -> tuple[str | None, ...] | None:
    return keys_of(tuple(values.get(name) for name in LEAD_FIELDS), source, region)


def test_every_key_a_row_has_is_given() -> None:
    found = keys(
        source="hubspot",
        contact_id="7",
        email="Bob@Acme.example",
        company="Acme, Inc.",
        street="12 N. Main St.",
        zip="85716-1234",
        number1="+15205550100",
        number2="+15205550101",
    )
    assert found == ("hubspot:7", "bob@acme.example", "acme inc|12 n main st|85716", "+15205550100")


def test_second_number_stands_in_for_the_first() -> None:
    assert keys(number2="+15205550101") == (None, None, None, "+15205550101")


def test_place_needs_a_company_with_street_or_zip() -> None:
    assert keys(company="Acme", street="12 Main") == (None, None, "acme|12 main|", None)
    assert keys(company="Acme", zip="2139") == (None, None, "acme||02139", None)
    assert keys(street="12 Main", zip="85716", city="Tucson", dm_name="Bob") is None
    assert keys(company="...", street="12 Main", number1="+15205550100") == (None, None, None, "+15205550100")


def test_company_alone_is_still_a_lead() -> None:
    assert keys(company="Acme", city="Tucson", state="AZ") == (None, None, "acme||tucson|az", None)
    assert keys(company="Acme") == (None, None, "acme|||", None)
    assert keys(company="Acme", street="...") == (None, None, "acme|||", None)


def test_company_alone_is_no_key_beside_a_better_one() -> None:
    assert keys(company="Acme", city="Tucson", email="a@b.example") == (None, "a@b.example", None, None)


def test_nothing_is_no_lead() -> None:
    assert keys(company="???") is None
    assert keys(domain="acme.example", dm_name="Bob") is None


def test_the_two_kinds_of_place_never_meet() -> None:
    alone = keys(company="Acme", city="Tucson", state="AZ")
    placed = keys(company="Acme", street="Tucson", zip="AZ")
    assert alone is not None
    assert placed is not None
    assert alone[2] != placed[2]
