"""Money is an integer number of micro-dollars (1 USD = 1,000,000); no float ever touches it."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation, Overflow
from typing import Final

MICRO: Final = 1_000_000
MAX_MICROUSD: Final = 10**15
"""A billion dollars: anything above is garbage, and far below what 64 bits hold."""


def parse_usd(value: object) -> int | None:
    """Micro-dollars of an amount in dollars, rounded half-even to 1 micro-dollar.

    Takes `Decimal`, `int` or text; a JSON body must therefore be read with `parse_float=Decimal`
    (`0.30000000000000004` is legal JSON). A leading `$` and thousands commas in text are understood.

    Returns:
        Micro-dollars ≥ 0, or None when the value is not an amount: a bool, a float, a negative,
        not finite, above a billion dollars, or text that is not a number.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return None
    amount = _decimal(value)
    if amount is None:
        return None
    try:
        micro = (amount * MICRO).quantize(Decimal(1), rounding=ROUND_HALF_EVEN)
    except (InvalidOperation, Overflow):  # more digits than 28: far above a billion dollars
        return None
    if not 0 <= micro <= MAX_MICROUSD:
        return None
    return int(micro)


def _decimal(value: int | str | Decimal) -> Decimal | None:
    """The finite number that `value` says; text in ASCII digits only, without Python's underscores."""
    if isinstance(value, str):
        value = value.strip().removeprefix("$").replace(",", "")
        if not value.isascii() or "_" in value:
            return None
    try:
        number = Decimal(value)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def last_digit_microusd(value: object) -> int:
    """The weight of the last digit that an amount in dollars shows: 10,000 for `"12.34"`, 1 for `0.000001`.

    A balance that shows two decimals cannot tell amounts below one cent apart; the balance audit needs
    to know that. An integer or an unreadable value weighs one dollar.
    """
    if isinstance(value, bool) or not isinstance(value, int | str | Decimal):
        return MICRO
    number = _decimal(value)
    exponent = 0 if number is None else number.as_tuple().exponent
    # By exponent, not by the text: `str(Decimal("0.0000001"))` is `1E-7`, which shows no point.
    shown = -exponent if isinstance(exponent, int) and exponent < 0 else 0
    return int(10 ** (6 - min(shown, 6)))


def usd(microusd: int) -> str:
    """Dollars for people: at least two decimals, more only when they say something (`$1.50`, `$0.000001`)."""
    sign = "-" if microusd < 0 else ""
    whole, rest = divmod(abs(microusd), MICRO)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}${whole:,}.{decimals}"


def plain_usd(microusd: int) -> str:
    """Dollars for machines: no sign of currency, no thousands separator (`1.50`)."""
    return usd(microusd).replace("$", "").replace(",", "")
