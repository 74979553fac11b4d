"""Message heads as they were read and found good."""

from __future__ import annotations

from typing import Final

Fields = dict[bytes, bytes]  # values without the white space around them

# Of a reply never passed on: hop by hop, or between our own parts.
DROPPED: Final = frozenset(
    (
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"upgrade",
        b"endpoint-load-metrics", b"x-request-id", b"x-spillway-admission", b"x-spillway-reason", b"alt-svc", b"set-cookie",
        b"openai-organization", b"openai-project",
    )
)  # fmt: skip


class RequestHead:
    """A validated request head. `fields` has lower-case names; repeated ones are joined with a comma."""

    __slots__ = ("content_length", "fields", "http11", "keep_alive", "length", "method", "passed", "target")

    def __init__(
        self, method: bytes, target: bytes, http11: bool, fields: Fields, length: int, content_length: int, keep_alive: bool
    ) -> None:
        self.method = method
        self.target = target
        self.http11 = http11
        self.fields = fields
        self.length = length  # bytes of the head itself
        self.content_length = content_length  # 0 when there is no body; -1 for chunked
        self.keep_alive = keep_alive
        self.passed: bytes | None = None  # its lines that go on upstream, once they have been asked for


class ResponseHead:
    """A validated response head. `content_length`: bytes, -1 chunked, -2 until the connection closes."""

    __slots__ = ("content_length", "events", "fields", "keep_alive", "length", "plain", "raw_fields", "status")

    def __init__(self, status: int, fields: Fields, raw_fields: bytes, length: int, content_length: int, keep_alive: bool) -> None:
        self.status = status
        self.fields = fields
        self.raw_fields = raw_fields
        self.length = length
        self.content_length = content_length
        self.keep_alive = keep_alive
        content_type = fields.get(b"content-type")
        self.events = content_type is not None and content_type[:17].lower() == b"text/event-stream"
        self.plain = DROPPED.isdisjoint(fields)  # every line may go to the client
