"""The seam between the operator's core and whatever carries its snapshots to proxies.

The core calls `SnapshotPublisher`; the carrier (`discovery`, or a fake in a test) calls `StreamListener`. Everything
happens on one event loop, all methods are synchronous, cheap and never raise for a single bad proxy.

Assembly, in the composition root: the carrier is made first, the core is made with it, then `attach(core)` and then the
carrier starts to listen. So a listener is present before the first proxy is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from spillway_operator.snapshot.state import SnapshotState
from spillway_wire.messages import Fault, Node, Report
from spillway_wire.snapshot import ResourceKey


@dataclass(frozen=True, slots=True)
class Refusal:
    """A proxy's last NACK that no later ACK has overtaken."""

    version: str  # the version it was offered and refuses
    errors: tuple[Fault, ...]
    at: float  # the carrier's monotonic clock, seconds
    keeps: str | None = None  # the version it goes on with


@dataclass(frozen=True, slots=True)
class NodeSync:
    """One connected proxy, as the carrier knows it."""

    node: Node
    connected_since: float  # the carrier's monotonic clock, seconds
    acked_version: str | None = None  # the version it runs; None until the first ACK (or a resume version that is known)
    refusal: Refusal | None = None
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Synced:
    """Which connected proxies run the current content of the keys that were asked for. Ids are sorted; draining ones count."""

    synced: tuple[str, ...] = ()
    lagging: tuple[str, ...] = ()


class StreamListener(Protocol):
    """What the carrier tells the core."""

    def on_report(self, node: Node, report: Report, received_at: float) -> None:
        """A decoded report of a connected proxy; `received_at` is monotonic seconds on the clock the core uses too."""

    def on_node_change(self) -> None:
        """A proxy connected, left, began to drain, acknowledged or refused: ask `nodes()` and `synced()` again. May be coalesced."""


class SnapshotPublisher(Protocol):
    """What the core asks of the carrier."""

    def attach(self, listener: StreamListener) -> None:
        """Name the listener; called once, before any proxy can connect."""

    def publish(self, state: SnapshotState) -> None:
        """`state` is current from here on. The carrier batches (50 ms) and sends each proxy what it lacks."""

    def nodes(self) -> tuple[NodeSync, ...]:
        """Every connected proxy that has said hello."""

    def synced(self, keys: Iterable[ResourceKey]) -> Synced:
        """Who runs the current content of all `keys` (see `state.differing`), by the state each proxy acknowledged last."""
