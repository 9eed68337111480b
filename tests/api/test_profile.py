import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.api.profile import DEFAULT_FILE, Lacks, Profile, canonical_json, request_key
from ledger.errors import UsageProblem
from ledger.model import LEAD_FIELDS
from ledger.policy import DEFAULT_LATENCY_S
from ledger.states import ROUTES


@pytest.fixture
def load(tmp_path: Path) -> Any:
    def write(text: str) -> Any:
        file = tmp_path / "mine.toml"
        file.write_text(text, encoding="utf-8")
        return Profile.load(file)

    return write


def test_the_built_in_profile_says_what_the_notes_say(profile: Profile) -> None:
    assert profile.base_url == "https://411data.io"
    assert tuple(profile.routes) == ROUTES
    assert [route.price_microusd for route in profile.routes.values()] == [
        330_000,
        500_000,
        1_000_000,
        1_500_000,
    ]
    assert [route.mode for route in profile.routes.values()] == ["sync", "sync", "async", "async"]
    assert (profile.honours_idempotency_key, profile.sends_idempotency_key) == (False, True)
    assert (profile.correlation, profile.balance_exclusive) == (False, True)
    assert [profile.deadline_s(mode) for mode in ("async", "sync")] == [60, 240]


def test_every_key_of_the_file_says_where_it_comes_from() -> None:
    text = DEFAULT_FILE.read_text(encoding="utf-8")
    assert len(re.findall(r"\[(S: |I\b|assumed)", text)) > 40
    assert tomllib.loads(text)


def test_the_policy_takes_the_profiles_numbers_and_overrides(profile: Profile) -> None:
    policy = profile.policy(freeze_s=3.0, gone_polls=2)
    assert (policy.freeze_s, policy.gone_polls) == (3.0, 2)
    assert (policy.refund_settle_s, policy.job_deadline_s) == (60.0, 86_400.0)
    assert policy.latency_s == DEFAULT_LATENCY_S


def test_a_users_file_holds_only_what_differs(load: Any) -> None:
    mine = load(
        "freeze_s = 2\n[routes.'enrich/phone']\nprice_usd = 0.05\n"
        "[routes.'enrich/websearch'.request]\nname = 'company'\n[words]\ndone = ['ok']\n"
    )
    assert (mine.freeze_s, mine.routes["enrich/phone"].price_microusd) == (2.0, 50_000)
    assert mine.routes["enrich/phone"].needs == (("number1",),)
    assert mine.request_for("websearch", {"company": "A", "city": "B"}) == {"name": "A"}
    assert mine.words.done == ("ok",)


@pytest.mark.parametrize("price", ["0.1", "'0.10'", "0.1000000000000000055"])
def test_a_price_is_read_without_floats(load: Any, price: str) -> None:
    assert (
        load(f"[routes.'enrich/phone']\nprice_usd = {price}").routes["enrich/phone"].price_microusd == 100_000
    )


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("freez_s = 1", "freez_s is not known"),
        ("[limits]\nconnect_ms = 1", "limits.connect_ms is not known"),
        ("freeze_s = 'long'", "freeze_s must be a number of seconds"),
        ("freeze_s = true", "freeze_s must be a number of seconds"),
        ("freeze_s = -1", "freeze_s must be a number of seconds"),
        ("freeze_s = inf", "freeze_s must be a number of seconds"),
        ("correlation = 'yes'", "correlation must be true or false"),
        ("base_url = 5", "base_url must be text"),
        ("paths = 5", "paths must be a table"),
        ("routes = 5", "routes must be a table"),
        ("[limits]\npoll_connections = 0", "limits.poll_connections must be a whole number"),
        ("[limits]\nsync_total_s = 0", "limits must be seconds above 0"),
        ("[words]\ndone = 'done'", "words.done must be a list of words"),
        ("[routes.'enrich/phone']\nprice_usd = -1", '"enrich/phone".price_usd must be an amount'),
        ("[routes.'enrich/phone']\nprice_usd = nan", '"enrich/phone".price_usd must be an amount'),
        ("[routes.'enrich/phone']\nlatency_s = [3, 1]", "latency_s must be a list of two numbers"),
        ("[routes.'enrich/phone']\nneeds = []", "needs must be a list of lists"),
        ("[routes.'enrich/phone']\nneeds = [['fax']]", "made of lead fields"),
        ("[routes.'enrich/phone']\nrequest = { x = 1 }", "request must be a table of words"),
        ("[routes.'enrich/phone']\nmode = 'async'", "mode must be one of its modes"),
        ("[routes.'enrich/phone']\nmodes = ['later']", "modes must be"),
        ("[routes.'enrich/fax']\nmode = 'sync'", "is missing"),
        ("[ceiling]\nmin_usd = 2", "ceiling must be amounts"),
        ("api_prefix = 'api'", "api_prefix must be"),
        ("[paths]\npoll = '/jobs'", "paths.poll must be"),
        ("[paths]\nsync = '/x'", "paths.sync must be"),
        ("[paths]\nbalance = 'x'", "paths must be"),
        ("not toml", "mine.toml cannot be read"),
    ],
)
def test_a_wrong_key_is_named_with_what_it_must_be(load: Any, text: str, names: str) -> None:
    with pytest.raises(UsageProblem, match=re.escape(names)):
        load(text)


