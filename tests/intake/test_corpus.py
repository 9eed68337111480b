"""Good and broken files; what must come of each: rows with rejections (row, column, reason), or a refusal."""

import codecs
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ledger.errors import BadInput
from ledger.intake import open_file
from ledger.intake.identity import NO_IDENTITY

GOOD = "id,company,phone\n1,Acme,5205550100\n2,Böb,\n"
MAP = '[fields]\ncompany = "Firm"\n'
QUOTE = "a quote is not closed, or not doubled inside a quoted cell"
CLOSED = [f"{n},Acme {n}" for n in range(60)]


@dataclass(frozen=True)
class Good:
    """A file that is taken in."""

    name: str
    content: bytes
    rows: int
    rejections: tuple[tuple[int, str | None, str], ...] = ()
    encoding: str = "utf-8"
    delimiter: str = ","
    first: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Broken:
    """A file that is refused."""

    name: str
    content: bytes
    says: str
    row: int | None = None
    column: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    suffix: str = ".csv"


GOOD_FILES = [
    Good("plain", GOOD.encode(), 2, first={"id": "1", "company": "Acme", "phone": "5205550100"}),
    Good("crlf", GOOD.replace("\n", "\r\n").encode(), 2),
    Good("bare cr", GOOD.replace("\n", "\r").encode(), 2),
    Good("no newline at the end", GOOD.rstrip().encode(), 2),
    Good(
        "bom", codecs.BOM_UTF8 + GOOD.encode(), 2, first={"id": "1", "company": "Acme", "phone": "5205550100"}
    ),
    Good("utf-16", GOOD.encode("utf-16"), 2, encoding="utf-16"),
    Good("utf-16 big endian", codecs.BOM_UTF16_BE + GOOD.encode("utf-16-be"), 2, encoding="utf-16"),
    Good("utf-16 tabs", GOOD.replace(",", "\t").encode("utf-16"), 2, encoding="utf-16", delimiter="\t"),
    Good(
        "utf-16 asked for",
        GOOD.encode("utf-16-le"),
        2,
        encoding="utf-16-le",
        options={"encoding": "utf-16-le"},
    ),
    Good("utf-32", GOOD.encode("utf-32"), 2, encoding="utf-32"),
    Good("cp1252 asked for", GOOD.encode("cp1252"), 2, encoding="cp1252", options={"encoding": "cp1252"}),
    Good(
        "cp1252 with an undefined byte",
        GOOD.encode("cp1252") + b"3,\x81,\n",
        3,
        ((4, "company", "byte 0x81 does not fit the encoding"),),
        encoding="cp1252",
        options={"encoding": "cp1252"},
    ),
    Good(
        "mixed encodings under utf-8",
        b"id,company\n1,B\xc3\xb6b\n2,B\xf6b\n3,Bob\n",
        3,
        ((3, "company", "byte 0xF6 does not fit the encoding"),),
        options={"encoding": "utf-8"},
    ),
    Good("tabs", GOOD.replace(",", "\t").encode(), 2, delimiter="\t"),
    Good("semicolons", GOOD.replace(",", ";").encode(), 2, delimiter=";"),
    Good("pipes", GOOD.replace(",", "|").encode(), 2, delimiter="|"),
    Good("semicolons with decimal commas", b"id;company;score\n1;Acme;1,5\n2;Bob;2,5\n", 2, delimiter=";"),
    Good(
        "tabs with commas inside",
        b"company\tcity\nAcme, Inc\tTucson, AZ\nBob, Ltd\tX, Y\n",
        2,
        delimiter="\t",
    ),
    Good(
        "sep line",
        b"sep=;\r\nid;company\r\n1;Acme\r\n",
        1,
        delimiter=";",
        first={"id": "1", "company": "Acme"},
    ),
    Good("sep line after bom", codecs.BOM_UTF8 + b'"sep=\t"\nid\tcompany\n1\tAcme\n', 1, delimiter="\t"),
    Good("five characters are not always a sep line", b"id  ,\n7,\n", 1, first={"id": "7"}),
    Good("known headers tell the separator", b"email;a,b,c\nx@y.example;1,2,3\n", 1, delimiter=";"),
    Good("asked-for delimiter", b"id^company\n1^Acme\n", 1, delimiter="^", options={"delimiter": "^"}),
    Good("delimiter by word", b"id\tcompany\n1\tAcme\n", 1, delimiter="\t", options={"delimiter": "tab"}),
    Good("one known column", b"email\na@b.example\nc@d.example\n", 2),
    Good("quoted newline", b'id,company,street\n1,Acme,"12 Main\nSuite 4"\n2,Bob,\n', 2),
    Good("quoted cr", b'id,company,street\n1,Acme,"12 Main\rSuite 4"\n2,Bob,\n', 2),
    Good(
        "doubled quotes",
        b'id,company\n1,"The ""Best"" Co"\n',
        1,
        first={"id": "1", "company": 'The "Best" Co'},
    ),
    Good(
        "quote inside a bare cell",
        b'id,company\n1,6" Pipe Co\n',
        1,
        first={"id": "1", "company": '6" Pipe Co'},
    ),
    Good("fifty line breaks in a cell", b'id,company\n1,"' + b"x\n" * 50 + b'"\n2,Bob\n', 2),
    Good(
        "quote closed by a later quote",
        b'id,company\n1,"Acme\n2,"Bob"\n3,Eve\n',
        2,
        (
            (
                2,
                None,
                f"{QUOTE}, and the record runs over 2 lines",
            ),
        ),
    ),
    Good(
        "text after a closing quote",
        b'id,company\n1,"Acme" Inc\n2,Bob\n',
        2,
        ((2, None, QUOTE),),
    ),
    Good(
        "ragged",
        b"id,company,city\n1,Acme\n2,Bob,Tucson,AZ\n3,Eve,Yuma\n4\n",
        4,
        (
            (2, None, "has 2 cells, the header has 3"),
            (3, None, "has 4 cells, the header has 3"),
            (5, None, "has 1 cell, the header has 3"),
        ),
    ),
    Good(
        "blank lines are no rows but are counted",
        b"id,company\n\n1,Acme\n\n\n2\n",
        2,
        ((6, None, "has 1 cell, the header has 2"),),
    ),
    Good(
        "blank lines before the header",
        b"\n\nid,company\n1\n",
        1,
        ((4, None, "has 1 cell, the header has 2"),),
    ),
    Good("all cells blank", b"id,company\n1,Acme\n,\n", 2, ((3, None, NO_IDENTITY),)),
    Good(
        "blank columns at the right end",
        b"id,company,,\n1,Acme,,\n2,Bob\n3,Eve,x,\n",
        3,
        ((4, None, "has 4 cells, the header has 2"),),
        first={"id": "1", "company": "Acme"},
    ),
    Good("nul byte", b"id,company\n1,Ac\0me\n2,Bob\n", 2, ((2, "company", "NUL byte"),)),
    Good(
        "the text backslash-u0000 is no nul byte",
        rb"id,company" b"\n" rb"1,\u0000" b"\n",
        1,
        first={"id": "1", "company": r"\u0000"},
    ),
    Good(
        "a cell of one megabyte",
        b"id,company\n1," + b"x" * 1_000_000 + b"\n2,Bob\n",
        2,
        ((2, "company", "a cell of 1,000,000 bytes, the limit is 65,536"),),
    ),
    Good("a cell at the limit", b"id,company\n1," + b"x" * 65_536 + b"\n", 1),
    Good(
        "a wide cell over the limit in bytes",
        b"id,company\n1," + "é".encode() * 32_769 + b"\n",
        1,
        ((2, "company", "a cell of 65,538 bytes, the limit is 65,536"),),
    ),
    Good(
        "a quoted megabyte with line breaks",
        b'id,company\n1,"' + (b"x" * 100_000 + b"\n") * 10 + b'"\n2,Bob\n',
        2,
        ((2, "company", "a cell of 1,000,010 bytes, the limit is 65,536"),),
    ),
    Good(
        "mangled phone alone",
        b"phone\n5.55E+09\n5205550100\n",
        2,
        ((2, "phone", f"{NO_IDENTITY} (number1: '5.55E+09' was mangled by a spreadsheet)"),),
    ),
    Good(
        "leading zeros",
        b"id,zip,company\n00123,02139,Acme\n",
        1,
        first={"id": "00123", "zip": "02139", "company": "Acme"},
    ),
    Good("formula", b"id,company\n1,=1+1\n", 1, first={"id": "1", "company": "=1+1"}),
    Good(
        "right to left, emoji, nbsp", "id,company\n1,\u202bAcme\u202c\n2,😀\u200b\n3,A\u00a0B\n".encode(), 3
    ),
    Good(
        "only invisible characters",
        "email\n\u200b\u00a0\na@b.example\n".encode(),
        2,
        ((2, None, NO_IDENTITY),),
    ),
    Good(
        "500 columns",
        ",".join(["id", *(f"c{n}" for n in range(499))]).encode() + b"\n1" + b"," * 499 + b"\n",
        1,
    ),
    Good(
        "percent in a header",
        b"id,% share,company\n1,50%,Acme\n",
        1,
        first={"id": "1", "% share": "50%", "company": "Acme"},
    ),
]

