"""Style as a test: import direction, sizes, and the habits that a reader of this code relies on."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
GROWS_BY_DESIGN = {"migrations/migrations.py"}
"""Released migrations are never edited, so their file only grows."""

PURE = {
    "breaker",
    "clock",
    "crashpoints",
    "errors",
    "events",
    "machine",
    "model",
    "money",
    "plaintext",
    "policy",
    "polling",
    "sentences",
    "states",
    "testing",
    "transition",
}
RUNNER = {"funds", "intray", "orders", "poller", "prober", "quiet", "runner", "sender", "waiting"}
MAY_IMPORT = {
    "pure": {"pure"},
    "store": {"pure", "store"},
    "api": {"pure", "api"},
    "intake": {"pure", "intake"},
    "sandbox": {"sandbox"},
    "browse": {"pure", "browse"},  # and store.inbox: it reads through Datasette and never writes the ledger
    "runner": {"pure", "store", "api", "runner"},
    "cli": {"pure", "store", "api", "intake", "sandbox", "runner", "browse", "cli", "migrations"},
    "migrations": set[str](),
}


def sources() -> list[Path]:
    folders = ("ledger", "cli", "migrations")
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    name = ".".join(parts if parts[0] == "ledger" else ("ledger", *parts))
    return name.removesuffix(".__init__")


def part_of(module: str) -> str:
    names = module.split(".")
    if names[0] != "ledger" or len(names) == 1:
        return "pure"
    if names[1] in {"store", "api", "intake", "sandbox", "browse", "cli", "migrations"}:
        return names[1]
    return "runner" if names[1] in RUNNER else "pure"


def imports_of(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


each_source = pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))


@each_source
def test_imports_point_one_way(path: Path) -> None:
    module = module_name(path)
    part = part_of(module)
    names = module.split(".")
    if part == "pure" and len(names) == 2:
        assert names[1] in PURE, f"{module}: say in tests/test_tidy.py whether it is pure"
    known = {module_name(source) for source in sources()}
    for imported in imports_of(parsed(path)):
        if imported in known and imported != "ledger":
            target = part_of(imported)
            if part == "browse" and imported.startswith("ledger.store"):
                assert imported == "ledger.store.inbox", (
                    f"{module} may only drop into the inbox, not {imported}"
                )
                continue
            assert target in MAY_IMPORT[part], f"{module} ({part}) imports {imported} ({target})"


@each_source
def test_outside_libraries_have_one_door(path: Path) -> None:
    doors = {
        "httpx": "ledger/api/transport.py",
        "httpcore": "ledger/api/transport.py",
        "sqlite3": "ledger/store/engine.py",
    }
    name = str(path.relative_to(ROOT))
    for imported in imports_of(parsed(path)):
        top = imported.split(".")[0]
        if top in doors:
            assert name == doors[top], f"{name} imports {top}; only {doors[top]} may"
        if top == "datasette":
            assert name.startswith("ledger/browse/") or name == "cli/browse.py", f"{name} imports datasette"
        if top == "sqlite_utils":
            assert name.startswith(("ledger/store/", "migrations/")), f"{name} imports sqlite_utils"
        if part_of(module_name(path)) == "pure":
            assert top not in {"asyncio", "socket", "subprocess"} or name in {
                "ledger/clock.py",
                "ledger/testing.py",
            }, f"{name} is pure and imports {top}"


@each_source
def test_sizes(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if str(path.relative_to(ROOT)) not in GROWS_BY_DESIGN:
        assert len(text.splitlines()) <= FILE_LINES_MAX, "what two things does this file do?"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            assert lines <= FUNCTION_LINES_MAX, f"{node.name} has {lines} lines"


@each_source
def test_the_clock_and_the_terminal_have_one_owner(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called != "print", f"{name}: print belongs to cli/output.py"
            if called in {"datetime.now", "datetime.utcnow", "time.time", "datetime.today"}:
                assert name in {"ledger/clock.py", "ledger/sandbox/clock.py"}, f"{name} calls {called}"


@each_source
def test_sql_is_never_an_f_string_in_a_call(path: Path) -> None:
    if path.parts[-2] == "migrations":
        return  # a migration's statements are put together from its own constants
    for node in ast.walk(parsed(path)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        assert node.func.attr != "executescript", "it commits what is open"
        if node.func.attr in {"execute", "executemany"}:
            assert not isinstance(node.args[0], ast.JoinedStr), f"line {node.lineno}"


def test_one_function_writes_the_state() -> None:
    writers = [
        str(path.relative_to(ROOT))
        for path in sources()
        if re.search(r"UPDATE jobs SET(?:(?!WHERE)[^\"])*\bstate\s*=", path.read_text(encoding="utf-8"))
        and "migrations" not in path.parts
    ]
    assert writers == ["ledger/store/steps.py"]
    text = (ROOT / "ledger/store/steps.py").read_text(encoding="utf-8")
    assert len(re.findall(r"execute\(\s*_MOVE\b", text)) == 1


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_nothing_names_a_machine_or_a_registry() -> None:
    hosts = "|".join(["pypi" + r"\.org", "python" + "hosted", "registry" + r"\.npm", "deb" + r"\.debian"])
    bad = re.compile(rf"(^|[\s\"'(=])/(work|home|root)/|{hosts}", re.MULTILINE)
    for path in tracked():
        if path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        found = bad.search(text)
        assert found is None, f"{path.relative_to(ROOT)}: {found and found.group(0)!r}"


def test_no_work_is_left_without_an_owner() -> None:
    unowned = re.compile(r"\b(TODO|FIXME|XXX)\b(?!\()")
    for path in tracked():
        if path.suffix in {".py", ".toml", ".md"} and path != Path(__file__):
            assert not unowned.search(path.read_text(encoding="utf-8")), path


def test_every_exemption_gives_its_reason() -> None:
    bare = re.compile(r"#\s*noqa(:\s*[A-Z0-9, ]+)?\s*$|#\s*type:\s*ignore(\[[^\]]*\])?\s*$", re.MULTILINE)
    for path in sources():
        found = bare.search(path.read_text(encoding="utf-8"))
        assert found is None, f"{path.relative_to(ROOT)}: {found and found.group(0)}"
