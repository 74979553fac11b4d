"""The queue of one rule and one type of request at a router, and what all who are in it wait for.

That is room, while there is any endpoint. While there is none and a backend scales from zero, it is the first replica: then the lane is
*asleep*, and requests in it are *held*. Who came while it slept keeps the time that it was given then.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from spillway_sidecar.flow.fair_queue import FairQueue
from spillway_sidecar.routing.table import Backend, CompiledRule
from spillway_sidecar.scheduling.pool import Pool
from spillway_wire.names import RequestType

if TYPE_CHECKING:
    from spillway_sidecar.proxy.placement import Placement
    from spillway_sidecar.proxy.upstream import Target

LaneKey = tuple[str, str, RequestType]


class Lane:
    """`asleep`: the backend whose first replica is waited for. `tokens`: of all that wait."""

    __slots__ = ("_backends", "asleep", "queue", "rule", "tokens", "type")

    def __init__(self, rule: CompiledRule[Pool[Target]], request_type: RequestType, queue: FairQueue[Placement]) -> None:
        self.type = request_type
        self.queue = queue
        self.asleep: Backend[Pool[Target]] | None = None
        self.tokens = 0
        self.follow(rule)

    def follow(self, rule: CompiledRule[Pool[Target]]) -> None:
        """Takes the rule as it stands now."""
        self.rule = rule
        self._backends = {
            backend.name: backend for group in reversed(rule.groups) for backend in group.backends if self.type in backend.types
        }

    def targets(self) -> Iterator[Target]:
        """Every endpoint that serves such requests."""
        return (target for backend in self._backends.values() for target in backend.cluster.targets)

    def backend(self, cluster: str) -> Backend[Pool[Target]] | None:
        """The rule's backend of that name, if it serves such requests."""
        return self._backends.get(cluster)

    def sleep(self, backend: Backend[Pool[Target]], now: float) -> None:
        """There is no endpoint any more: whoever waits here waits for the backend's first."""
        before, self.asleep = self.asleep, backend
        if before is None:
            self.queue.stand_still(now)
            for exchange in self.exchanges():
                self.allow(exchange)

    def wake(self, now: float) -> None:
        """There is one, or nobody waits any more. From now on it is room that is waited for, for as long as that may take."""
        self.asleep = None
        self.queue.go_on(now)
        for exchange in self.exchanges():
            exchange.until = max(exchange.until, now + exchange.route.flow.max_wait_seconds)
            self.allow(exchange)

    def allow(self, exchange: Placement) -> None:
        """Gives a request the time that it may wait here; what it has been given before is not taken from it."""
        asleep, route = self.asleep, exchange.route
        seconds = route.flow.max_wait_seconds
        if asleep is not None:
            exchange.held = True
            seconds = max(seconds, asleep.cluster.hold_seconds)
        longest = min(exchange.patience, route.timeouts.request_seconds)
        exchange.until = min(max(exchange.until, exchange.started + seconds), exchange.started + longest)
        exchange.deadline = exchange.until

    def exchanges(self) -> list[Placement]:
        """All that wait, the highest priority first."""
        return [ticket.item for band in self.queue.bands.values() for ticket in band.tickets()]
