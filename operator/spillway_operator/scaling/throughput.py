"""What one replica does, in tokens a second, learned from replicas that have all they can do.

Only a backend that is *saturated* shows what its replicas can do: requests wait at most of them, or they run as many as they may. Of one
with room in it the figure says what was asked of it, and taking that for its limit would start replicas for nothing, more of them
the emptier they are. So a sample counts after as many replicas as there are were saturated for as long as the traffic window is wide, and the figure
moves towards the mean of a minute of such samples. One thing is known without saturation: replicas that have done more for a minute
than the figure says disprove it.

One sample is of ten seconds, and a few long answers that end in them make it a quarter more or less than the truth; for as long as the first
requests of a rush are under way, it is half of it. By single samples a need of ten replicas became 23.

Tokens are of prompts and answers. How many of each there are differs between users and hours, and a prompt's token is the cheaper one; since
the figure follows what is served while the limit is felt, it is right when it matters most.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final

from spillway_operator.scaling.windows import Mean

_SPAN_SECONDS: Final = 12.0  # the traffic window that samples come from, and a tick
_SATURATED_SHARE: Final = 0.75  # of the replicas, over the span
_MEAN_SECONDS: Final = 60.0
_LEAST_SECONDS: Final = 20.0  # of saturated samples, for a first figure
_SETTLE_SECONDS: Final = 60.0


class Throughput:
    """One backend's. Call `observe` once a tick; `learned` starts from what is known from before."""

    def __init__(self, learned: float | None = None) -> None:
        self.learned = learned
        self.shown: float | None = None  # the most that a replica has done, saturated or not
        self._saturated = Mean(_SPAN_SECONDS)
        self._each = Mean(_MEAN_SECONDS)  # of what one did, since there are as many
        self._limit = Mean(_MEAN_SECONDS)  # the same, since they have all they can do
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
        share = self._saturated.at(now) or 0.0
        settled = len({count for _, count in self._ready}) == 1 and self._saturated.reaches_back(now, _SPAN_SECONDS - dt)
        if not ready or served_tokens_per_second <= 0 or not settled:
            self._each, self._limit = Mean(_MEAN_SECONDS), Mean(_MEAN_SECONDS)
            return
        self._each.record(now, served_tokens_per_second / ready)
        if share < _SATURATED_SHARE:
            self._limit = Mean(_MEAN_SECONDS)
            self._room(now, dt)
            return
        self._limit.record(now, served_tokens_per_second / ready)
        sample = self._limit.at(now)
        if sample is not None and self._limit.reaches_back(now, _LEAST_SECONDS - dt):
            gain = min(1.0, dt / _SETTLE_SECONDS)
            self.learned = sample if self.learned is None else self.learned + gain * (sample - self.learned)

    def _room(self, now: float, dt: float) -> None:
        """Nobody is saturated: what one does is the least that it can."""
        each = self._each.at(now)
        if each is not None and self._each.reaches_back(now, _MEAN_SECONDS - 2 * dt):
            self.shown = max(each, self.shown or 0.0)
            if self.learned is not None:
                self.learned = max(self.learned, each)

    def info(self) -> dict[str, Any]:
        """What is known."""
        return {"learned": _rounded(self.learned), "shown": _rounded(self.shown)}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
