"""Heads that come again: on a kept connection the next head is nearly always the one before it, but for its Content-Length.

So a connection remembers the bytes of its last head around that number. What comes next is compared with them, which is two looks at
memory, and read anew where it differs: nothing is taken for good that has not been through the grammar once, byte for byte.
What is remembered belongs to one connection, and never meets another client's.
"""

from __future__ import annotations

from typing import Final

from spillway_sidecar.proxy.heads import RequestHead, ResponseHead

MAX_REMEMBERED_BYTES: Final = 2048
MAX_DIGITS: Final = 9
_LENGTH: Final = b"content-length"
_LENGTH_LINE: Final = b"\r\ncontent-length:"
_NONE: Final = b""


class RepeatedRequest:
    """The last request head of a connection."""

    __slots__ = ("_after", "_before", "_head")

    def __init__(self, data: bytes, head: RequestHead) -> None:
        self._head = head
        self._before, self._after = _around(data, head.length, head.fields.get(_LENGTH))

    def again(self, data: bytes, max_body_bytes: int) -> RequestHead | None:
        """The head at the start of `data`, or None where it is another one, or not whole, or to be refused."""
        before = self._before
        if not data.startswith(before):
            return None
        head = self._head
        after = self._after
        if not after:
            return head
        start = len(before)
        end = _end_of_digits(data, start)
        if data[end : end + len(after)] != after or end == start:
            return None
        digits = data[start:end]
        if digits != head.fields[_LENGTH]:
            length = int(digits)
            if length > max_body_bytes:
                return None
            head.fields[_LENGTH] = digits
            head.content_length = length
            head.length = end + len(after)
        return head


class RepeatedReply:
    """The last reply head of a connection."""

    __slots__ = ("_after", "_before", "_first_line", "_head")

    def __init__(self, data: bytes, head: ResponseHead) -> None:
        self._head = head
        self._first_line = head.length - len(head.raw_fields) - 2
        self._before, self._after = _around(data, head.length, head.fields.get(_LENGTH))

    def again(self, data: bytes) -> ResponseHead | None:
        """The head at the start of `data`, or None where it is another one, or not whole."""
        before = self._before
        if not data.startswith(before):
            return None
        head = self._head
        after = self._after
        if not after:
            return head
        start = len(before)
        end = _end_of_digits(data, start)
        if data[end : end + len(after)] != after or end == start:
            return None
        digits = data[start:end]
        if digits != head.fields[_LENGTH]:
            head.fields[_LENGTH] = digits
            head.content_length = int(digits)
            head.length = end + len(after)
            head.raw_fields = data[self._first_line : head.length - 2]
        return head


def remembered_request(data: bytes, head: RequestHead) -> RepeatedRequest | None:
    """The head that was read at the start of `data`, if it is worth remembering."""
    return RepeatedRequest(data, head) if head.length <= MAX_REMEMBERED_BYTES else None


def remembered_reply(data: bytes, head: ResponseHead) -> RepeatedReply | None:
    """The head that was read at the start of `data`, if it is worth remembering."""
    return RepeatedReply(data, head) if head.length <= MAX_REMEMBERED_BYTES and head.status == 200 else None


def _around(data: bytes, length: int, declared: bytes | None) -> tuple[bytes, bytes]:
    """The head's bytes before and after the digits of its Content-Length; all of them and none where it has no such field."""
    if declared is None:
        return data[:length], _NONE
    line = data[:length].lower().find(_LENGTH_LINE)
    start = data.find(declared, line + len(_LENGTH_LINE))
    return data[:start], data[start + len(declared) : length]


def _end_of_digits(data: bytes, start: int) -> int:
    """Where the number at `start` ends."""
    end = start
    limit = min(len(data), start + MAX_DIGITS)
    while end < limit and 48 <= data[end] <= 57:
        end += 1
    return end
