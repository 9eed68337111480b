"""`Retry-After`, read so that no value of it can stop us for long or raise (faults.md, 8.2)."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

RETRY_AFTER_MAX_S: Final = 900.0
"""A quarter of an hour: a provider that asks for more is asked again then."""

_DIGITS: Final = re.compile(r"[0-9]+")
_DATE: Final = re.compile(r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? [ -~]{10,40}")


def retry_after_s(value: str | None, now: datetime) -> float | None:
    """Seconds to wait, clamped to 0..900, or None when the value says nothing usable.

    Understood are ASCII digits and the three forms of an HTTP date (RFC 9110, 10.2.3); a date in the past
    is 0. A sign, a fraction, digits of other scripts and words are not.
    """
    text = (value or "").strip()
    if _DIGITS.fullmatch(text):
        # Compared by length first: int() refuses more than 4,300 digits.
        return RETRY_AFTER_MAX_S if len(text.lstrip("0")) > 3 else min(float(text), RETRY_AFTER_MAX_S)
    if not _DATE.fullmatch(text):
        return None
    try:
        at = parsedate_to_datetime(text)
        wait = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
    return min(max(wait, 0.0), RETRY_AFTER_MAX_S)
