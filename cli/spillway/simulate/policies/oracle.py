"""What could be had with perfect knowledge at the moment of the choice: the shortest wait by the engines' true state, caches included."""

from __future__ import annotations

from typing import Final

from spillway.simulate.policies.base import Policy
from spillway.simulate.traffic import Request

_SAMPLE: Final = 64


class Oracle(Policy):
    """Greedy: it knows nothing of what will come, so it is no bound, only far ahead of what a router can know."""

    def choose(self, request: Request, now: float) -> int:
        candidates: range | list[int] = range(self.count)
        if self.count > _SAMPLE:
            candidates = [int(self.random() * self.count) for _ in range(_SAMPLE)]
        best, least = -1, 0.0
        for index in candidates:
            if index in request.tried:
                continue
            seconds = self.scene.engines[index].seconds_to_first_token(request, now)
            if best < 0 or seconds < least:
                best, least = index, seconds
        return best
