"""Cutting bearers and tokens out of a body before it is kept: by key name at any depth, then by value.

Two forms: `cut_text` works on raw text, so that amounts keep the digits they came with and a truncated
body is cut too; `cut_value` works on a loaded document, so that the result stays valid JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Final

SECRET_NAMES: Final = frozenset({"poll_bearer", "upload_token", "signing_secret"})
"""The fields in which the provider hands out a credential (provider notes, section 1)."""
CUT: Final = "[cut]"
SECRET_LENGTH_MIN: Final = 6
"""A shorter value is cut by its key only: cutting it everywhere would cut words out of the answer."""

# Possessive, so that a hostile body costs linear time. `\Z`: a truncated bearer is a bearer too.
_STRING: Final = r'"(?:[^"\\]++|\\.)*+(?:"|\Z)'
# Every string is taken whole, so that no closing quote is mistaken for an opening one.
_TOKEN: Final = re.compile(rf"(?P<text>{_STRING})(?P<colon>\s*+:\s*+)?", re.DOTALL)
# An array or object as a secret is nowhere documented: the rest of the text goes with it.
_VALUE: Final = re.compile(rf'{_STRING}|[\[{{].*|[^\s,\]}}"]*+', re.DOTALL)


def cut_text(text: str, secrets: Sequence[str] = ()) -> str:
    """`text` without the values of secret fields, there or elsewhere, and without `secrets`."""
    lowered = text.lower()
    found: list[str] = []
    if "\\u" in lowered or any(name in lowered for name in SECRET_NAMES):
        text, found = _cut_fields(text)
    for secret in _long_enough((*secrets, *found)):
        for form in (secret, json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]):
            text = text.replace(form, CUT)
    return text


def _cut_fields(text: str) -> tuple[str, list[str]]:
    kept: list[str] = []
    found: list[str] = []
    done = 0
    for token in _TOKEN.finditer(text):
        if token.start() < done or token["colon"] is None or not _names_a_secret(token["text"]):
            continue
        value = _VALUE.match(text, token.end())
        kept += (text[done : token.end()], f'"{CUT}"')
        done = value.end() if value else token.end()
        found.append(_unquoted(text[token.end() : done]))
    return "".join((*kept, text[done:])), found


def _names_a_secret(quoted: str) -> bool:
    return _unquoted(quoted).lower() in SECRET_NAMES


def _unquoted(quoted: str) -> str:
    try:
        return str(json.loads(quoted))
    except ValueError:
        return quoted.strip('"')


def cut_value(value: Any, secrets: Sequence[str] = ()) -> Any:
    """A copy of a loaded JSON value, cut in the same places (its depth is bounded by `jsontext.load`)."""
    return _cut_value(value, _long_enough((*secrets, *_named(value))))


def _named(value: Any) -> Iterator[str]:
    items = value.items() if isinstance(value, dict) else ()
    for name, item in items:
        if name.lower() in SECRET_NAMES and isinstance(item, str):
            yield item
    for child in value if isinstance(value, list) else (item for _, item in items):
        if isinstance(child, dict | list):
            yield from _named(child)


def _cut_value(value: Any, secrets: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {
            _cut_value(name, secrets): CUT if name.lower() in SECRET_NAMES else _cut_value(item, secrets)
            for name, item in value.items()
        }
    if isinstance(value, list):
        return [_cut_value(item, secrets) for item in value]
    if isinstance(value, str):
        for secret in secrets:
            value = value.replace(secret, CUT)
    return value


def _long_enough(secrets: Sequence[str]) -> list[str]:
    # The longest first: a secret inside another one must not leave the other's ends behind.
    return sorted({text for text in secrets if len(text) >= SECRET_LENGTH_MIN}, key=len, reverse=True)