def test_an_unknown_route_is_refused(load: Any) -> None:
    phone = tomllib.loads(DEFAULT_FILE.read_text(encoding="utf-8"))["routes"]["enrich/phone"]
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in phone.items() if key != "request")
    with pytest.raises(UsageProblem, match="routes must be tables named"):
        load(f"[routes.'enrich/fax']\n{lines}\nrequest = {{ x = 'number1' }}")


def test_a_missing_file_is_a_usage_problem(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem):
        Profile.load(tmp_path / "none.toml")


FULL = {name: f"<{name}>" for name in LEAD_FIELDS}


def test_a_full_lead_fills_every_field_of_each_route(profile: Profile) -> None:
    assert profile.request_for("phone", FULL) == {"phone": "<number1>"}
    assert set(profile.request_for("person", FULL)) == {"name", "phone", "street", "city", "state", "zip"}
    assert profile.request_for("websearch", FULL) == {
        "business_name": "<company>",
        "city": "<city>",
        "state": "<state>",
    }
    assert profile.request_for("enrich/lead-session", FULL) == {"lead": FULL}


@pytest.mark.parametrize(
    ("route", "lead", "expected"),
    [
        ("websearch", {"company": "A", "city": "", "state": None}, {"business_name": "A"}),
        ("websearch", {"city": "B"}, Lacks(("company",))),
        ("phone", {"number2": "1"}, Lacks(("number1",))),
        ("person", {"dm_name": "D"}, {"name": "D"}),
        ("person", {"number1": "1"}, {"phone": "1"}),
        ("person", {"street": "S", "zip": "Z"}, {"street": "S", "zip": "Z"}),
        ("person", {"street": "S", "city": "C"}, Lacks(("dm_name", "number1", "street+zip"))),
        ("lead-session", {"company": "A"}, {"lead": {"company": "A"}}),
        (
            "lead-session",
            {"contact_id": "1"},
            Lacks(("company", "dm_name", "number1", "email", "domain", "street+zip")),
        ),
    ],
)
def test_a_lead_is_asked_with_what_it_has_or_lacks_what_is_needed(
    profile: Profile, route: str, lead: dict[str, Any], expected: Any
) -> None:
    assert profile.request_for(route, lead) == expected


def test_modes_and_routes_are_checked(profile: Profile) -> None:
    assert profile.mode_for("websearch") == "async"
    assert profile.mode_for("lead-session", "sync") == "sync"
    with pytest.raises(UsageProblem, match="only sync"):
        profile.mode_for("enrich/phone", "async")
    with pytest.raises(UsageProblem, match="no route 'fax'"):
        profile.route("fax")


@pytest.mark.parametrize(
    ("route", "mode", "asked", "ceiling"),
    [
        ("websearch", "async", None, 1_500_000),
        ("websearch", "async", 50_000, 50_000),
        ("websearch", "async", 50_000_000, 50_000_000),
        ("phone", "sync", None, 330_000),
        ("phone", "sync", 330_000, 330_000),
        ("lead-session", "sync", None, 1_500_000),
    ],
)
def test_a_ceiling_has_a_default(
    profile: Profile, route: str, mode: str, asked: Any, ceiling: int | None
) -> None:
    assert profile.ceiling_for(route, mode, asked) == ceiling


@pytest.mark.parametrize(
    ("route", "mode", "asked"),
    [
        ("websearch", "async", 49_999),
        ("websearch", "async", 50_000_001),
        ("phone", "sync", 329_999),
        ("phone", "sync", 0),
    ],
)
def test_a_ceiling_that_cannot_be_kept_is_refused(
    profile: Profile, route: str, mode: str, asked: Any
) -> None:
    with pytest.raises(UsageProblem, match="cannot be kept"):
        profile.ceiling_for(route, mode, asked)


def test_equal_payloads_have_one_key() -> None:
    assert canonical_json({"b": 1, "a": {"ü": [1, 2]}}) == '{"a":{"ü":[1,2]},"b":1}'
    assert request_key({"b": 1, "a": 2}) == request_key({"a": 2, "b": 1})
    assert request_key({"a": 2}) != request_key({"a": "2"})
    assert re.fullmatch("[0-9a-f]{64}", request_key({}))


@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")) | st.integers()
    )
)
def test_the_canonical_text_is_the_payload_again(payload: Any) -> None:
    assert json.loads(canonical_json(payload)) == payload
