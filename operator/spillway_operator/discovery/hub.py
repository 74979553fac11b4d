"""All streams of the operator, without sockets: sessions over transports, and the carrier of `snapshot.ports`.

The hub is driven by its shell: `open`, `frame`, `closed` for a connection, `tick` a few times a second. Everything runs on
one event loop and nothing waits. `schedule(delay_seconds, callback)` is the loop's timer; two things use it: states published
within 50 ms become one update, and changes among the nodes are told to the core at most that often.

A publication is written to the proxies in slices, so that a large fleet does not hold the loop for long. Two connections of
one node id: the later one wins, because the earlier is what is left of a proxy that restarted or lost its network.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final, Protocol

import msgspec

from spillway_operator.discovery.auth import Identity
from spillway_operator.discovery.session import CloseReason, Event, Limits, Offer, Session
from spillway_operator.discovery.updates import Updates, in_scope, text_frame
from spillway_operator.snapshot.ports import NodeSync, StreamListener, Synced
from spillway_operator.snapshot.state import SnapshotState, differing
from spillway_wire.messages import FaultReason, FromProxy, Node, Ping, Report, decode_from_proxy, encode
from spillway_wire.names import Role
from spillway_wire.snapshot import ResourceKey

BATCH_SECONDS: Final = 0.05
ROUTING_SECONDS: Final = 10.0  # a sidecar that routed nothing for so long shares nothing with the others
FAN_OUT_SLICE: Final = 250  # proxies written to in one turn of the loop: a few ms

_log = logging.getLogger(__name__)


class Transport(Protocol):
    """Where a session's bytes go. Neither method waits nor raises; writing to a closed one does nothing."""

    def send(self, wire: bytes) -> None:
        """Complete WebSocket frames."""

    def close(self, reason: CloseReason) -> None:
        """Say why and close."""


@dataclass(slots=True, eq=False)
class Link:
    """One connection."""

    transport: Transport
    identity: Identity
    session: Session
    open: bool = True


@dataclass(slots=True)
class _Counts:
    """What has happened since the start."""

    opened: int = 0
    updates: int = 0
    updates_full: int = 0
    update_bytes: int = 0
    pings: int = 0
    reports: int = 0
    events: Counter[str] = field(default_factory=Counter)
    closed: Counter[str] = field(default_factory=Counter)


