"""Takes one HTTP/1.1 reply apart, strictly; nothing of the proxies' own parsers is used."""

from __future__ import annotations

import re
from typing import Final

_HEAD: Final = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]*((?:\r\n[!-9;-~]+:[ -~]*)*)")
_SIZE: Final = re.compile(rb"[0-9a-fA-F]{1,8}")


class GarbledError(Exception):
    """This is no HTTP."""


class Reply:
    """Fed with bytes until `whole`. `rest`: bytes behind the end, which nobody asked for."""

    __slots__ = ("_buffer", "_chunked", "_left", "fields", "rest", "status", "whole")

    def __init__(self) -> None:
        self.status = 0
        self.fields: dict[bytes, bytes] = {}
        self.whole = False
        self.rest = b""
        self._buffer = b""
        self._left = 0  # of a body with a length, or of a chunk and its CRLF
        self._chunked = False

    @property
    def keep_alive(self) -> bool:
        """Whether the connection may take another request."""
        return self.fields.get(b"connection", b"").lower() != b"close"

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body in it. Raises `GarbledError`."""
        data = self._buffer + data
        self._buffer = b""
        if not self.status:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                if len(head) > 65536:
                    raise GarbledError("a head without an end")
                self._buffer = head
                return b""
            self._read_head(head)
        return self._chunks(data) if self._chunked else self._length(data)

    def _read_head(self, head: bytes) -> None:
        match = _HEAD.fullmatch(head)
        if match is None:
            raise GarbledError(repr(head[:80]))
        self.status = int(match[1])
        for line in match[2].split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name in {b"content-length", b"transfer-encoding"} and name in self.fields:
                raise GarbledError("framing said twice")
            self.fields[name] = value.strip()
        coding, length = self.fields.get(b"transfer-encoding"), self.fields.get(b"content-length")
        if self.status < 200 or (coding is None) == (length is None) or coding not in {None, b"chunked"}:
            raise GarbledError(f"{self.status} with {coding!r} and {length!r}")
        self._chunked = coding is not None
        self._left = int(length) if length is not None else 0

    def _length(self, data: bytes) -> bytes:
        body, self.rest = data[: self._left], data[self._left :]
        self._left -= len(body)
        self.whole = not self._left
        return body

    def _chunks(self, data: bytes) -> bytes:  # noqa: PLR0912 - one branch a state
        body = []
        while data:
            if self._left > 2:
                piece = data[: self._left - 2]
                body.append(piece)
                self._left -= len(piece)
                data = data[len(piece) :]
            elif self._left:
                if len(data) < self._left:
                    self._buffer = data
                    break
                if data[:2] != b"\r\n":
                    raise GarbledError("a chunk that does not end")
                data, self._left = data[2:], 0
            else:
                line, end, after = data.partition(b"\r\n")
                if not end:
                    if len(line) > 32:
                        raise GarbledError("no size of a chunk")
                    self._buffer = data
                    break
                if _SIZE.fullmatch(line) is None:
                    raise GarbledError(f"size of a chunk {line[:32]!r}")
                size = int(line, 16)
                if size:
                    self._left, data = size + 2, after
                elif len(after) < 2:
                    self._buffer = data
                    break
                elif after[:2] != b"\r\n":
                    raise GarbledError("trailers")
                else:
                    self.whole, self.rest, data = True, after[2:], b""
        return b"".join(body)
