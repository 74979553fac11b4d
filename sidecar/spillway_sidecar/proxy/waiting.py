"""Where requests of a route wait while every endpoint that could take them has as much as it can run.

One queue for each rule and type of request (a *lane*), so that nobody waits behind those who wait for something else. Which endpoint a request gets is
decided as late as can be: when one has room, by a request that ended there, by its word, or by the sweep, the request whose turn it
is goes to that endpoint. Among lanes that the endpoint serves the higher priority goes first, then who came first.

A queue outlives the table that it began with: endpoints that a snapshot brings are for those who wait too.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from spillway_sidecar.balancing.choose import choose, endpoints
from spillway_sidecar.balancing.last_resort import least_bad
from spillway_sidecar.flow.band import Ticket
from spillway_sidecar.flow.fair_queue import FairQueue, Rejection
from spillway_sidecar.proxy.errors import Outcome, Refusal
from spillway_sidecar.proxy.heads import Fields
from spillway_sidecar.proxy.upstream import Target
from spillway_sidecar.routing.table import Backend, CompiledRoute, CompiledRule, RoutingTable
from spillway_sidecar.scheduling.filters.eligible import Eliminated, eliminate
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.speed import EXPECTED_OUTPUT_TOKENS
from spillway_wire.names import RequestType

if TYPE_CHECKING:
    from spillway_sidecar.proxy.placement import Placement
    from spillway_sidecar.proxy.route import RouteSite

OUTPUT_WEIGHT: Final = 2  # a generated token costs an engine about as much as two that it reads
MAX_FLOW_ID_BYTES: Final = 128
PATIENCE_HEADER: Final = b"x-llm-d-slo-ttft-ms"

LaneKey = tuple[str, str, RequestType]


class Lane:
    """The queue of one rule and one type of request, and where they may go."""

    __slots__ = ("_backends", "queue", "rule", "type")

    def __init__(self, rule: CompiledRule[Pool[Target]], request_type: RequestType, queue: FairQueue[Placement]) -> None:
        self.type = request_type
        self.queue = queue
        self.follow(rule)

    def follow(self, rule: CompiledRule[Pool[Target]]) -> None:
        """Takes the rule as it stands now."""
        self.rule = rule
        self._backends = {
            backend.name: backend for group in reversed(rule.groups) for backend in group.backends if self.type in backend.types
        }

    def backend(self, cluster: str) -> Backend[Pool[Target]] | None:
        """The rule's backend of that name, if it serves such requests."""
        return self._backends.get(cluster)


