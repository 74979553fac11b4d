"""Replaces the model's name in a JSON body.

The usual body names `"model"` once: then the one occurrence is the field, since the typed decode has seen it at the top level,
and a splice is all: every other byte stays as the client sent it. Anything else (the word as a key further in, an escaped key, a
repeated key) takes the slow way: the members of the top level are written anew, each value with the bytes that it came with. What was
repeated stands there once then, with its last value, which is the one that the request was routed by. Both take some
milliseconds for ten megabytes. A body that is made of very many members would hold up the loop for most of a second, so more
strings than `MAX_STRINGS` are not read in the slow way. How deep the slow way reads depends on the calls that it stands in: a body that `classify`, called from
further out, could just read may be too deep for it.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from spillway_sidecar.routing.classify import TOO_DEEP, BadRequest

_SPACE: Final = rb"[ \t\r\n]*+"
MAX_STRINGS: Final = 50_000  # a member has one for its name
_FIELD: Final = re.compile(rb'"model"' + _SPACE + rb":" + _SPACE + rb'("(?:[^"\\]++|\\.)*+")')
_LETTER_ESCAPED: Final = b"\\u006"  # of m, o, d, e and l, which no encoder escapes
_members: Final = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def replace_model(body: bytes, model: str) -> bytes:
    """The body with its top-level `model` set to `model`. The body must have passed `classify`. Raises `BadRequest`."""
    value = msgspec.json.encode(model)
    first = body.find(b'"model"')
    if first >= 0 and body.find(b'"model"', first + 7) < 0 and _LETTER_ESCAPED not in body:
        found = _FIELD.match(body, first)
        if found is not None:
            return body[: found.start(1)] + value + body[found.end(1) :]
    if body.count(b'"') - body.count(b'\\"') > 2 * MAX_STRINGS:
        raise BadRequest("The request body has too many parts for its model's name to be replaced.")
    try:
        members = _members(body)
    except RecursionError:
        raise BadRequest(TOO_DEEP) from None
    members["model"] = msgspec.Raw(value)
    return msgspec.json.encode(members)