class Hub:
    """Sessions by node, one shared set of frames. Implements `snapshot.ports.SnapshotPublisher`."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        schedule: Callable[[float, Callable[[], None]], object],
        rng: Random,
        limits: Limits,
        settle_seconds: float,
    ) -> None:
        self._clock = clock
        self._schedule = schedule
        self._rng = rng
        self._limits = limits
        self._settle_seconds = settle_seconds
        self._settle_at: float | None = None
        self._updates = Updates()
        self._links: dict[Link, None] = {}  # in the order they came
        self._nodes: dict[str, Link] = {}
        self._live: dict[str, Role] = {}  # nodes that take requests
        self._routers: int | None = None
        self._routed: dict[str, float] = {}  # when a sidecar's own route listener was last seen at work
        self._listener: StreamListener | None = None
        self._published: SnapshotState | None = None
        self._batch: list[SnapshotState] = []
        self._flush_due = False
        self._behind: deque[Link] = deque()
        self._telling = False
        self._ping_id = 0
        self._counts = _Counts()

    # What the core asks for.

    def attach(self, listener: StreamListener) -> None:
        """Name the core, before the first proxy."""
        self._listener = listener

    def publish(self, state: SnapshotState) -> None:
        """`state` goes out with whatever else is published within the next 50 ms."""
        self._published = state
        self._batch.append(state)
        if not self._flush_due:
            self._flush_due = True
            self._schedule(BATCH_SECONDS, self.flush)

    def nodes(self) -> tuple[NodeSync, ...]:
        """Every proxy that has said hello, by id."""
        return tuple(self._node_sync(link.session) for _, link in sorted(self._nodes.items()))

    def _node_sync(self, session: Session) -> NodeSync:
        return NodeSync(
            node=_node_of(session),
            connected_since=session.opened_at,
            acked_version=session.held if self._updates.knows(session.held) else None,
            refusal=session.refusal,
            draining=session.draining,
        )

    def synced(self, keys: Iterable[ResourceKey]) -> Synced:
        """Who runs what was published last, among the nodes whose scope has any of `keys`. One comparison a (version, scope)."""
        wanted = tuple(keys)
        verdicts: dict[tuple[str | None, str], bool | None] = {}
        synced: list[str] = []
        lagging: list[str] = []
        for node_id, link in self._nodes.items():
            held, scope = link.session.held, _node_of(link.session).namespace
            if (held, scope) not in verdicts:
                verdicts[held, scope] = self._holds(held, scope, wanted)
            verdict = verdicts[held, scope]
            if verdict is not None:
                (synced if verdict else lagging).append(node_id)
        return Synced(synced=tuple(sorted(synced)), lagging=tuple(sorted(lagging)))

    def _holds(self, version: str | None, scope: str, keys: tuple[ResourceKey, ...]) -> bool | None:
        mine = [key for key in keys if in_scope(key, scope)]
        if keys and not mine:
            return None
        held = self._updates.resources(version, scope)
        return held is not None and self._published is not None and not differing(mine, held, self._published)

    # What the shell drives.

    def open(self, transport: Transport, identity: Identity) -> Link:
        """A connection was accepted; the hello is due."""
        link = Link(transport=transport, identity=identity, session=Session(opened_at=self._clock(), limits=self._limits))
        self._links[link] = None
        self._counts.opened += 1
        return link

    def frame(self, link: Link, data: bytes | str) -> None:
        """A text frame came in. A bad one closes the connection."""
        if not link.open:
            return
        try:
            message = decode_from_proxy(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _log.info("discovery: bad frame from %s: %s", _label(link), str(error)[:200])
            self.close(link, CloseReason.BAD_FRAME)
            return
        now = self._clock()
        offer = link.session.offered
        outcome = link.session.receive(message, now)
        if isinstance(outcome, CloseReason):
            self.close(link, outcome)
            return
        if outcome is Event.REPORTED:
            self._take_report(_node_of(link.session), message, now)
            return
        if outcome is Event.PONGED:
            return
        self._counts.events[outcome.name.lower()] += 1
        if outcome is Event.JOINED:
            self._join(link)
        elif outcome in {Event.ACKED, Event.NACKED}:
            if outcome is Event.NACKED:
                self._refused(link, offer)
            self._offer(link, now)
            self._tell()
        elif outcome is Event.DRAINING:
            self._enliven(link)
            self._tell()

    def _take_report(self, node: Node, report: FromProxy, now: float) -> None:
        self._counts.reports += 1
        if self._listener is not None and isinstance(report, Report):
            if node.role is Role.SIDECAR and (report.demand or report.traffic):
                self._routed[node.id] = now
            self._listener.on_report(node, report, now)

    def _refused(self, link: Link, offer: Offer | None) -> None:
        self._log_refusal(link)
        if self._updates.settled and offer is not None and offer.full and not offer.settled:
            link.session.forgive(FaultReason.ENDPOINTS_LOST)  # it was under way when the operator settled

    def closed(self, link: Link) -> None:
        """The connection is gone, whoever ended it."""
        link.open = False
        self._links.pop(link, None)
        node = link.session.node
        if node is not None and self._nodes.get(node.id) is link:
            del self._nodes[node.id]
            self._live.pop(node.id, None)
            self._routers = None
            self._tell()

    def close(self, link: Link, reason: CloseReason) -> None:
        """End a connection."""
        if link.open:
            self._counts.closed[reason.name.lower()] += 1
            link.transport.close(reason)
            self.closed(link)

    def close_all(self) -> None:
        """The operator stops."""
        for link in list(self._links):
            self.close(link, CloseReason.SHUTDOWN)

    def tick(self) -> None:
        """Deadlines and pings. All pings of one tick are the same bytes."""
        now = self._clock()
        self._routers = None
        if self._settle_at is not None and now >= self._settle_at:
            self._settle(now)
        ping: bytes | None = None
        for link in list(self._links):
            outcome = link.session.lapse(now)
            if outcome is None:
                continue
            if isinstance(outcome, CloseReason):
                self.close(link, outcome)
                continue
            if ping is None:
                self._ping_id += 1
                ping = text_frame(encode(Ping(id=self._ping_id, routers=self.routers())))
            # Half to one and a half intervals: streams that began together do not stay together.
            next_ping_at = now + self._limits.ping_seconds * (0.5 + self._rng.random())
            link.session.pinged(self._ping_id, next_ping_at, now)
            link.transport.send(ping)
            self._counts.pings += 1

    def flush(self) -> None:
        """What was published is the newest; offer it to every proxy that is not busy with another."""
        self._flush_due = False
        if not self._batch:
            return
        if self._settle_at is None and not self._updates.settled:
            self._settle_at = self._clock() + self._settle_seconds
            if self._settle_seconds <= 0:
                self._settle(self._clock())
        for state in self._batch:  # only the last goes out; the others tell what was taken away on purpose
            self._updates.advance(state)
        self._batch.clear()
        fanning_out = bool(self._behind)
        self._behind = deque(self._nodes.values())
        if not fanning_out:
            self._fan_out()

    def _fan_out(self) -> None:
        now = self._clock()
        try:
            for _ in range(min(FAN_OUT_SLICE, len(self._behind))):
                self._offer(self._behind.popleft(), now)
        finally:  # whatever one proxy's stream meets, those behind it are served
            if self._behind:
                self._schedule(0, self._fan_out)

    def _settle(self, now: float) -> None:
        self._settle_at = None
        self._updates.settle()
        for link in self._nodes.values():
            if link.session.forgive(FaultReason.ENDPOINTS_LOST):
                self._offer(link, now)

    def _join(self, link: Link) -> None:
        node = _node_of(link.session)
        if not link.identity.may_speak_for(node):
            link.session.node = None
            self.close(link, CloseReason.FORBIDDEN)
            return
        earlier = self._nodes.get(node.id)
        self._nodes[node.id] = link
        if earlier is not None:
            self.close(earlier, CloseReason.SUPERSEDED)
        self._enliven(link)
        self._offer(link, self._clock())
        self._tell()

    def _offer(self, link: Link, now: float) -> None:
        current = self._updates.current
        if not link.open or current is None or not link.session.wants(current.version):
            return
        session = link.session
        frame = self._updates.frame(session.held, _node_of(session).namespace, self.routers())
        if frame is None:
            return
        session.offer(frame.version, frame.nonce, full=frame.full, settled=frame.settled, now=now)
        link.transport.send(frame.wire)
        self._counts.updates += 1
        self._counts.updates_full += frame.full
        self._counts.update_bytes += len(frame.wire)

    def routers(self) -> int:
        """Who shares the endpoints: every gateway, and the sidecars whose own pods send requests through them. At least one.

        Counted once a tick and after each change of who is there, not for each frame.
        """
        if self._routers is None:
            idle_since = self._clock() - ROUTING_SECONDS
            self._routed = {node_id: at for node_id, at in self._routed.items() if at > idle_since}
            self._routers = sum(role is Role.GATEWAY or node_id in self._routed for node_id, role in self._live.items())
        return max(1, self._routers)

    def _enliven(self, link: Link) -> None:
        """A draining proxy takes nothing."""
        node_id = _node_of(link.session).id
        if link.session.draining:
            self._live.pop(node_id, None)
        else:
            self._live[node_id] = _node_of(link.session).role
        self._routers = None

    def _tell(self) -> None:
        if not self._telling:
            self._telling = True
            self._schedule(BATCH_SECONDS, self._tell_now)

    def _tell_now(self) -> None:
        self._telling = False
        if self._listener is not None:
            self._listener.on_node_change()

    def _log_refusal(self, link: Link) -> None:
        refusal = link.session.refusal
        if refusal is not None:
            fault = refusal.errors[0]
            _log.warning(
                "discovery: %s refuses %s: %s: %s: %s", _label(link), refusal.version, fault.path, fault.reason, fault.message
            )

    def info(self) -> dict[str, Any]:
        """Counters since the start and the streams as they are."""
        counts = self._counts
        return {
            "connections": len(self._links),
            "nodes": len(self._nodes),
            "routers": self.routers(),
            "offered": sum(link.session.offered is not None for link in self._nodes.values()),
            "refusing": sum(link.session.refusal is not None for link in self._nodes.values()),
            "opened_total": counts.opened,
            "updates_total": counts.updates,
            "updates_full_total": counts.updates_full,
            "update_bytes_total": counts.update_bytes,
            "pings_total": counts.pings,
            "reports_total": counts.reports,
            "events_total": dict(counts.events),
            "closed_total": dict(counts.closed),
            "updates": self._updates.info(),
        }


def _node_of(session: Session) -> Node:
    if session.node is None:
        raise AssertionError("a session without a hello has no node")
    return session.node


def _label(link: Link) -> str:
    return link.session.node.id if link.session.node is not None else "a proxy that has not said hello"
