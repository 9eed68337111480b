"""Nothing awaits or yields inside a transaction: another task's write would join it and share its fate."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import ledger

PACKAGE = Path(ledger.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
ASYNC_VERBS = {"write", "claim", "record", "resend"}
"""The store's only async functions: they hand plain functions to the group commit and wait for it."""
WAITS = (ast.Await, ast.AsyncFor, ast.AsyncWith, ast.Yield, ast.YieldFrom)


def opens_transaction(block: ast.With) -> bool:
    calls = (item.context_expr for item in block.items)
    return any("transaction" in ast.unparse(call.func) for call in calls if isinstance(call, ast.Call))


def is_the_helper_itself(function: ast.AST) -> bool:
    return isinstance(function, ast.FunctionDef) and function.name == "transaction"


def waits_in_transactions(source: str) -> list[int]:
    """Lines that await or yield inside a `with …transaction(…)` block."""
    tree = ast.parse(source)
    helpers = {id(part) for node in ast.walk(tree) if is_the_helper_itself(node) for part in ast.walk(node)}
    return [
        part.lineno
        for block in ast.walk(tree)
        if isinstance(block, ast.With) and opens_transaction(block) and id(block) not in helpers
        for part in ast.walk(block)
        if isinstance(part, WAITS)
    ]


def async_functions(source: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.AsyncFunctionDef)}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_transaction_waits(path: Path) -> None:
    assert waits_in_transactions(path.read_text(encoding="utf-8")) == []


def test_the_stores_only_async_functions_are_the_group_commits() -> None:
    for path in SOURCES:
        if path.parent.name == "store":
            allowed = ASYNC_VERBS if path.name in {"group.py", "ledger.py"} else set()
            assert async_functions(path.read_text(encoding="utf-8")) <= allowed, path.name


def test_there_are_transactions_to_look_at() -> None:
    blocks = sum(path.read_text(encoding="utf-8").count("transaction(") for path in SOURCES)
    assert blocks > 8


@pytest.mark.parametrize(
    "bad",
    [
        "async def f():\n with transaction(c):\n  await g()",
        "async def f():\n with books.transaction():\n  async for x in g(): pass",
        "async def f():\n with a, transaction(c):\n  if x:\n   async with g(): pass",
        "def f():\n with self.books.transaction():\n  yield 1",
    ],
)
def test_the_check_finds_what_it_looks_for(bad: str) -> None:
    assert waits_in_transactions(bad) == [3 if "if x" not in bad else 4]
