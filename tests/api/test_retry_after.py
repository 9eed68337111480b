from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.api.retry_after import retry_after_s

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("120", 120.0),
        (" 7 ", 7.0),
        ("0", 0.0),
        ("00030", 30.0),
        ("900", 900.0),
        ("901", 900.0),
        ("99999999999", 900.0),
        ("9" * 5_000, 900.0),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("1e3", None),
        ("٣٠", None),
        ("soon", None),
        ("120, 120", None),
        ("", None),
        (None, None),
        ("Fri, 02 Jan 2026 03:04:35 GMT", 30.0),
        ("Friday, 02-Jan-26 03:04:35 GMT", 30.0),
        ("Fri Jan  2 03:04:35 2026", 30.0),
        ("Fri, 02 Jan 2026 03:04:00 GMT", 0.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 900.0),
        ("Fri, 31 Dec 9999 23:59:59 -2359", 900.0),
        ("Fri, 02 Jan 99999 03:04:35 GMT", None),
        ("Fri, 45 Foo 2026 99:99:99 GMT", None),
        ("Fri, the thirteenth", None),
    ],
)
def test_each_form_is_read_or_refused(value: Any, expected: Any) -> None:
    assert retry_after_s(value, NOW) == expected


@given(
    st.one_of(st.text(max_size=60), st.from_regex(r"(Mon|Fri), [0-9]{1,3} [A-Z][a-z]{2} [0-9: GMT+-]{1,30}"))
)
def test_no_text_raises_or_asks_for_more_than_a_quarter_of_an_hour(value: Any) -> None:
    wait = retry_after_s(value, NOW)
    assert wait is None or 0 <= wait <= 900
