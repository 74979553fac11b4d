"""Replaces the model's name in a JSON body and leaves every other byte as the client sent it.

The usual body names `"model"` once: then the one occurrence is the field, if the typed decode has seen it at the top level,
and a splice is all. Anything else (the word inside a prompt, an escaped key, a repeated key) takes the slow way: a scan of
the top level that knows strings and nesting, and replaces each top-level `model`.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_FIELD: Final = re.compile(rb'"model"[ \t\r\n]*+:[ \t\r\n]*+("(?:[^"\\]|\\.)*+")')
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[{}\[\],:]')
_SPACE: Final = b" \t\r\n"


def replace_model(body: bytes, model: str) -> bytes:
    """The body with its top-level `model` set to `model`. The body must have passed `classify`."""
    value = msgspec.json.encode(model)
    if body.count(b'"model"') == 1 and b"\\u" not in body:
        found = _FIELD.search(body)
        if found is not None:
            return body[: found.start(1)] + value + body[found.end(1) :]
    return _replace_slowly(body, value)


def _replace_slowly(body: bytes, value: bytes) -> bytes:
    """Splices at each top-level key that decodes to `model`: positions from a token scan of the validated JSON."""
    depth = 0
    key: bytes | None = None
    expect_key = False
    spans: list[tuple[int, int]] = []
    for token in _TOKEN.finditer(body):
        mark = token.group()
        if mark in (b"{", b"["):
            depth += 1
            expect_key = depth == 1
        elif mark in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and mark == b",":
            expect_key, key = True, None
        elif depth == 1 and mark[0] == 0x22:
            if expect_key:
                key, expect_key = mark, False
            elif key is not None and msgspec.json.decode(key) == "model":
                spans.append(token.span())
    for start, end in reversed(spans):
        body = body[:start] + value + body[end:]
    return body
