"""HTTP/1.1 requests out of bytes, for a server that trusts its loopback clients.

`RequestReader` is fed what a socket delivers and gives whole requests, with Content-Length or chunked bodies. It is small
rather than strict: the proxies in front of an engine refuse what is doubtful.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MAX_HEAD_BYTES = 64 * 1024
MAX_BODY_BYTES = 64 * 1024 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed", 413: "Content Too Large", 431: "Request Header Fields Too Large", 500: "Internal Server Error"}  # fmt: skip


class BadRequestError(Exception):
    """The bytes are no request that is answered. `status` says how; the connection is of no further use."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Request:
    """One request. Header names are lower case; of repeated headers the last counts."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""
    keep_alive: bool = True

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass(slots=True)
class RequestReader:
    """Gives requests in the order in which they came."""

    _data: bytearray = field(default_factory=bytearray)
    _request: Request | None = None
    _length: int | None = None  # None with `_request` set: chunked
    _body: bytearray = field(default_factory=bytearray)
    wants_continue: bool = False  # the client waits for a 100 before it sends the body

    def feed(self, data: bytes) -> None:
        """Take in bytes; ask `next` for what they complete."""
        self._data += data

    @property
    def midway(self) -> bool:
        """Part of a request is here."""
        return bool(self._data) or self._request is not None

    def next(self) -> Request | None:
        """The next whole request, or None if more bytes are needed. Raises `BadRequestError`."""
        if self._request is None and not self._read_head():
            return None
        request = self._request
        if request is None or not (self._read_sized() if self._length is not None else self._read_chunks()):
            return None
        request.body = bytes(self._body)
        self._request, self._length, self.wants_continue = None, None, False
        self._body.clear()
        return request

    def _read_head(self) -> bool:
        end = self._data.find(b"\r\n\r\n")
        if end > MAX_HEAD_BYTES or (end < 0 and len(self._data) > MAX_HEAD_BYTES):
            raise BadRequestError(431, "the request's head is too large")
        if end < 0:
            return False
        lines = self._data[:end].decode("latin-1").split("\r\n")
        del self._data[: end + 4]
        parts = lines[0].split(" ")
        if len(parts) != 3 or not parts[2].startswith("HTTP/1."):
            raise BadRequestError(400, "not an HTTP/1 request line")
        headers: dict[str, str] = {}
        for line in lines[1:]:
            name, separator, value = line.partition(":")
            if not separator:
                raise BadRequestError(400, "a header line without a colon")
            headers[name.lower()] = value.strip()
        connection = headers.get("connection", "").lower()
        keep_alive = "close" not in connection if parts[2] != "HTTP/1.0" else "keep-alive" in connection
        self._request = Request(parts[0], parts[1], headers, keep_alive=keep_alive)
        if "transfer-encoding" in headers:
            if headers["transfer-encoding"].lower() != "chunked":
                raise BadRequestError(400, "transfer-encoding is not chunked")
            self._length = None
        else:
            length = headers.get("content-length", "0")
            if not (length.isascii() and length.isdigit()):
                raise BadRequestError(400, "content-length is not a number")
            self._length = self._checked(int(length))
        self.wants_continue = headers.get("expect", "").lower() == "100-continue" and self._length != 0
        return True

    def _read_sized(self) -> bool:
        length = self._length or 0
        if len(self._data) < length:
            return False
        self._body += self._data[:length]
        del self._data[:length]
        return True

    def _read_chunks(self) -> bool:
        while (end := self._data.find(b"\r\n")) >= 0:
            try:
                size = self._checked(int(self._data[:end].partition(b";")[0], 16), len(self._body))
            except ValueError:
                raise BadRequestError(400, "a chunk without a size") from None
            after = end + 2 + size + 2
            if size == 0:
                trailer_end = self._data.find(b"\r\n\r\n", end)
                if trailer_end < 0:
                    return False
                del self._data[: trailer_end + 4]
                return True
            if len(self._data) < after:
                return False
            self._body += self._data[end + 2 : after - 2]
            del self._data[:after]
        return False

    @staticmethod
    def _checked(size: int, already: int = 0) -> int:
        if size < 0 or size + already > MAX_BODY_BYTES:
            raise BadRequestError(413, "the request's body is too large")
        return size


def head(status: int, content_type: str, *, length: int | None, keep_alive: bool, extra: tuple[tuple[str, str], ...] = ()) -> bytes:
    """A response's head; `length` None announces a chunked body."""
    lines = [f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}", f"content-type: {content_type}"]
    lines.append("transfer-encoding: chunked" if length is None else f"content-length: {length}")
    if not keep_alive:
        lines.append("connection: close")
    lines += [f"{name}: {value}" for name, value in extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; of empty data, the last."""
    return b"%x\r\n%b\r\n" % (len(data), data)
