"""Replicas as one fluid: what comes waits first come first served, and is worked off at the speed of those that are ready.

An hour takes a tenth of a second. What it leaves out is what routing does: it is as if every request went to the best replica.
A replica that is taken away takes nothing with it. Waits are those for a turn, without the work itself.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from spillway.simulate.scaling.watch import TICK_SECONDS, Watch
from spillway_operator.scaling.needs import Observed

TOKENS_PER_SECOND: Final = 3000.0  # of a replica
TOKENS_PER_REQUEST: Final = 1000.0
SERVICE_SECONDS: Final = 5.0  # of a request alone; makes concurrency of demand


class Fluid:
    """The replicas and their common queue."""

    def __init__(self, watch: Watch, cold_start_seconds: float) -> None:
        self._watch = watch
        self._cold_start_seconds = cold_start_seconds
        self.ready = watch.start
        self.starting: list[float] = []  # when each is ready, in order
        self._queue = 0.0  # replica-seconds of work
        self._arrived = [0.0]  # in all, by the end of each tick
        self._served = [0.0]

    def run(self) -> list[tuple[float, float]]:
        """Runs the scene; waits in seconds, each with how much of the demand had it."""
        now = 0.0
        while now < self._watch.scene.seconds:
            demand = self._watch.drawn(now)
            now += TICK_SECONDS
            self._flow(now, demand)
            self._scale(now, self._watch.tick(now, demand, self._observed(demand), self._concurrency(demand), self.asked_for))
        return self._waits()

    @property
    def asked_for(self) -> int:
        """Replicas that there are or will be."""
        return self.ready + len(self.starting)

    def _flow(self, now: float, demand: float) -> None:
        while self.starting and self.starting[0] <= now:
            self.starting.pop(0)
            self.ready += 1
        come = demand * TICK_SECONDS
        done = min(self._queue + come, self.ready * TICK_SECONDS)
        self._queue += come - done
        self._arrived.append(self._arrived[-1] + come)
        self._served.append(self._served[-1] + done)

    def _scale(self, now: float, desired: int) -> None:
        change = desired - self.asked_for
        self.starting.extend([now + self._cold_start_seconds] * change)
        if change < 0:
            kept = max(0, len(self.starting) + change)
            self.ready += min(0, len(self.starting) + change)
            del self.starting[kept:]

    def _observed(self, demand: float) -> Observed:
        busy = 1.0 if self._queue else min(1.0, demand / max(1, self.ready))
        return Observed(
            ready=self.ready,
            tokens_per_second_asked=demand * TOKENS_PER_SECOND,
            tokens_per_second_replica=TOKENS_PER_SECOND,
            tokens_waiting=self._queue * TOKENS_PER_SECOND,
            waiting=round(self._queue * TOKENS_PER_SECOND / TOKENS_PER_REQUEST),
            gpu_ratio=busy,
        )

    def _concurrency(self, demand: float) -> float:
        return self._watch.headroom * (demand * SERVICE_SECONDS + self._queue) / SERVICE_SECONDS

    def _waits(self) -> list[tuple[float, float]]:
        """First in, first out: the end of what came in a tick is over when as much was served."""
        served, speed = self._served, max(1, self.ready)
        waits = []
        for index in range(1, len(self._arrived)):
            arrived = self._arrived[index]
            at = bisect_left(served, arrived - 1e-9, lo=index)
            late = (
                float(at - index) if at < len(served) else len(served) - 1 - index + (arrived - served[-1]) / speed / TICK_SECONDS
            )
            waits.append((late * TICK_SECONDS, arrived - self._arrived[index - 1]))
        return waits
