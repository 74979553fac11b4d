"""Between the core and the carrier: publications pass while this replica leads, and not faster than proxies need them.

A standby's core works as the leader's does, so that it is warm; what it publishes ends here. The gate asks before every
publication, so that a process that slept through the end of its term publishes nothing when it wakes.

A few publications pass at once, so that an edit is on the proxies within a tenth of a second; in a flood (five hundred objects
applied at a time) they go on at four a second, each with all that came since. Every state is handed on all the same, since what was taken
away between two of them has to be told by name. The first state of a term waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from spillway_operator.kube.budget import TokenBucket
from spillway_operator.snapshot.ports import NodeSync, SnapshotPublisher, StreamListener, Synced
from spillway_operator.snapshot.state import EncodedResource, SnapshotState, differing
from spillway_wire.snapshot import ResourceKey

AT_ONCE: Final = 6
PER_SECOND: Final = 4.0


class LeaderGate:
    """A `SnapshotPublisher` in front of another one. `schedule(delay_seconds, callback)` is the loop's timer."""

    def __init__(
        self,
        carrier: SnapshotPublisher,
        *,
        leads: Callable[[], bool],
        clock: Callable[[], float],
        schedule: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._carrier = carrier
        self._leads = leads
        self._clock = clock
        self._schedule = schedule
        self._budget = TokenBucket(per_second=PER_SECOND, burst=AT_ONCE)
        self._waiting: list[SnapshotState] = []
        self._passed: Mapping[ResourceKey, EncodedResource] = {}
        self._epoch = 0
        self._held_back = 0

    def attach(self, listener: StreamListener) -> None:
        """Name the listener."""
        self._carrier.attach(listener)

    def publish(self, state: SnapshotState) -> None:
        """Passes on what a leader publishes; anything else is what the next term begins with."""
        if not self._leads():
            self._held_back += 1
            self._waiting.clear()
            return
        if state.epoch != self._epoch:
            self._epoch = state.epoch
            self._waiting.clear()
            self._hand_on(state)
            return
        self._waiting.append(state)
        if len(self._waiting) == 1:
            self._pass()

    def _pass(self) -> None:
        if not self._waiting:
            return
        if not self._leads():
            self._held_back += len(self._waiting)
            self._waiting.clear()
            return
        wait = self._budget.take(self._clock())
        if wait > 0:
            self._schedule(wait, self._pass)
            return
        for state in self._waiting:
            self._hand_on(state)
        self._waiting.clear()

    def _hand_on(self, state: SnapshotState) -> None:
        self._carrier.publish(state)
        self._passed = state.resources

    def nodes(self) -> tuple[NodeSync, ...]:
        """Every connected proxy."""
        return self._carrier.nodes()

    def synced(self, keys: Iterable[ResourceKey]) -> Synced:
        """Who runs the current content. What waits here nobody has."""
        wanted = tuple(keys)
        found = self._carrier.synced(wanted)
        if not self._waiting or not differing(wanted, self._passed, self._waiting[-1]):
            return found
        return Synced(lagging=tuple(sorted({*found.synced, *found.lagging})))

    def info(self) -> dict[str, Any]:
        """Whether it is open, and what waits."""
        return {"open": self._leads(), "waiting": len(self._waiting), "held_back": self._held_back}
