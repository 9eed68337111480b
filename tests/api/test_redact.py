import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.api.redact import CUT, cut_text, cut_value

NEEDLE = "pb_s3cr3t/needle"


@pytest.mark.parametrize(
    "text",
    [
        '{"poll_bearer": "pb_s3cr3t/needle", "job_id": "job_1"}',
        '{"a": [{"b": {"upload_token":"pb_s3cr3t/needle"}}], "job_id": "job_1"}',
        '{"SIGNING_SECRET" :\n "pb_s3cr3t/needle", "job_id": "job_1"}',
        '{"poll\\u005fbearer": "pb_s3cr3t/needle", "job_id": "job_1"}',
        '{"poll_bearer": "pb_s3cr3t\\/needle", "job_id": "job_1"}',
        '{"x": "a \\" quote", "poll_bearer": "pb_s3cr3t/needle", "job_id": "job_1"}',
        '{"job_id": "job_1", "poll_bearer": "pb_s3cr3t/need',
        '{"job_id": "job_1", "poll_bearer": {"value": "pb_s3cr3t/needle"}}',
        '{"job_id": "job_1", "poll_bearer": ["pb_s3cr3t/needle"',
        'not json: "poll_bearer": pb_s3cr3t/needle, job_1',
    ],
)
def test_a_secret_field_is_cut_out_of_any_text(text: str) -> None:
    cut = cut_text(text)
    assert "s3cr3t" not in cut
    assert "job_1" in cut
    assert CUT in cut


def test_a_known_value_is_cut_wherever_it_stands() -> None:
    text = json.dumps({"poll_url": f"/jobs/1?bearer={NEEDLE}", NEEDLE: NEEDLE.replace("/", "\\/")})
    assert "s3cr3t/needle" not in cut_text(text, (NEEDLE,))
    assert "s3cr3t" not in json.dumps(cut_value({"u": f"x{NEEDLE}x", NEEDLE: [NEEDLE]}, (NEEDLE,)))


def test_a_secret_inside_a_longer_one_leaves_no_ends_behind() -> None:
    assert cut_text("x 411k_abcdef_tail x", ("411k_abcdef", "411k_abcdef_tail")) == f"x {CUT} x"


def test_nothing_else_changes() -> None:
    text = '{"charged_usd": 0.4200, "note": "bearer \\u00e9", "code": 12}'
    assert cut_text(text, ("411k_key", "cod", "")) == text
    assert cut_value({"a": [1, None, "cod"]}, ("cod",)) == {"a": [1, None, "cod"]}


@given(
    st.recursive(
        st.text(max_size=8) | st.integers(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["a", "poll_bearer", 'q"', ":"]), inner, max_size=3)
        ),
        max_leaves=12,
    ),
    st.booleans(),
)
def test_a_needle_at_any_depth_is_gone_and_the_rest_stays_json(around: Any, ascii_only: bool) -> None:
    document = {"pre": around, "upload_token": NEEDLE, "post": around}
    cut = cut_text(json.dumps(document, ensure_ascii=ascii_only))
    assert "s3cr3t" not in cut
    assert cut_value(document)["upload_token"] == CUT


def test_a_hostile_body_costs_linear_time() -> None:
    for text in (
        '"a' * 200_000,
        '"poll_bearer":' * 50_000,
        '"' + "\\" * 400_001,
        "poll_bearer" + '"x" ' * 200_000,
    ):
        assert isinstance(cut_text(text), str)