BROKEN_FILES = [
    Broken("empty", b"", "is empty"),
    Broken("only a bom", codecs.BOM_UTF8, "is empty"),
    Broken("only blank lines", b"\n\r\n\n", "is empty"),
    Broken("header only", b"id,company\n", "has a header and no rows"),
    Broken("header and blank lines", b"id,company\n\n\n", "has a header and no rows"),
    Broken("unknown headers", b"foo,bar\n1,2\n", "'foo', 'bar'"),
    Broken("no header", b"Acme,12 Main\nBob,9 Elm\n", "--map"),
    Broken("only places", b"city,state\nTucson,AZ\n", "identifies a lead"),
    Broken(
        "same header twice", b"id,company,id\n1,Acme,2\n", "columns 1 and 3 have the same header", 1, "id"
    ),
    Broken("same header but for spaces", b"id,company, id \n1,Acme,2\n", "columns 1 and 3", 1, "id"),
    Broken("blank header", b"id,,company\n1,x,Acme\n", "column 2 has no header", 1),
    Broken("one column", b"a:b\n1:2\n", "one column"),
    Broken("501 columns", b"id," + b",".join(b"c%d" % n for n in range(500)) + b"\n1\n", "501 columns"),
    Broken("endless header", b"id," + b"x" * 2_000 + b"\n1,2\n", "2,000 characters", 1),
    Broken("cp1252 unasked", GOOD.encode("cp1252"), "byte 38 (0xF6) is not UTF-8", 3),
    Broken("cp1252 after a quoted newline", b'id,company\n1,"a\nb"\n2,\xf6\n', "byte 21 (0xF6)", 3),
    Broken("cp1252 after a sep line", b"sep=;\nid;company\n1;\xf6\n", "byte 19 (0xF6)", 2),
    Broken("utf-8 cut through", "id,company\n1,Bö".encode()[:-1], "byte 14 (0xC3) is not UTF-8", 2),
    Broken("utf-16 cut through", GOOD.encode("utf-16")[:-1], "is not UTF-16"),
    Broken("utf-16 without its mark", GOOD.replace("ö", "o").encode("utf-16-le"), "NUL bytes", 1),
    Broken(
        "bom against --encoding",
        codecs.BOM_UTF8 + GOOD.encode(),
        "byte order mark",
        options={"encoding": "cp1252"},
    ),
    Broken("no such encoding", GOOD.encode(), "not an encoding", options={"encoding": "klingon"}),
    Broken("an encoding that makes no text", GOOD.encode(), "not an encoding", options={"encoding": "hex"}),
    Broken("an encoding without streams", GOOD.encode(), "cannot be decoded", options={"encoding": "idna"}),
    Broken("delimiter of two", GOOD.encode(), "cannot part cells", options={"delimiter": "::"}),
    Broken("delimiter a quote", GOOD.encode(), "cannot part cells", options={"delimiter": '"'}),
    Broken(
        "bad byte in the header",
        b"id,comp\xf6ny\n1,Acme\n",
        "fit the encoding",
        1,
        options={"encoding": "utf-8"},
    ),
    Broken(
        "unclosed quote", ('id,company\n0,Acme\n1,"Acme\n' + "\n".join(CLOSED)).encode(), "50 line breaks", 3
    ),
    Broken(
        "unclosed quote near the end", b'id,company\n1,Acme\n2,"Bob\n3,Eve\n', "the file ends inside it", 3
    ),
    Broken(
        "51 line breaks in a closed cell",
        b'id,company\n1,"' + b"x\n" * 51 + b'"\n2,Bob\n',
        "50 line breaks",
        2,
    ),
    Broken("unclosed quote in the header", b'id,"company\n1,Acme\n', "the file ends inside it", 1),
    Broken("quote in the header", b'id,"company" x\n1,Acme\n', "header cannot be read", 1),
    Broken("a line without end", b"id,company\n1," + b"x" * (1 << 22), "this is no table", 2),
    Broken(
        "a cell without end",
        b'id,company\n1,"' + (b"x" * (1 << 20) + b"\n") * 5 + b'"\n',
        "a cell has more",
        2,
    ),
    Broken("workbook", b"PK\x03\x04rest", "workbook"),
    Broken("workbook by name", GOOD.encode(), "workbook", suffix=".xlsx"),
    Broken("jsonl by name", b'{"id": 1}\n', "JSON", suffix=".jsonl"),
]