class WaitingRoom:
    """All lanes of one router. `count` requests wait."""

    def __init__(self, site: RouteSite) -> None:
        self.count = 0
        self._site = site
        self._lanes: dict[LaneKey, Lane] = {}
        self._freed: dict[Target, str] = {}
        self._scheduled = False

    def must_wait(self, exchange: Placement, target: Target) -> bool:
        """Whether `target`, the best that there is for the request, has as much as it can run, and so has every other; or others wait already."""
        site = self._site
        if not target.saturated(site.routers, site.now):
            if not self.count:
                return False
            lane = self._lanes.get((exchange.route.name, exchange.rule.name, exchange.facts.type))
            return lane is not None and lane.queue.waiting > 0
        if not exchange.route.flow.max_requests:
            return False
        routers, now = site.routers, site.now
        if len(exchange.rule.groups) == 1 and len(exchange.rule.groups[0].backends) == 1:
            return True
        return all(
            other.saturated(routers, now) or eliminate(other, (), routers, now) is not None for other in endpoints(exchange.rule)
        )

    def for_room(self, exchange: Placement) -> bool:
        """Whether it is for want of room alone that no endpoint could be chosen; one that has asked for a pause is left alone."""
        routers, now = self._site.routers, self._site.now
        return exchange.route.flow.max_requests > 0 and any(
            target not in exchange.tried and eliminate(target, (), routers, now) is Eliminated.FULL
            for target in endpoints(exchange.rule)
        )

    def enter(self, exchange: Placement, fields: Fields | None = None) -> Refusal | None:
        """Lets a request wait, or says why not. `fields`: its head, for the flow that it belongs to."""
        site, route, facts = self._site, exchange.route, exchange.facts
        flow = route.flow
        before = exchange.ticket
        lane = self._lane(route, exchange.rule, facts.type)
        flow_id = before.flow.id if before is not None else b""
        wait = flow.max_wait_seconds
        if fields is not None:
            flow_id = fields.get(flow.fairness_header, b"")[:MAX_FLOW_ID_BYTES]
            asked = fields.get(PATIENCE_HEADER)
            if asked is not None and asked.isdigit() and len(asked) < 9:
                wait = min(wait, int(asked) / 1000.0)
        deadline = before.deadline if before is not None else exchange.started + min(wait, route.timeouts.request_seconds)
        if deadline <= site.now:
            return self.out_of_time(exchange)
        result, evicted = lane.queue.offer(
            exchange,
            priority=exchange.priority,
            flow_id=flow_id,
            cost=facts.prompt_tokens + OUTPUT_WEIGHT * EXPECTED_OUTPUT_TOKENS,
            size_bytes=len(exchange.body),
            deadline=deadline,
            now=site.now,
        )
        for victim in evicted:
            self.count -= 1
            victim.evicted(_full(Outcome.EVICTED, lane.queue.retry_after_seconds(victim.priority, site.now)))
        if isinstance(result, Rejection):
            return _full(Outcome.OVERLOADED, result.retry_after_seconds)
        self.count += 1
        exchange.ticket = result
        exchange.deadline = deadline
        self._soon()
        return None

    def out_of_time(self, exchange: Placement) -> Refusal:
        """What is said to one that has waited as long as it may."""
        lane = self._lane(exchange.route, exchange.rule, exchange.facts.type)
        return _full(Outcome.QUEUE_TIMEOUT, lane.queue.retry_after_seconds(exchange.priority, self._site.now))

    def over(self, exchange: Placement, prompt_tokens: int, output_tokens: int) -> None:
        """A request that waited, or waits, has ended."""
        ticket, exchange.ticket = exchange.ticket, None
        if ticket is None:
            return
        lane = self._lane(exchange.route, exchange.rule, exchange.facts.type)
        if ticket.waits:
            self.count -= 1
            lane.queue.remove(ticket, self._site.now)
        else:
            lane.queue.correct(ticket, prompt_tokens + OUTPUT_WEIGHT * output_tokens)

    # --- dispatch

    def freed(self, backend: Backend[Pool[Target]] | None, target: Target) -> None:
        """An endpoint may have room. Looked at in the next turn of the loop: what has told so is not done yet."""
        if backend is not None:
            self._freed[target] = backend.name
            self._soon()

    def sweep(self, now: float) -> None:
        """Looks at every lane: words grow old, endpoints come and come back."""
        site = self._site
        site.now = now
        for lane in tuple(self._lanes.values()):
            while (ticket := lane.queue.head()) is not None:
                place = self._place(lane, ticket.item)
                if place is None:
                    break
                self._dispatch(lane, ticket, *place)

    def _place(self, lane: Lane, exchange: Placement) -> tuple[Backend[Pool[Target]], Target] | None:
        """Where there is room for the request: the best place, else any."""
        site = self._site
        routers, now = site.routers, site.now
        choice = choose(lane.rule, exchange.facts, site, exchange.tried)
        if choice is None:
            found = least_bad(lane.rule, lane.type, routers, now, exchange.tried)
            return None if found is None or found[1].saturated(routers, now) else found
        if not choice[1].saturated(routers, now):
            return choice[0], choice[1]
        return next(
            (
                (backend, target)
                for group in lane.rule.groups
                for backend in group.backends
                if lane.type in backend.types
                for target in backend.cluster.targets
                if not target.saturated(routers, now) and eliminate(target, exchange.tried, routers, now) is None
            ),
            None,
        )

    def follow(self, table: RoutingTable[Pool[Target]]) -> None:
        """A snapshot is in force: lanes take their rules from it. A lane whose rule is gone keeps what it has until it is empty."""
        rules = {(route.name, rule.name): (route, rule) for route in table.routes.values() for rule in route.rules}
        for key, lane in tuple(self._lanes.items()):
            found = rules.get(key[:2])
            if found is not None:
                route, rule = found
                lane.follow(rule)
                lane.queue.max_requests, lane.queue.max_bytes = route.flow.max_requests, route.flow.max_bytes
            elif not lane.queue.waiting:
                del self._lanes[key]
        if self.count:
            self._soon()

    def _lane(self, route: CompiledRoute[Pool[Target]], rule: CompiledRule[Pool[Target]], request_type: RequestType) -> Lane:
        key = (route.name, rule.name, request_type)
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane(rule, request_type, FairQueue(route.flow.max_requests, route.flow.max_bytes))
        return lane

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._scheduled = False
        site = self._site
        now = site.now = site.clock()
        freed, self._freed = self._freed, {}
        if not freed:
            self.sweep(now)
        for target, cluster in freed.items():
            while (
                self.count
                and not target.saturated(site.routers, now)
                and eliminate(target, (), site.routers, now) is None
                and self._fill(target, cluster)
            ):
                pass

    def _fill(self, target: Target, cluster: str) -> bool:
        """Gives the endpoint the request whose turn it is; False where none of those that wait may go there."""
        best: tuple[tuple[int, float], Lane, Ticket[Placement], Backend[Pool[Target]]] | None = None
        for lane in self._lanes.values():
            backend = lane.backend(cluster)
            ticket = lane.queue.head() if backend is not None else None
            if backend is None or ticket is None or target in ticket.item.tried:
                continue
            rank = (-ticket.band.priority, ticket.arrived)
            if best is None or rank < best[0]:
                best = rank, lane, ticket, backend
        if best is None:
            return False
        _, lane, ticket, backend = best
        self._dispatch(lane, ticket, backend, target)
        return True

    def _dispatch(self, lane: Lane, ticket: Ticket[Placement], backend: Backend[Pool[Target]], target: Target) -> None:
        self.count -= 1
        lane.queue.take(ticket, self._site.now)
        ticket.item.admitted(backend, target)

    def info(self) -> dict[str, object]:
        """The lanes."""
        lanes = {f"{route}/{rule} {request_type}": lane.queue.info() for (route, rule, request_type), lane in self._lanes.items()}
        return {"waiting": self.count, "lanes": lanes}


def _full(outcome: Outcome, retry_after_seconds: int) -> Refusal:
    message = "Every place that serves this model is full."
    return Refusal(429, outcome, message, retry_after=retry_after_seconds, code="overloaded")
