"""Message heads as they were read and found good."""

from __future__ import annotations

import msgspec

Fields = dict[bytes, bytes]  # values without the white space around them


class RequestHead(msgspec.Struct, gc=False):
    """A validated request head. `fields` has lower-case names; repeated ones are joined with a comma."""

    method: bytes
    target: bytes
    http11: bool
    fields: Fields
    length: int  # bytes of the head itself
    content_length: int  # 0 when there is no body; -1 for chunked
    keep_alive: bool


class ResponseHead(msgspec.Struct, gc=False):
    """A validated response head. `content_length`: bytes, -1 chunked, -2 until the connection closes."""

    status: int
    fields: Fields
    raw_fields: bytes
    length: int
    content_length: int
    keep_alive: bool
