"""How long a request would wait at an endpoint until its turn, in seconds, learned from how the ones before it fared.

What waits for its first token is a queue, wherever it stands: in a sidecar, in the engine, or in a prefill under way. It is served at
a rate that shows in the first tokens themselves: the work of those that came, over the time in which somebody waited. So

    wait = work that waits / work served per second of waiting

whatever holds the queue up: slow prefill, or slots that come free only when others end. Time in which nobody waits is not counted, so
that light traffic does not look like a slow engine. Two cases made the rest:

* A queue of n leaves in n turns, give or take the square root of n: twice that is added, since the figure is used as a bound.
* While an engine stands still no first token tells of it. The time since the last one counts as if the next came now.

A reply that is not streamed does not tell when its turn began. Where such requests wait is known from the endpoint's own word alone: so many
in a queue, which moves on when one that runs has ended. Both waits are reckoned, and the longer one counts.
"""

from __future__ import annotations

from math import sqrt
from typing import Final

from spillway_sidecar.scheduling.speed import BASE_TOKENS

MEMORY: Final = 1.0 - 1.0 / 16.0  # what a sample leaves of those before it: about the last sixteen count


class Turn:
    """The queue before one endpoint's first tokens, as one router sees it. Its work is in estimated tokens, and every request has some."""

    __slots__ = ("_ended_at", "_ending_seconds", "_served_seconds", "_served_work", "_since", "waiting", "waiting_work")

    def __init__(self) -> None:
        self.waiting = 0
        self.waiting_work = 0
        self._since = 0.0  # when the last one had its turn, or somebody began to wait
        self._served_work = 0.0
        self._served_seconds = 0.0
        self._ended_at = -1.0  # when the last request ended while others waited, by the endpoint's word
        self._ending_seconds = 0.0  # between two such ends

    def enter(self, tokens: int, now: float) -> None:
        """A request of so many tokens waits for its first one."""
        if not self.waiting:
            self._since = now
        self.waiting += 1
        self.waiting_work += BASE_TOKENS + tokens

    def served(self, tokens: int, now: float) -> None:
        """It has it."""
        self._served_work = MEMORY * self._served_work + BASE_TOKENS + tokens
        self._served_seconds = MEMORY * self._served_seconds + max(0.0, now - self._since)
        self._since = now
        self.left(tokens)

    def left(self, tokens: int) -> None:
        """It waits no more, and was not served."""
        self.waiting -= 1
        self.waiting_work -= BASE_TOKENS + tokens

    def ended(self, now: float, queue: int) -> None:
        """A request has ended, of any kind, with `queue` waiting by the endpoint's word."""
        if queue > 0 and self._ended_at >= 0.0:
            seconds = now - self._ended_at
            known = self._ending_seconds
            self._ending_seconds = known + (1.0 - MEMORY) * (seconds - known) if known else seconds
        self._ended_at = now if queue > 0 else -1.0

    def seconds(self, now: float, queue: int = 0) -> float:
        """How long one more request would wait, with `queue` waiting by the endpoint's word; 0 while nothing is known."""
        told = self._ending_seconds * (queue + 2.0 * sqrt(queue)) if queue > 0 else 0.0
        waiting, served = self.waiting, self._served_work
        if not waiting or not served:
            return told
        per_work = self._served_seconds / served
        mean = self.waiting_work / waiting
        standing = (MEMORY * self._served_seconds + now - self._since) / (MEMORY * served + mean)
        return max(told, max(per_work, standing) * (self.waiting_work + 2.0 * mean * sqrt(waiting)))

    def info(self) -> dict[str, object]:
        """State in figures."""
        rate = self._served_work / self._served_seconds if self._served_seconds else None
        return {"waiting": self.waiting, "waiting_work": round(self.waiting_work), "work_per_second": rate and round(rate)}
