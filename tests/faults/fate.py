"""What a request came to, by what its client saw."""

from __future__ import annotations

import enum
import re
import zlib
from typing import Final

_TOKEN: Final = re.compile(rb"([0-9a-f]{8})\.([0-9]+) ")
_REPLY_ID: Final = re.compile(rb'"id":"([^"]{1,64})"')
_DONE: Final = b"data: [DONE]"
_TOLD: Final = b'"stream_interrupted"'


class Fate(enum.StrEnum):
    """One for each request."""

    OK = "ok"  # whole, every token once and in order
    REFUSED = "refused"  # 429 or 503, with Retry-After
    SIGNALLED = "signalled"  # broke off after its first byte, and the client can tell
    LEFT = "left"  # the client itself went
    LOST = "lost"  # failed before its first byte
    SILENT = "silent"  # ends well, and is not whole
    CROSSED = "crossed"  # has another request's token
    DOUBLED = "doubled"  # has a token twice, out of order, or from another reply
    HUNG = "hung"  # has not ended
    GARBLED = "garbled"  # what came is no HTTP


NEVER: Final = frozenset({Fate.CROSSED, Fate.HUNG})  # not even where a reply's own bytes were corrupted
CORRUPT: Final = frozenset({Fate.SILENT, Fate.CROSSED, Fate.DOUBLED, Fate.GARBLED})


class Request:
    """One request and what came of it. Times are of the machine's monotonic clock; 0 is never."""

    __slots__ = (
        "again", "body", "due", "ended", "fate", "first", "flow", "garbled", "gateway", "headers", "leave_after", "left", "model", "number", "prompt",
        "reason", "request_id", "retry_after", "sent", "status", "stream", "tag", "tokens", "whole",
    )  # fmt: skip

    def __init__(
        self, number: int, prompt: str, tokens: int, *, stream: bool, model: str = "chat", headers: str = "", flow: str = ""
    ) -> None:
        self.number = number
        self.prompt = prompt
        self.tag = b"%08x" % zlib.crc32(prompt.encode())
        self.tokens = tokens
        self.stream = stream
        self.model = model
        self.headers = headers
        self.flow = flow
        self.gateway = 0
        self.leave_after = 0.0
        self.left = False
        self.due = 0.0  # when it should have been sent: latencies count from here
        self.sent = 0.0
        self.first = 0.0  # first byte of the body
        self.ended = 0.0
        self.status = 0
        self.reason = ""
        self.request_id = ""
        self.retry_after: str | None = None
        self.whole = False  # ended as its framing says
        self.garbled = False
        self.again = 0  # sent once more by the client itself: a kept connection had ended unanswered
        self.body = b""
        self.fate: Fate | None = None

    def settle(self) -> Fate:
        """The fate, once nothing more can come. What is large goes; a body stays only where something is wrong with it."""
        self.fate = fate = self._fate()
        self.prompt = ""
        if fate not in CORRUPT:
            self.body = b""
        return fate

    def _fate(self) -> Fate:  # noqa: PLR0911 - a table of cases
        if self.left:
            return self._order() or Fate.LEFT
        if not self.ended:
            return Fate.HUNG
        if self.garbled:
            return Fate.GARBLED
        if self.status != 200:
            refused = self.status in {429, 503} and self.retry_after is not None and self.whole
            return Fate.REFUSED if refused else Fate.LOST
        wrong = self._order()
        if wrong is not None:
            return wrong
        count = len(_TOKEN.findall(self.body))
        if self.whole and count == self.tokens and (_DONE in self.body or not self.stream):
            return Fate.OK
        if self.stream and _TOLD in self.body and _DONE not in self.body:
            return Fate.SIGNALLED
        if self.whole:
            return Fate.SILENT
        return Fate.SIGNALLED if self.first else Fate.LOST

    def _order(self) -> Fate | None:
        found = _TOKEN.findall(self.body)
        if any(tag != self.tag for tag, _ in found):
            return Fate.CROSSED
        if any(int(index) != place for place, (_, index) in enumerate(found)):
            return Fate.DOUBLED
        if self.stream and len(set(_REPLY_ID.findall(self.body))) > 1:
            return Fate.DOUBLED
        return None

    @property
    def first_seconds(self) -> float:
        """From when it was due to its first byte."""
        return self.first - self.due

    @property
    def seconds(self) -> float:
        """From when it was due to its end."""
        return self.ended - self.due

    def __repr__(self) -> str:
        return (
            f"<{self.number} {self.fate} {self.status} {self.reason} id={self.request_id} gateway={self.gateway} again={self.again} "
            f"tokens={len(_TOKEN.findall(self.body))}/{self.tokens} due={self.due:.3f} first={self.first and self.first_seconds:.4f} ended={self.ended and self.seconds:.4f} body={self.body[-200:]!r}>"
        )
