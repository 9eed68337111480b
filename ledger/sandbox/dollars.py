"""The sandbox's own money: integer micro-dollars inside, dollars on the wire."""

from __future__ import annotations

import math
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Final

MICRO: Final = 1_000_000
MAX_USD: Final = 10**9
"""Anything above is a mistake, and far below what a float shows exactly to the micro-dollar."""


def to_microusd(value: object) -> int:
    """Micro-dollars of an amount in dollars, given as a JSON number or as text; may be negative.

    Raises:
        ValueError: It is not an amount, not finite, or beyond a billion dollars.
    """
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"not an amount in dollars: {value!r}")  # noqa: TRY004 - callers catch one error
    try:
        amount = Decimal(str(value))
    except InvalidOperation:
        raise ValueError(f"not an amount in dollars: {value!r}") from None
    if not amount.is_finite() or abs(amount) > MAX_USD:
        raise ValueError(f"not an amount in dollars: {value!r}")
    return int((amount * MICRO).to_integral_value(ROUND_HALF_EVEN))


def spoken(microusd: int, money_as: str, decimals: int = 6) -> float | str:
    """The amount in dollars as the wire shows it.

    Args:
        microusd: Micro-dollars.
        money_as: `number`, `text`, or `noisy`: a number one float step too high (`0.30000000000000004`),
            as a server that adds up floats would show it.
        decimals: How many decimals are shown.
    """
    if money_as == "text":
        return f"{Decimal(microusd).scaleb(-6):.{decimals}f}"
    amount = round(microusd / MICRO, decimals)
    return math.nextafter(amount, math.inf) if money_as == "noisy" else amount