def write(folder: Path, content: bytes, suffix: str = ".csv") -> Path:
    path = folder / f"leads{suffix}"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("case", GOOD_FILES, ids=lambda case: case.name)
def test_file_is_taken_in(case: Good, tmp_path: Path) -> None:
    file = open_file(write(tmp_path, case.content), **case.options)
    rows = list(file.rows())
    assert len(rows) == case.rows
    assert [(row.number, *row.rejection) for row in rows if row.rejection] == list(case.rejections)
    assert (file.facts.encoding, file.facts.delimiter) == (case.encoding, case.delimiter)
    for row in rows:
        row.raw.encode()
        assert isinstance(json.loads(row.raw), dict)
        assert any(row.keys) == (row.rejection is None)
    if case.first:
        assert json.loads(rows[0].raw) == case.first


@pytest.mark.parametrize("case", BROKEN_FILES, ids=lambda case: case.name)
def test_file_is_refused(case: Broken, tmp_path: Path) -> None:
    path = write(tmp_path, case.content, case.suffix)
    with pytest.raises(BadInput) as caught:
        list(open_file(path, **case.options).rows())
    assert case.says in str(caught.value)
    assert (caught.value.file, caught.value.row, caught.value.column) == (str(path), case.row, case.column)
    assert caught.value.exit_code == 2


