"""Replaces the model's name in a JSON body and leaves every other byte as the client sent it.

The usual body names `"model"` once: then the one occurrence is the field, since the typed decode has seen it at the top level,
and a splice is all. Anything else (the word as a key further in, an escaped key, a repeated key) takes the slow way: a walk
along the top level that replaces the value of each member `model`. It passes over values as a whole, in the regular
expression engine as far as they are nested no deeper than usual, so that it takes some milliseconds a megabyte.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

_SPACE: Final = rb"[ \t\r\n]*+"
_STRING: Final = rb'"(?:[^"\\]++|\\.)*+"'
_FLAT: Final = rb'[^"{}\[\]]++|' + _STRING
_USUAL_DEPTH: Final = 4


def _nested(depth: int) -> bytes:
    """What is balanced, with brackets so deep in each other at most."""
    return rb"(?:" + _FLAT + (rb"|[{\[]" + _nested(depth - 1) + rb"[}\]]" if depth else b"") + rb")*+"


_FIELD: Final = re.compile(rb'"model"' + _SPACE + rb":" + _SPACE + rb"(" + _STRING + rb")")
_MEMBER: Final = re.compile(_SPACE + rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE + rb"(" + _STRING + rb")?+")
_BALANCED: Final = re.compile(_nested(_USUAL_DEPTH))
_SCALAR: Final = re.compile(rb"[^,}]++")
_NEXT: Final = re.compile(_SPACE + rb",")
_LETTER_ESCAPED: Final = b"\\u006"  # of m, o, d, e and l, which no encoder escapes


def replace_model(body: bytes, model: str) -> bytes:
    """The body with its top-level `model` set to `model`. The body must have passed `classify`."""
    value = msgspec.json.encode(model)
    if body.count(b'"model"') == 1 and _LETTER_ESCAPED not in body:
        found = _FIELD.search(body)
        if found is not None:
            return body[: found.start(1)] + value + body[found.end(1) :]
    return _replace_slowly(body, value)


def _replace_slowly(body: bytes, value: bytes) -> bytes:
    """Splices at each top-level key that decodes to `model`."""
    pieces: list[bytes] = []
    done = 0
    position = body.index(b"{") + 1
    while (member := _MEMBER.match(body, position)) is not None:
        position = member.end()
        if member.group(2) is None:
            position = _behind(body, position)
        elif msgspec.json.decode(member.group(1)) == "model":
            start, end = member.span(2)
            pieces += (body[done:start], value)
            done = end
        separator = _NEXT.match(body, position)
        if separator is None:
            break
        position = separator.end()
    return b"".join((*pieces, body[done:]))


def _behind(body: bytes, position: int) -> int:
    """Where the value that starts at `position`, and is no string, has ended."""
    if body[position] not in b"{[":
        return _SCALAR.match(body, position).end()  # type: ignore[union-attr]
    depth = 1
    position += 1
    while depth:
        position = _BALANCED.match(body, position).end()  # type: ignore[union-attr]
        depth += 1 if body[position] in b"{[" else -1
        position += 1
    return position
