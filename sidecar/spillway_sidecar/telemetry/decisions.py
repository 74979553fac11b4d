"""Decision records: why each recent request went where it went. Facts and figures, no content.

Kept in a ring in memory, newest last, found by request id. The hot path leaves plain values; what a reader sees is made when
somebody asks.
"""

from __future__ import annotations

from collections import deque

import msgspec

from spillway_sidecar.scheduling.picker import Candidate, Eliminated
from spillway_wire.names import RequestType

# One choice: the backend, the endpoint that won, what was compared.
Attempt = tuple[str, str, list[Candidate]]


class Decision(msgspec.Struct, gc=False):
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
                    "failure": failures[index] if index < len(failures) else None,
                    "candidates": [_candidate(candidate) for candidate in candidates],
                }
                for index, (backend, endpoint, candidates) in enumerate(self.attempts)
            ],
        }


def _candidate(candidate: Candidate) -> dict[str, object]:
    endpoint, verdict = candidate
    if isinstance(verdict, Eliminated):
        return {"endpoint": endpoint, "score": None, "eliminated": verdict.value}
    return {"endpoint": endpoint, "score": round(verdict, 4), "eliminated": None}


class DecisionRing:
    """The last `size` records."""

    def __init__(self, size: int) -> None:
        self._ring: deque[Decision] = deque(maxlen=size)
        self.add = self._ring.append

    def find(self, request_id: str) -> Decision | None:
        """The record of a request, if it is still here. Newest first."""
        wanted = request_id.encode("utf-8", "replace")
        for decision in reversed(self._ring):
            if decision.request_id == wanted:
                return decision
        return None

    def info(self) -> dict[str, int]:
        """How many are held."""
        return {"records": len(self._ring), "size": self._ring.maxlen or 0}
