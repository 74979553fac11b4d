"""Decision records: why each recent request went where it went. Facts and figures, no content.

Kept in a ring in memory, newest last, found by request id. A record is kept encoded, as one object of some 130 bytes: as the
dozen objects that it is made of, a ring of a thousand would push what the hot path works with out of the processor's cache,
which costs each request ten times what the encoding does. What a reader sees is made when somebody asks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

import msgspec

from spillway_sidecar.scheduling.filters.eligible import Candidate, Eliminated
from spillway_wire.names import RequestType

# One choice: the backend, the endpoint that won, what was compared, and why it went past an earlier priority.
Attempt = tuple[str, str, list[Candidate], str | None]

# What a predicted wait is made of: (tokens that wait before the request + its own) * slowness and health.
WAIT: Final = ("aheadTokens", "ownTokens", "factor")


class Decision(msgspec.Struct, gc=False, array_like=True):
    """One request's record, added when it has ended. Times in seconds. `failures` has one entry per attempt that failed."""

    request_id: bytes
    type: RequestType
    model: str
    stream: bool
    prompt_tokens: int
    route: str
    rule: str
    snapshot: str
    routers: int
    attempts: tuple[Attempt, ...]
    failures: tuple[str, ...]
    outcome: str
    status: int
    ttft_seconds: float | None
    duration_seconds: float
    profile: str = "Default"
    scorers: tuple[str, ...] = ()  # whose scores the candidates have; none: they have predicted waits

    def as_dict(self) -> dict[str, object]:
        """Plain values for the admin page and `spillway explain`."""
        failures = self.failures
        return {
            "requestId": self.request_id.decode(),
            "type": self.type,
            "model": self.model,
            "stream": self.stream,
            "promptTokens": self.prompt_tokens,
            "route": self.route,
            "rule": self.rule,
            "profile": self.profile,
            "best": "highest" if self.scorers else "lowest",
            "snapshot": self.snapshot,
            "routers": self.routers,
            "outcome": self.outcome,
            "status": self.status,
            "ttftSeconds": self.ttft_seconds,
            "durationSeconds": self.duration_seconds,
            "attempts": [
                {
                    "backend": backend,
                    "endpoint": endpoint,
                    "diverted": diverted,
                    "failure": failures[index] if index < len(failures) else None,
                    "candidates": [_candidate(candidate, self.scorers or WAIT) for candidate in candidates],
                }
                for index, (backend, endpoint, candidates, diverted) in enumerate(self.attempts)
            ],
        }


def _candidate(candidate: Candidate, names: tuple[str, ...]) -> dict[str, object]:
    endpoint, verdict, parts = candidate
    if isinstance(verdict, Eliminated):
        return {"endpoint": endpoint, "score": None, "eliminated": verdict.value}
    made_of = {name: round(value, 4) for name, value in zip(names, parts, strict=False)}
    return {"endpoint": endpoint, "score": round(verdict, 4), "parts": made_of, "eliminated": None}


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Decision).decode


class DecisionRing:
    """The last `size` records."""

    __slots__ = ("_ring",)

    def __init__(self, size: int) -> None:
        self._ring: deque[bytes] = deque(maxlen=size)

    def add(self, decision: Decision) -> None:
        """Takes the newest record in; the oldest goes."""
        self._ring.append(_encode(decision))

    def find(self, request_id: str) -> Decision | None:
        """The record of a request, if it is still here. Newest first."""
        wanted = request_id.encode("utf-8", "replace")
        for record in reversed(self._ring):
            if wanted in record:
                decision = _decode(record)
                if decision.request_id == wanted:
                    return decision
        return None

    def all(self) -> Iterator[Decision]:
        """The records, oldest first."""
        return (_decode(record) for record in tuple(self._ring))

    def info(self) -> dict[str, int]:
        """How many are held."""
        return {"records": len(self._ring), "size": self._ring.maxlen or 0}
