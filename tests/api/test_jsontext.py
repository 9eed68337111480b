import json
import sys
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.api.jsontext import DEPTH_MAX, Unreadable, at, dump, load, load_object, plain


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "empty"),
        (b"  \n", "empty"),
        (b"<html>", "not_json"),
        (b'{"a": 1', "not_json"),
        (b"\xff\xfe{}", "not_json"),
        (b'{"a": NaN}', "not_a_number"),
        (b'{"a": -Infinity}', "not_a_number"),
        (b'{"a": ' + b"7" * 5_000 + b"}", "not_json"),
        (b'{"a": 1e99999999999999999999}', "not_json"),
        (b"[" * 100_000, "too_deep"),
        (b"[" * 100_000 + b"]" * 100_000, "too_deep"),
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "too_deep"),
        (b'{"x": [{"job_id": 1, "job_id": 2}]}', "repeated_key"),
        (b"[1]", "not_an_object"),
        (b"null", "not_an_object"),
    ],
)
def test_what_is_not_acceptable_json_has_a_code(body: Any, code: str) -> None:
    with pytest.raises(Unreadable) as caught:
        load_object(body, once=("job_id",))
    assert caught.value.code == code


def test_depth_up_to_the_limit_is_read() -> None:
    assert load(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX) is not None


def test_other_keys_may_repeat_and_the_last_counts() -> None:
    assert load_object(b'{"note": 1, "note": 2}', once=("job_id",)) == {"note": 2}


def test_a_byte_order_mark_is_no_obstacle() -> None:
    assert load_object(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_an_amount_keeps_every_digit_through_load_and_dump() -> None:
    text = '{"a":0.30000000000000004,"b":1.50,"c":[true,null,"é\\u0000"]}'
    value = load(text)
    assert value["a"] == Decimal("0.30000000000000004")
    assert dump(value) == text


def test_a_lone_surrogate_is_dumped_as_an_escape() -> None:
    text = dump(load('{"a": "x\\ud800y"}'))
    assert text.encode() == b'{"a":"x\\ud800y"}'


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.decimals(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_what_is_dumped_is_json_again(value: Any) -> None:
    assert json.loads(dump(value), parse_float=Decimal) is not Ellipsis
    assert load(dump(value)) == load(dump(load(dump(value))))


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_unreadable(body: Any) -> None:
    try:
        load(body)
    except Unreadable as problem:
        assert problem.code  # noqa: PT017 - either way is right; only another exception would be wrong


@pytest.mark.parametrize(
    ("place", "expected"), [("a", {"b": 1}), ("a.b", 1), ("a.c", None), ("a.b.c", None), ("x.y", None)]
)
def test_a_dotted_place_is_followed_as_far_as_it_goes(place: str, expected: Any) -> None:
    assert at({"a": {"b": 1}}, place) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("a\nb\x1b[2J", "a b [2J"),
        ("\u202eevil", "evil"),
        ("\ud800", None),
        (12, "12"),
        (True, None),
        ([], None),
        ("", None),
        ("x" * 50, "x" * 10),
    ],
)
def test_plain_text_is_one_printable_line(value: Any, expected: Any) -> None:
    assert plain(value, 10) == expected


def test_the_depth_limit_is_far_from_the_recursion_limit() -> None:
    assert sys.getrecursionlimit() > DEPTH_MAX * 4
