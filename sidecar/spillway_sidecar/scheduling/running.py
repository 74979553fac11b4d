"""How many requests an engine runs at a time, learned from what it says of itself.

An engine that is at its limit says so by a queue beside a number of running requests that stands still. A few that wait are no queue: engines
take new requests between two steps, and a sample may fall before. So the limit is learned from a queue that is seen in several samples
while what runs hardly changes, and never below `LEAST`.

What was learned is doubted all the time. Those who hold requests back by a limit never see what the engine could do beyond it, so while there
is no queue the limit grows, by steps that double; when it has grown too far a queue shows again.
"""

from __future__ import annotations

from typing import Final

SAMPLE_SECONDS: Final = 1.0  # engines are asked no oftener
SAMPLES: Final = 3
SAMPLES_OF_LARGE_QUEUE: Final = 2
LARGE_QUEUE: Final = 8
SHORT_SHARE: Final = 16  # a queue of a sixteenth of what runs is none
SHORT_QUEUE: Final = 2
STEADY_SHARE: Final = 10
LEAST: Final = 4
GROWTH_SECONDS: Final = 2.0


class RunningLimit:
    """The limit of one engine; `maximum` until something is learned. Mutable, single-threaded."""

    __slots__ = ("_highest", "_lowest", "_moved_at", "_sampled_at", "_samples", "_step", "limit", "maximum")

    def __init__(self, maximum: int) -> None:
        self.maximum = maximum
        self.limit = maximum
        self._sampled_at = -1e9
        self._moved_at = 0.0
        self._step = 1
        self._samples = 0  # in a row, with a queue and about as many running
        self._lowest = 0
        self._highest = 0

    def bound(self, maximum: int) -> None:
        """What it may be given at most. What was learned stays, if it is below."""
        if self.limit == self.maximum or self.limit > maximum:
            self.limit = maximum
        self.maximum = maximum

    def sample(self, running: int, queue: int, now: float) -> None:
        """What the engine says that it runs, and that waits in it."""
        if now - self._sampled_at < SAMPLE_SECONDS or not running:
            return
        self._sampled_at = now
        if queue > max(SHORT_QUEUE, running // SHORT_SHARE):
            self._queued(running, queue, now)
            return
        self._samples = 0
        if self.limit < self.maximum and now - self._moved_at >= GROWTH_SECONDS:
            self.limit = min(self.limit + self._step, self.maximum)
            self._step *= 2
            self._moved_at = now

    def _queued(self, running: int, queue: int, now: float) -> None:
        lowest, highest = min(self._lowest, running), max(self._highest, running)
        if self._samples and (highest - lowest) * STEADY_SHARE <= highest:
            self._samples += 1
        else:
            self._samples = 1
            lowest = highest = running
        self._lowest, self._highest = lowest, highest
        large = queue >= LARGE_QUEUE and 2 * queue >= running
        if self._samples >= (SAMPLES_OF_LARGE_QUEUE if large else SAMPLES):
            self.limit = min(max(highest, LEAST), self.maximum)
            self._step = 1
            self._moved_at = now
