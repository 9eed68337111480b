"""Each error says what it did to the money and ends the program with its own code; secrets stay shut."""

from __future__ import annotations

import pickle

import pytest

from ledger import errors
from ledger.events import Secret

CODES = {
    errors.LeadledgerError: 1,
    errors.UsageProblem: 2,
    errors.BadInput: 2,
    errors.LedgerFileProblem: 2,
    errors.StoreProblem: 1,
    errors.LedgerBusy: 5,
    errors.DiskTrouble: 1,
    errors.StaleWrite: 1,
    errors.ProviderProblem: 2,
    errors.Unreachable: 75,
    errors.Bug: 1,
    errors.IllegalEvent: 1,
}


def test_every_error_has_its_exit_code() -> None:
    found = {item for item in vars(errors).values() if isinstance(item, type)}
    ours = {item for item in found if issubclass(item, errors.LeadledgerError)}
    assert {item: item.exit_code for item in ours} == CODES


@pytest.mark.parametrize("kind", sorted(CODES.keys() - {errors.BadInput}, key=lambda kind: kind.__name__))
def test_an_error_is_a_sentence_about_the_cause_the_money_and_the_next_step(
    kind: type[errors.LeadledgerError],
) -> None:
    error = kind("It broke.", next_step="Mend it.")
    assert str(error) == f"It broke. {kind.default_money} Mend it."
    assert kind.default_money.endswith(".")
    assert str(kind("It broke.", money="One cent is gone.")) == "It broke. One cent is gone."


def test_bad_input_says_where() -> None:
    error = errors.BadInput("too long", file="leads.csv", row=3, column="E-Mail")
    assert str(error).startswith("leads.csv, row 3, column 'E-Mail': too long Nothing was imported")


def test_a_secret_shows_itself_nowhere() -> None:
    secret = Secret("pb-123")
    shown = f"{secret} {secret!r} {[secret]} {vars(Secret)}"
    assert "123" not in shown
    assert secret.reveal() == "pb-123"
    assert secret == Secret("pb-123") != Secret("other")
    assert len({secret, Secret("pb-123")}) == 1
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
