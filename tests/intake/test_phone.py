import pytest

from ledger.intake.phone import elsewhere, north_american


@pytest.mark.parametrize(
    "text",
    [
        "5205550100",
        "(520) 555-0100",
        "520.555.0100",
        "520 555 0100",
        "1-520-555-0100",
        "15205550100",
        "+1 520 555 0100",
        "+1 (520) 555-0100",
        "001 520 555 0100",
        "520.555.0100 x12",
        "520-555-0100 ext. 4",
        "520-555-0100, extension 1234",
        "tel:+1-520-555-0100;ext=5",
        "5205550100.0",
        "520\u2011555\u20110100",
        "\uff15\uff12\uff10\uff15\uff15\uff15\uff10\uff11\uff10\uff10",
    ],
)
def test_north_american_spellings_are_one_number(text: str) -> None:
    assert north_american(text) == "+15205550100"


@pytest.mark.parametrize(
    "text",
    [
        "555-1234",
        "5.55E+09",
        "1-800-FLOWERS",
        "120-555-0100",
        "520-155-0100",
        "+1 120 555 0100",
        "2222222222",
        "0000000000",
        "52055501001",
        "520 555 0100 / 520 555 0101",
        "+",
        "00",
        "011",
        "x12",
        "n/a",
        "+0123456789",
        "+123456",
        "+1234567890123456",
        "5205550100" + "," * 100 + "x1",
    ],
)
def test_what_is_no_number_for_certain_is_none(text: str) -> None:
    assert north_american(text) is None


@pytest.mark.parametrize(
    "text", ["+44 20 7183 8750", "+44 (0)20 7183 8750", "0044 20 7183 8750", "+44-20-7183-8750"]
)
def test_a_country_code_is_kept_everywhere(text: str) -> None:
    assert elsewhere(text) == north_american(text) == "+442071838750"


def test_international_prefix_of_the_north_american_plan() -> None:
    assert north_american("011 44 20 7183 8750") == "+442071838750"


def test_elsewhere_a_bare_number_is_not_guessed() -> None:
    assert elsewhere("5205550100") is None
    assert elsewhere("020 7183 8750") is None
    assert elsewhere("+1 520 555 0100") == "+15205550100"
