"""Decision records: why each recent request went where it went. Facts and figures, no content.

Kept in a ring in memory, newest last, found by request id. A record is filled while its request lives, so that it also
tells how it ended.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from spillway_sidecar.scheduling.picker import Candidate


@dataclass(slots=True)
class Attempt:
    """One choice: the backend, what was compared, which endpoint won, and how the attempt failed if it did."""

    backend: str
    endpoint: str
    candidates: list[Candidate]
    failure: str | None = None


@dataclass(slots=True)
class Decision:
    """One request's record. Times in seconds."""

    request_id: str
    type: str
    model: str
    stream: bool
    prompt_tokens: int
    route: str
    rule: str
    snapshot: str
    routers: int
    attempts: list[Attempt] = field(default_factory=list)
    outcome: str | None = None
    status: int = 0
    ttft_seconds: float | None = None
    duration_seconds: float | None = None

    def as_dict(self) -> dict[str, object]:
        """Plain values for the admin page and `spillway explain`."""
        return {
            "requestId": self.request_id,
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
                    "backend": attempt.backend,
                    "endpoint": attempt.endpoint,
                    "failure": attempt.failure,
                    "candidates": [
                        {"endpoint": c.id, "score": None if c.score is None else round(c.score, 4), "eliminated": c.eliminated}
                        for c in attempt.candidates
                    ],
                }
                for attempt in self.attempts
            ],
        }


class DecisionRing:
    """The last `size` records."""

    def __init__(self, size: int) -> None:
        self._ring: deque[Decision] = deque(maxlen=size)

    def add(self, decision: Decision) -> None:
        """Takes a record in; the oldest goes."""
        self._ring.append(decision)

    def find(self, request_id: str) -> Decision | None:
        """The record of a request, if it is still here. Newest first."""
        for decision in reversed(self._ring):
            if decision.request_id == request_id:
                return decision
        return None

    def info(self) -> dict[str, int]:
        """How many are held."""
        return {"records": len(self._ring), "size": self._ring.maxlen or 0}
