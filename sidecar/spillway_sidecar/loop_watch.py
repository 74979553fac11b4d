"""Watches the event loop: how late it is, whether it stands still, and what the overload ladder makes of it.

A look costs some microseconds, twenty times a second. The ladder decides; here its level is put into force: a flag or a number that the
listeners look at.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Final

from spillway_sidecar.flow.ladder import LOOK_SECONDS, Ladder, Level
from spillway_sidecar.proxy.listener import Listener
from spillway_sidecar.proxy.route import RouteSite

_LOG = logging.getLogger("spillway.sidecar")
TELL_AGAIN_SECONDS: Final = 10.0


class LoopWatch:
    """The watch over one process's loop."""

    def __init__(self, listeners: tuple[Listener, ...]) -> None:
        self.ladder = Ladder()
        self._listeners = listeners
        self._route = next(listener for listener in listeners if isinstance(listener, RouteSite))
        self._decisions = self._route.decisions
        self._told_at = -1e9
        self._told_level = Level.NORMAL

    async def run(self) -> None:
        """Looks until cancelled."""
        loop = asyncio.get_running_loop()
        due = loop.time() + LOOK_SECONDS
        sleeps = _sleeps()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            now = loop.time()
            before, sleeps = sleeps, _sleeps()
            self.look(now - due, now, slept=sleeps > before)
            due = now + LOOK_SECONDS

    def look(self, late_seconds: float, now: float, *, slept: bool = False) -> None:
        """Takes one lateness in and puts the ladder's level into force. `slept`: the loop had nothing to do for a moment meanwhile."""
        ladder = self.ladder
        stalled = ladder.look(late_seconds, slept=slept)
        route = self._route
        route.shed = ladder.shed
        route.decisions = self._decisions if ladder.level < Level.LEAN else None
        for listener in self._listeners:
            listener.closed = ladder.level is Level.CLOSED
        if stalled and now - self._told_at >= TELL_AGAIN_SECONDS:
            self._told_at = now
            _LOG.warning("the event loop stood still for %.2f s, %d times since the start", late_seconds, ladder.stalls_total)
        shedding = ladder.level >= Level.SHEDDING
        if shedding and self._told_level < Level.SHEDDING:
            _LOG.warning("overloaded: the event loop is %.2f s late, new requests are shed", ladder.standing_seconds)
        elif not ladder.shed and self._told_level >= Level.SHEDDING:
            _LOG.info("the event loop keeps up again")
        if shedding or not ladder.shed:
            self._told_level = ladder.level

    def gauges(self) -> dict[str, float]:
        """For the metrics."""
        ladder = self.ladder
        return {
            "spillway_event_loop_lateness_seconds": ladder.standing_seconds,
            "spillway_event_loop_longest_stall_seconds": ladder.longest_stall_seconds,
            "spillway_event_loop_stalls_total": ladder.stalls_total,
            "spillway_overload_level": float(ladder.level),
            "spillway_overload_shed_ratio": ladder.shed,
        }


def _sleeps() -> int:
    """How often this thread has waited for something to do, as the kernel counts. A loop with a queue never does."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
