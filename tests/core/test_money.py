"""Money never touches a float, and an amount that is none is None."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.money import MAX_MICROUSD, last_digit_microusd, parse_usd, plain_usd, usd


@pytest.mark.parametrize(
    ("said", "microusd"),
    [
        ("0.42", 420_000),
        ("$0.42", 420_000),
        (" $1,234.50 ", 1_234_500_000),
        ("1", 1_000_000),
        ("1e3", 1_000_000_000),
        (0, 0),
        (3, 3_000_000),
        ("-0", 0),
        (Decimal("0.30000000000000004"), 300_000),
        ("0.0000005", 0),  # half to even
        ("0.0000015", 2),
        ("0.0000025", 2),
        ("0.00000251", 3),
        (MAX_MICROUSD // 1_000_000, MAX_MICROUSD),
    ],
)
def test_an_amount_is_read_half_even_to_one_micro_dollar(said: object, microusd: int) -> None:
    assert parse_usd(said) == microusd


@pytest.mark.parametrize(
    "said",
    [
        None, True, False, 0.42, float("nan"), [], {}, b"1", "", " ", "$", "-0.01", "-$5", -1,
        "NaN", "sNaN", Decimal("NaN"), Decimal("sNaN"), "Infinity", "-Infinity", Decimal("Infinity"), "1e400",
        10**30,
        pytest.param(10**5000, id="10**5000"), Decimal("-0.1"),
        Decimal(10) ** 20, MAX_MICROUSD // 1_000_000 + 1, "0x10", "1_000", "1.2.3", "abc",
        "\u0663", "\uff11\uff12", "1\u066b5", "0.4\u00b2", "1 2", "\x00", "$$1",
    ],
)  # fmt: skip
def test_what_is_no_amount_is_none(said: object) -> None:
    assert parse_usd(said) is None


def test_json_read_as_decimal_loses_nothing() -> None:
    body = json.loads('{"a": 0.1, "b": 0.30000000000000004, "c": 1.5E-3, "d": NaN}', parse_float=Decimal)
    assert [parse_usd(body[name]) for name in "abcd"] == [100_000, 300_000, 1_500, None]


@given(st.integers(0, MAX_MICROUSD))
def test_what_is_shown_reads_back_as_itself(microusd: int) -> None:
    assert parse_usd(usd(microusd)) == microusd
    assert parse_usd(plain_usd(microusd)) == microusd
    assert parse_usd(Decimal(plain_usd(microusd))) == microusd


@given(st.text(max_size=30))
def test_no_text_makes_it_raise(text: str) -> None:
    found = parse_usd(text)
    assert found is None or 0 <= found <= MAX_MICROUSD
    assert 1 <= last_digit_microusd(text) <= 1_000_000


@pytest.mark.parametrize(
    ("microusd", "text"),
    [
        (0, "$0.00"),
        (1, "$0.000001"),
        (1_500_000, "$1.50"),
        (420_000, "$0.42"),
        (1_234_567_890_000, "$1,234,567.89"),
        (-1_080_000, "-$1.08"),
        (-1, "-$0.000001"),
    ],
)
def test_dollars_for_people(microusd: int, text: str) -> None:
    assert usd(microusd) == text


def test_dollars_for_machines_have_no_sign_of_currency() -> None:
    assert plain_usd(1_234_567_890_000) == "1234567.89"
    assert plain_usd(-5) == "-0.000005"


@pytest.mark.parametrize(
    ("said", "weight"),
    [
        ("12.34", 10_000),
        ("$1,012.3", 100_000),
        (Decimal("0.000001"), 1),
        (Decimal("0.00000001"), 1),  # its own text is 1E-8
        (Decimal("0E-9"), 1),
        (Decimal("12.50"), 10_000),
        (Decimal("1.5E+3"), 1_000_000),
        ("12", 1_000_000),
        (12, 1_000_000),
        ("12.", 1_000_000),
        ("NaN", 1_000_000),
        (Decimal("NaN"), 1_000_000),
        ("x.yz", 1_000_000),
        (True, 1_000_000),
        (None, 1_000_000),
        (1.25, 1_000_000),
    ],
)
def test_the_weight_of_the_last_digit_shown(said: object, weight: int) -> None:
    assert last_digit_microusd(said) == weight
