"""What both listeners have in common: their limits on clients, and what they do when there are too many.

Limits are on sizes and on time (`ClientLimits`), on the number of connections, and on the bytes of bodies that are half read, all together. A
connection too many is told so and closed; beyond `MAX_TURNED_AWAY` of those it is only closed, since telling takes a descriptor for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from spillway_sidecar.proxy.errors import Outcome, Refusal

if TYPE_CHECKING:
    from spillway_sidecar.proxy.downstream import Downstream
    from spillway_sidecar.proxy.heads import RequestHead

MAX_CONNECTIONS: Final = 16_384
MAX_TURNED_AWAY: Final = 64
RETRY_AFTER_SECONDS: Final = 1


@dataclass(frozen=True)
class ClientLimits:
    """What a client may send, and how slowly."""

    max_body_bytes: int = 10 * 1024 * 1024
    max_connections: int = MAX_CONNECTIONS
    max_unread_bytes: int = 256 * 1024 * 1024  # of bodies half read, all clients together
    head_seconds: float = 5.0
    body_seconds: float = 10.0
    body_bytes_per_second: float = 1024.0
    compat: frozenset[str] = frozenset()  # see `proxy.compat`


class Listener:
    """The clients of one listener."""

    def __init__(self, clock: Callable[[], float], limits: ClientLimits, idle_seconds: float) -> None:
        self.clock = clock
        self.now = clock()
        self.connections: set[Downstream] = set()
        self.draining = False
        self.closed = False  # to new connections: the event loop is far too late
        self.limits = limits
        self.max_body_bytes = limits.max_body_bytes
        self.max_connections = limits.max_connections
        self.head_seconds = limits.head_seconds
        self.body_seconds = limits.body_seconds
        self.body_bytes_per_second = limits.body_bytes_per_second
        self.compat = limits.compat
        self.idle_seconds = idle_seconds
        self.unread_bytes = 0

    def precheck(self, head: RequestHead) -> None:
        """Raises `Refusal` for what can be refused by its head alone, before a long body is read."""
        raise NotImplementedError

    def handle(self, client: Downstream, head: RequestHead, body: bytes) -> None:
        """Takes one request. Answers through `client`, or sets `client.exchange` and answers later. May raise `Refusal`."""
        raise NotImplementedError

    def refused(self, refusal: Refusal) -> None:
        """Counts a refusal."""
        raise NotImplementedError

    def too_many_to_tell(self) -> bool:
        """Whether a connection too many is closed without a word."""
        return len(self.connections) > self.max_connections + MAX_TURNED_AWAY

    def turned_away(self) -> Refusal:
        """What a connection too many is told."""
        outcome = Outcome.PROXY_OVERLOADED if self.closed else Outcome.TOO_MANY_CONNECTIONS
        return Refusal(503, outcome, "This server has too many connections.", retry_after=RETRY_AFTER_SECONDS, close=True)

    def hold(self, size: int) -> Refusal | None:
        """Counts bytes of a body that is half read; a refusal where all those that are make too many."""
        self.unread_bytes += size
        if self.unread_bytes <= self.limits.max_unread_bytes:
            return None
        message = "This server holds too many request bodies that have not arrived whole."
        return Refusal(503, Outcome.PROXY_OVERLOADED, message, retry_after=RETRY_AFTER_SECONDS, close=True)
