"""What one replica does, in tokens a second, learned from replicas that have all they can do.

Only a backend that is *saturated* shows what its replicas can do: requests wait at most of them, or they run as many as they may. Of one
with room in it the figure says what was asked of it, and taking that for its limit would start replicas for nothing, more of them
the emptier they are. So a sample counts after as many replicas as there are were saturated for as long as the traffic window is wide, and the figure
moves towards it within a minute. One thing is known without saturation: a replica that has done more than the figure says disproves it.

Tokens are of prompts and answers. How many of each there are differs between users and hours, and a prompt's token is the cheaper one; since
the figure follows what is served while the limit is felt, it is right when it matters most.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from spillway_operator.scaling.windows import Mean

_SPAN_SECONDS: Final = 12.0  # the traffic window that samples come from, and a tick
_SATURATED_SHARE: Final = 0.75  # of the replicas, over the span
_SETTLE_SECONDS: Final = 60.0


class Throughput:
    """One backend's. Call `observe` once a tick; `learned` starts from what is known from before."""

    def __init__(self, learned: float | None = None) -> None:
        self.learned = learned
        self.shown: float | None = None  # the most that a replica has done, saturated or not
        self._saturated = Mean(_SPAN_SECONDS)
        self._ready: deque[tuple[float, int]] = deque()
        self._at: float | None = None

    def observe(self, now: float, served_tokens_per_second: float, ready: int, saturated_share: float) -> None:
        """What all replicas together serve at `now`, how many are ready, and which share of them is saturated."""
        dt = 0.0 if self._at is None else now - self._at
        self._at = now
        self._saturated.record(now, saturated_share)
        self._ready.append((now, ready))
        while self._ready[0][0] <= now - _SPAN_SECONDS - dt:
            self._ready.popleft()
        most = max(count for _, count in self._ready)
        if not ready or not most or served_tokens_per_second <= 0 or not self._saturated.reaches_back(now, _SPAN_SECONDS - dt):
            return
        each = served_tokens_per_second / most
        self.shown = max(each, self.shown or 0.0)
        share = self._saturated.at(now)
        if share is not None and share >= _SATURATED_SHARE and len({count for _, count in self._ready}) == 1:
            gain = min(1.0, dt / _SETTLE_SECONDS)
            self.learned = each if self.learned is None else self.learned + gain * (each - self.learned)
        elif self.learned is not None:
            self.learned = max(self.learned, each)

    def info(self) -> dict[str, Any]:
        """What is known."""
        return {"learned": _rounded(self.learned), "shown": _rounded(self.shown)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