def test_raw_keeps_what_a_rejected_row_said(tmp_path: Path) -> None:
    content = b'id,company\n1\n2,Acme,x,y\n3,"a" b\n4,B\xf6b\n5,No\0l\n'
    rows = list(open_file(write(tmp_path, content), encoding="utf-8").rows())
    assert [json.loads(row.raw) for row in rows] == [
        {"id": "1"},
        {"id": "2", "company": "Acme", "(cell 3)": "x", "(cell 4)": "y"},
        {"(line)": '3,"a" b\n'},
        {"id": "4", "company": r"B\udcf6b"},
        {"id": "5", "company": "No\0l"},
    ]


def test_row_with_a_bad_cell_is_a_lead_with_a_problem(tmp_path: Path) -> None:
    content = b"id,phone,email,website\n1,5.55E+09,bob at x,none\n2,555-1234,,\n"
    first, second = open_file(write(tmp_path, content)).rows()
    assert first.problem == (
        "number1: '5.55E+09' was mangled by a spreadsheet; "
        "email: not an e-mail address: 'bob at x'; domain: not a web address: 'none'"
    )
    assert second.problem == "number1: not a phone number: '555-1234'"
    assert first.rejection is None
    assert first.keys == ("file:1", None, None, None)


def test_map_file_reads_a_table_of_one_column(tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text(MAP)
    file = open_file(write(tmp_path, b"Firm\nAcme\nBob\n"), map_file=tmp_path / "map.toml")
    assert [row.fields[1] for row in file.rows()] == ["Acme", "Bob"]


def test_white_space_in_fields_is_collapsed_and_kept_in_the_raw_text(tmp_path: Path) -> None:
    content = (
        b'id,company,street\n1, Acme  Inc ,"12 Main\n Suite 4"\n2,Acme\tInc,\n3, Acme Inc ,\n4,Acme  Inc,\n'
    )
    rows = list(open_file(write(tmp_path, content)).rows())
    assert [row.fields[1] for row in rows] == ["Acme Inc"] * 4
    assert rows[0].fields[2] == "12 Main Suite 4"
    assert json.loads(rows[0].raw) == {"id": "1", "company": " Acme  Inc ", "street": "12 Main\n Suite 4"}
