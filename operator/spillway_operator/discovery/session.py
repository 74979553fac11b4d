"""One proxy's state on the stream, and every decision about it, without I/O.

`Session.receive` takes a decoded message and `Session.lapse` the passing of time; both change the session and return what
the shell has to do. An update is offered by `offer`, when `wants` says so:

    connected --hello--> idle --offer--> offered --ack--> idle (holds the version)
                                            |---nack--> idle (holds what it says; the refused version is not offered again)
                                            |---ack deadline--> closed

A NACK with `BaseMismatch` is the one that is answered at once, with a full update: the proxy could not place the changes.
An ACK or NACK whose nonce is not that of the offer is stale and only counted.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from spillway_operator.snapshot.ports import Refusal
from spillway_wire.messages import Ack, Bye, FaultReason, FromProxy, Hello, Nack, Node, Pong, Report


@dataclass(frozen=True, slots=True)
class Limits:
    """Deadlines and bounds of a session."""

    hello_seconds: float = 5.0  # a connection that does not say who it is holds a slot for nothing
    ack_seconds: float = 15.0  # a proxy compiles 20,000 endpoints in well under a second; the rest is its socket
    ping_seconds: float = 5.0  # carries the router count, and proxies give up after three missed
    pong_seconds: float = 15.0
    messages_per_second: int = 100  # a proxy reports at most ten times a second


class CloseReason(enum.StrEnum):
    """Why the operator closes a stream; goes into the close frame and into counters."""

    HELLO_TIMEOUT = "hello timeout"
    HELLO_EXPECTED = "hello expected"
    SECOND_HELLO = "second hello"
    BAD_FRAME = "bad frame"
    FORBIDDEN = "node does not belong to the peer"
    SUPERSEDED = "superseded by a newer connection of the same node"
    ACK_TIMEOUT = "ack timeout"
    PONG_TIMEOUT = "pong timeout"
    FLOOD = "too many messages"
    SHUTDOWN = "operator stops"


class Event(enum.Enum):
    """What a step did, beside changing the session."""

    JOINED = enum.auto()  # the hello came: admit the node or close
    ACKED = enum.auto()
    NACKED = enum.auto()
    STALE_NONCE = enum.auto()
    REPORTED = enum.auto()  # hand the report on
    REPORT_OF_OTHER_BOOT = enum.auto()
    REPORT_OUT_OF_ORDER = enum.auto()
    PONGED = enum.auto()
    DRAINING = enum.auto()
    PING_DUE = enum.auto()


@dataclass(frozen=True, slots=True)
class Offer:
    """The update on its way."""

    version: str
    nonce: str
    full: bool
    settled: bool
    deadline: float


@dataclass(slots=True)
class Session:
    """State of one connection; a few hundred bytes."""

    opened_at: float  # monotonic seconds, as every `now`
    limits: Limits
    node: Node | None = None
    held: str | None = None  # the version the proxy runs
    offered: Offer | None = None
    refusal: Refusal | None = None
    refused: str | None = None  # the version not to offer again
    draining: bool = False
    ping_at: float = 0.0
    pong_by: float | None = None
    ping_id: int = 0
    report_sequence: int = -1
    second_started: float = 0.0
    messages_this_second: int = 0

    def receive(self, message: FromProxy, now: float) -> Event | CloseReason:
        """One message in: what to do."""
        if now - self.second_started >= 1.0:
            self.second_started, self.messages_this_second = now, 0
        self.messages_this_second += 1
        if self.messages_this_second > self.limits.messages_per_second:
            return CloseReason.FLOOD
        if isinstance(message, Hello):
            return self._hello(message, now)
        if self.node is None:
            return CloseReason.HELLO_EXPECTED
        return self._speak(message, now)

    def _speak(self, message: Ack | Nack | Report | Pong | Bye, now: float) -> Event:
        match message:
            case Report():
                return self._report(message)
            case Ack():
                return self._ack(message)
            case Nack():
                return self._nack(message, now)
            case Pong():
                if message.id == self.ping_id:
                    self.pong_by = None
                return Event.PONGED
            case Bye():
                self.draining = message.draining
                return Event.DRAINING

    def _hello(self, hello: Hello, now: float) -> Event | CloseReason:
        if self.node is not None:
            return CloseReason.SECOND_HELLO
        self.node = hello.node
        self.held = hello.resume_version
        self.ping_at = now
        return Event.JOINED

    def _report(self, report: Report) -> Event:
        if self.node is None or report.boot_id != self.node.boot_id:
            return Event.REPORT_OF_OTHER_BOOT
        if report.sequence <= self.report_sequence:
            return Event.REPORT_OUT_OF_ORDER
        self.report_sequence = report.sequence
        return Event.REPORTED

    def _ack(self, ack: Ack) -> Event:
        offer = self.offered
        if offer is None or ack.nonce != offer.nonce or ack.version != offer.version:
            return Event.STALE_NONCE
        self.offered = self.refusal = self.refused = None
        self.held = offer.version
        return Event.ACKED

    def _nack(self, nack: Nack, now: float) -> Event:
        offer = self.offered
        if offer is None or nack.nonce != offer.nonce:
            return Event.STALE_NONCE
        self.offered = None
        if not offer.full and any(fault.reason == FaultReason.BASE_MISMATCH for fault in nack.errors):
            self.held = None
        else:
            self.held = nack.version
            self.refused = offer.version
            self.refusal = Refusal(version=offer.version, errors=nack.errors, at=now, keeps=nack.version)
        return Event.NACKED

    def wants(self, version: str) -> bool:
        """Whether the newest version is to be offered now."""
        return self.node is not None and self.offered is None and version not in {self.held, self.refused}

    def offer(self, version: str, nonce: str, *, full: bool, settled: bool = False, now: float) -> None:
        """An update is on its way."""
        self.offered = Offer(version=version, nonce=nonce, full=full, settled=settled, deadline=now + self.limits.ack_seconds)

    def forgive(self, reason: FaultReason) -> bool:
        """Offer the refused version once more if it was refused for `reason`; True if so."""
        if self.refused is None or self.refusal is None or all(fault.reason != reason for fault in self.refusal.errors):
            return False
        self.refused = None
        return True

    def pinged(self, ping_id: int, next_ping_at: float, now: float) -> None:
        """A ping is on its way."""
        self.ping_id = ping_id
        self.ping_at = next_ping_at
        self.pong_by = now + self.limits.pong_seconds

    def lapse(self, now: float) -> Event | CloseReason | None:
        """What the passing of time asks for."""
        if self.node is None:
            return CloseReason.HELLO_TIMEOUT if now - self.opened_at > self.limits.hello_seconds else None
        if self.offered is not None and now > self.offered.deadline:
            return CloseReason.ACK_TIMEOUT
        if self.pong_by is not None:  # one ping on its way at a time
            return CloseReason.PONG_TIMEOUT if now > self.pong_by else None
        return Event.PING_DUE if now >= self.ping_at else None
