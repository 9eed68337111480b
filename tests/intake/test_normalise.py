import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.intake import normalise


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("  Acme,  Inc. ", "acme inc"),
        ("Company / Account", "company account"),
        ("Suite.Apt_No.", "suite apt no"),
        ("O'Brien & Sons", "o brien sons"),
        ("C++ Corp", "c++ corp"),
        ("a|b", "a b"),
        ("STRASSE", "strasse"),
        ("Stra\u00dfe", "strasse"),
        ("A\u00a0\u200bB", "a b"),
        ("\uff21\uff23\uff2d\uff25", "acme"),
        ("\ufb01ne \u2013 \u201cx\u201d", "fine x"),
        ("?!", ""),
    ],
)
def test_fold(text: str, folded: str) -> None:
    assert normalise.fold(text) == folded


@given(st.text(st.characters(max_codepoint=127), max_size=40))
def test_both_ways_of_folding_agree_on_ascii(text: str) -> None:
    assert normalise.fold(text) == normalise._fold_unicode(text)


@given(st.text(max_size=40))
def test_folded_text_can_be_part_of_a_key(text: str) -> None:
    folded = normalise.fold(text)
    assert "|" not in folded
    assert folded == " ".join(folded.split())


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("  a \n b\t", "a b"),
        ("\u200b\u00a0a\u00a0b\ufeff", "a b"),
        ("\u202ba\u202c", "a"),
        ("\u200b", ""),
        ("👩\u200d🚀", "👩\u200d🚀"),
    ],
)
def test_tidy(text: str, clean: str) -> None:
    assert normalise.tidy(text) == clean


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("Bob@Acme.Example", "Bob@acme.example"),
        ("mailto:bob@acme.example?subject=hi", "bob@acme.example"),
        ("Bob Smith <bob@acme.example>", "bob@acme.example"),
        ("b.o'b+tag@a-b.example", "b.o'b+tag@a-b.example"),
        ("bo\u0308b@b\u00fccher.example", "b\u00f6b@b\u00fccher.example"),
        ("'bob@acme.example'", "bob@acme.example"),
        ("bob", None),
        ("bob@", None),
        ("@acme.example", None),
        ("bob@acme", None),
        ("bob@acme..example", None),
        ("bob@-acme.example", None),
        ("bob@acme.example.", None),
        ("bob@acme.example, eve@acme.example", None),
        ("bob@x@acme.example", None),
        (".bob@acme.example", None),
        ("bob.@acme.example", None),
        ("b..b@acme.example", None),
        ("b ob@acme.example", None),
        ("x" * 65 + "@acme.example", None),
        ("<>", None),
    ],
)
def test_email(text: str, address: str | None) -> None:
    assert normalise.email(text) == address


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("https://www.Acme.example/about?x=1#y", "acme.example"),
        ("acme.example", "acme.example"),
        ("WWW.acme.example:8080", "acme.example"),
        ("acme.example.", "acme.example"),
        ("http://acme.example?x", "acme.example"),
        ("none", None),
        ("bob@acme.example", None),
        ("acme example.com", None),
        ("//", None),
    ],
)
def test_domain(text: str, host: str | None) -> None:
    assert normalise.domain(text) == host


@pytest.mark.parametrize(
    ("text", "region", "key"),
    [
        ("85716", "US", "85716"),
        ("85716-1234", "US", "85716"),
        ("857161234", "US", "85716"),
        ("2139", "US", "02139"),
        ("02139", "US", "02139"),
        ("857161", "US", "857161"),
        ("K1A 0B1", "CA", "k1a0b1"),
        ("85716-1234", "MX", "857161234"),
    ],
)
def test_zip_key(text: str, region: str, key: str) -> None:
    assert normalise.zip_key(text, region) == key


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("00123", "00123"),
        ("123.0", "123"),
        ("12E45", "12E45"),
        ("1.23E+15", None),
        ("1,23E+15", None),
        ("N/A", None),
        ("null", None),
    ],
)
def test_contact_id(text: str, value: str | None) -> None:
    assert normalise.contact_id(text) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("001A0000006Vm9r", "001A0000006Vm9rIAC"),
        ("00QD000000hcZ0P", "00QD000000hcZ0PMAU"),
        ("001A0000006Vm9rIAC", "001A0000006Vm9rIAC"),
        ("001a0000006vm9r", "001a0000006vm9rAAA"),
        ("short", "short"),
        ("n/a", None),
    ],
)
def test_salesforce_ids_of_15_characters_get_their_18(text: str, value: str | None) -> None:
    assert normalise.salesforce_id(text) == value


def test_zip_code_of_a_number_column_loses_its_decimal() -> None:
    assert normalise.zip_code("85716.0") == "85716"
    assert normalise.zip_code("02139") == "02139"
