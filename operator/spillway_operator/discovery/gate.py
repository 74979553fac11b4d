"""Between the core and the carrier: publications pass while this replica leads.

A standby's core works as the leader's does, so that it is warm; what it publishes ends here. A leader whose term is over is
closed at once, and asked before every publication besides, so that a process that slept through the end of its term publishes
nothing when it wakes. Proxies that are connected stay so and run what they have: a term that is regained goes on with them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from spillway_operator.snapshot.ports import NodeSync, SnapshotPublisher, StreamListener, Synced
from spillway_operator.snapshot.state import SnapshotState
from spillway_wire.snapshot import ResourceKey


class LeaderGate:
    """A `SnapshotPublisher` in front of another one."""

    def __init__(self, carrier: SnapshotPublisher, *, leads: Callable[[], bool]) -> None:
        self._carrier = carrier
        self._leads = leads
        self._held_back = 0

    def attach(self, listener: StreamListener) -> None:
        """Name the listener."""
        self._carrier.attach(listener)

    def publish(self, state: SnapshotState) -> None:
        """Passes on what a leader publishes; anything else is what the next term begins with."""
        if self._leads():
            self._carrier.publish(state)
        else:
            self._held_back += 1

    def nodes(self) -> tuple[NodeSync, ...]:
        """Every connected proxy."""
        return self._carrier.nodes()

    def synced(self, keys: Iterable[ResourceKey]) -> Synced:
        """Who runs the current content."""
        return self._carrier.synced(keys)

    def info(self) -> dict[str, Any]:
        """Whether it is open."""
        return {"open": self._leads(), "held_back": self._held_back}
