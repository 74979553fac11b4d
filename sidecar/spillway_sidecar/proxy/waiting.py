"""Where requests of a route wait while every endpoint that could take them has as much as it can run, or while there is none yet.

One queue for each rule and type of request (a *lane*), so that nobody waits behind those who wait for something else. Which endpoint a request gets is
decided as late as can be: when one has room, by a request that ended there, by its word, or by the sweep, the request whose turn it
is goes to that endpoint. Among lanes that the endpoint serves the higher priority goes first, then who came first. While lower priorities
wait, a few places are kept free for the higher ones (`flow.reserve`).

A queue outlives the table that it began with: endpoints that a snapshot brings are for those who wait too.

Where a backend scales from zero, requests that find no endpoint are *held* for its first one (`lane`): in the same queue, for longer. The
operator hears of the first at once. Endpoints that end such a wait are given what has waited by and by (`ramp`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from spillway_sidecar.balancing.asleep import asleep
from spillway_sidecar.balancing.choose import choose, endpoints
from spillway_sidecar.balancing.last_resort import least_bad
from spillway_sidecar.flow.band import Ticket
from spillway_sidecar.flow.fair_queue import FairQueue, Rejection
from spillway_sidecar.flow.reserve import reserve
from spillway_sidecar.proxy.answers import nowhere
from spillway_sidecar.proxy.errors import Outcome, Refusal
from spillway_sidecar.proxy.heads import Fields
from spillway_sidecar.proxy.lane import Lane, LaneKey
from spillway_sidecar.proxy.upstream import Target
from spillway_sidecar.routing.table import Backend, CompiledRoute, CompiledRule, RoutingTable
from spillway_sidecar.scheduling.filters.eligible import Eliminated, eliminate
from spillway_sidecar.scheduling.health import SLOW_START_SECONDS
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.ramp import ramp
from spillway_sidecar.scheduling.speed import EXPECTED_OUTPUT_TOKENS
from spillway_wire.names import RequestType

if TYPE_CHECKING:
    from spillway_sidecar.proxy.placement import Placement
    from spillway_sidecar.proxy.route import RouteSite

OUTPUT_WEIGHT: Final = 2  # a generated token costs an engine about as much as two that it reads
MAX_FLOW_ID_BYTES: Final = 128
PATIENCE_HEADER: Final = b"x-llm-d-slo-ttft-ms"
HELD_RETRY_AFTER_SECONDS: Final = 5
CROWDED: Final = "Too many requests wait for the first replica of this model."
NOT_UP: Final = "No replica of this model came up in time."
_NEVER: Final = float("inf")


class WaitingRoom:
    """All lanes of one router. `count` requests wait. `woken` is called when a backend without endpoints is asked for after a pause."""

    def __init__(self, site: RouteSite) -> None:
        self.count = 0
        self.held_total: dict[str, int] = {}  # by backend
        self.woken: Callable[[], None] = _nobody
        self._site = site
        self._ramps: dict[Target, float] = {}  # since when an endpoint that was waited for is there
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

    def hold(self, exchange: Placement, fields: Fields | None = None) -> Refusal | None:
        """Lets a request for which there is no endpoint wait for one, or says that there is nowhere to go."""
        site = self._site
        if not self.holds(exchange):
            return nowhere(exchange.rule, site)
        lane = self._lane(exchange.route, exchange.rule, exchange.facts.type)
        backend = asleep(lane.rule, lane.type)  # a snapshot may have brought an endpoint since the request began
        if backend is not None:
            self._sleep(lane, backend)
        before = exchange.ticket
        full = self.enter(exchange, fields)
        if full is not None and lane.asleep is not None and not lane.queue.waiting:
            lane.wake(site.now)
        if full is None and before is None and backend is not None and lane.queue.waiting == 1:
            self.woken()
        return full

    def _sleep(self, lane: Lane, backend: Backend[Pool[Target]]) -> None:
        """Whoever waits there is held from now on."""
        before, waiting = lane.asleep, lane.queue.waiting
        lane.sleep(backend, self._site.now)
        if before is None and waiting:
            self._count_held(backend, waiting)
            self.woken()

    def _count_held(self, backend: Backend[Pool[Target]], requests: int) -> None:
        self.held_total[backend.name] = self.held_total.get(backend.name, 0) + requests

    def holds(self, exchange: Placement) -> bool:
        """Whether a request that finds no endpoint would be held."""
        return (
            bool(exchange.rule.wakes and exchange.route.flow.max_requests)
            and asleep(exchange.rule, exchange.facts.type) is not None
        )

    def enter(self, exchange: Placement, fields: Fields | None = None) -> Refusal | None:
        """Lets a request wait, or says why not. `fields`: its head, for the flow that it belongs to."""
        site, route, facts = self._site, exchange.route, exchange.facts
        flow = route.flow
        before = exchange.ticket
        lane = self._lane(route, exchange.rule, facts.type)
        if before is None:
            flow_id, exchange.patience, exchange.until, exchange.held = b"", _NEVER, 0.0, False
            if fields is not None:
                flow_id = fields.get(flow.fairness_header, b"")[:MAX_FLOW_ID_BYTES]
                asked = fields.get(PATIENCE_HEADER)
                if asked is not None and asked.isdigit() and len(asked) < 9:
                    exchange.patience = int(asked) / 1000.0
            turn = exchange.started + min(flow.max_wait_seconds, exchange.patience, route.timeouts.request_seconds)
        else:
            flow_id, turn = before.flow.id, before.turn
        held_before = exchange.held
        lane.allow(exchange)
        if exchange.until <= site.now:
            return self.out_of_time(exchange)
        result, evicted = lane.queue.offer(
            exchange,
            priority=exchange.priority,
            flow_id=flow_id,
            cost=facts.prompt_tokens + OUTPUT_WEIGHT * EXPECTED_OUTPUT_TOKENS,
            size_bytes=len(exchange.body),
            deadline=exchange.until,
            now=site.now,
            turn=turn,
        )
        for victim in evicted:
            self._left(lane, victim)
            victim.evicted(_full(Outcome.EVICTED, lane.queue.retry_after_seconds(victim.priority, site.now)))
        if isinstance(result, Rejection):
            if lane.asleep is not None:
                return Refusal(429, Outcome.OVERLOADED, CROWDED, retry_after=HELD_RETRY_AFTER_SECONDS, code="overloaded")
            return _full(Outcome.OVERLOADED, result.retry_after_seconds)
        self.count += 1
        lane.tokens += exchange.cost
        if lane.asleep is not None and not held_before:
            self._count_held(lane.asleep, 1)
        exchange.ticket = result
        self._soon()
        return None

    def _left(self, lane: Lane, exchange: Placement) -> None:
        """It does not wait any more."""
        self.count -= 1
        lane.tokens -= exchange.cost
        if lane.asleep is not None and not lane.queue.waiting:
            lane.wake(self._site.now)

    def out_of_time(self, exchange: Placement) -> Refusal:
        """What is said to one that has waited as long as it may."""
        lane = self._lane(exchange.route, exchange.rule, exchange.facts.type)
        if lane.asleep is not None:
            return Refusal(503, Outcome.COLD_START_TIMEOUT, NOT_UP, retry_after=HELD_RETRY_AFTER_SECONDS, code="no_endpoint")
        return _full(Outcome.QUEUE_TIMEOUT, lane.queue.retry_after_seconds(exchange.priority, self._site.now))

    def over(self, exchange: Placement, prompt_tokens: int, output_tokens: int) -> None:
        """A request that waited, or waits, has ended."""
        ticket, exchange.ticket = exchange.ticket, None
        if ticket is None:
            return
        lane = self._lane(exchange.route, exchange.rule, exchange.facts.type)
        if ticket.waits:
            lane.queue.remove(ticket, self._site.now)
            self._left(lane, exchange)
        else:
            lane.queue.correct(ticket, prompt_tokens + OUTPUT_WEIGHT * output_tokens)

    def held(self) -> dict[str, tuple[int, int]]:
        """Requests that are held, and their tokens, by backend."""
        found: dict[str, tuple[int, int]] = {}
        for lane in self._lanes.values():
            if lane.asleep is not None:
                requests, tokens = found.get(lane.asleep.name, (0, 0))
                found[lane.asleep.name] = requests + lane.queue.waiting, tokens + lane.tokens
        return found

    def held_figures(self) -> list[tuple[str, int, int]]:
        """For each backend for which any was held: how many are, how many have been."""
        held = self.held()
        return [(backend, held.get(backend, (0, 0))[0], count) for backend, count in self.held_total.items()]

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
            if lane.rule.wakes or lane.asleep is not None:
                self._settle(lane)
            while (ticket := lane.queue.head()) is not None:
                place = self._place(lane, ticket.item)
                if place is None or self._kept_from(lane, ticket):
                    break
                self._dispatch(lane, ticket, *place)

    def _settle(self, lane: Lane) -> None:
        """Whether those who wait wait for room, or for a first endpoint."""
        now = self._site.now
        backend = asleep(lane.rule, lane.type) if lane.queue.waiting else None
        if backend is not None:
            self._sleep(lane, backend)
        elif lane.asleep is not None:
            lane.wake(now)
            self._ramps = {target: since for target, since in self._ramps.items() if now - since < SLOW_START_SECONDS}
            self._ramps.update((target, now) for waking in lane.rule.wakes for target in waking.cluster.targets)

    def _has_room(self, target: Target) -> bool:
        site = self._site
        if target.saturated(site.routers, site.now):
            return False
        since = self._ramps.get(target) if self._ramps else None
        return since is None or target.in_flight < ramp(target.max_running, site.routers, site.now - since)

    def _place(self, lane: Lane, exchange: Placement) -> tuple[Backend[Pool[Target]], Target] | None:
        """Where there is room for the request: the best place, else any."""
        site = self._site
        routers, now = site.routers, site.now
        if exchange.tried and all(target in exchange.tried for target in lane.targets()):
            exchange.as_new()  # those that it has not been at are gone: it would wait for nothing, and all behind it
        choice = choose(lane.rule, exchange.facts, site, exchange.tried)
        if choice is None:
            found = least_bad(lane.rule, lane.type, routers, now, exchange.tried)
            return None if found is None or not self._has_room(found[1]) else found
        if self._has_room(choice[1]):
            return choice[0], choice[1]
        return next(
            (
                (backend, target)
                for group in lane.rule.groups
                for backend in group.backends
                if lane.type in backend.types
                for target in backend.cluster.targets
                if self._has_room(target) and eliminate(target, exchange.tried, routers, now) is None
            ),
            None,
        )

    def follow(self, table: RoutingTable[Pool[Target]]) -> None:
        """A snapshot is in force: lanes take their rules from it. A lane whose rule is gone keeps what it has until it is empty, or asleep."""
        rules = {(route.name, rule.name): (route, rule) for route in table.routes.values() for rule in route.rules}
        for key, lane in tuple(self._lanes.items()):
            found = rules.get(key[:2])
            if found is not None:
                route, rule = found
                lane.follow(rule)
                lane.queue.max_requests, lane.queue.max_bytes = route.flow.max_requests, route.flow.max_bytes
            elif not lane.queue.waiting:
                del self._lanes[key]
            elif lane.asleep is not None:
                for exchange in lane.exchanges():
                    exchange.evicted(nowhere(lane.rule, self._site))
        scaling = {backend.name for _, rule in rules.values() for backend in rule.wakes}
        self.held_total = {backend: count for backend, count in self.held_total.items() if backend in scaling}
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
                and self._has_room(target)
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
            if backend is None or ticket is None or target in ticket.item.tried or self._kept_from(lane, ticket):
                continue
            rank = (-ticket.band.priority, ticket.arrived)
            if best is None or rank < best[0]:
                best = rank, lane, ticket, backend
        if best is None:
            return False
        _, lane, ticket, backend = best
        self._dispatch(lane, ticket, backend, target)
        return True

    def _kept_from(self, lane: Lane, ticket: Ticket[Placement]) -> bool:
        """Whether no places are left but those that are kept for higher priorities."""
        share = lane.queue.share_above(ticket.band.priority)
        if not share:
            return False
        routers, now = self._site.routers, self._site.now
        well = [target for target in lane.targets() if eliminate(target, (), routers, now) is None]
        places = sum(target.max_running for target in well)
        return sum(target.room(routers, now) for target in well) <= reserve(share, places)

    def _dispatch(self, lane: Lane, ticket: Ticket[Placement], backend: Backend[Pool[Target]], target: Target) -> None:
        lane.queue.take(ticket, self._site.now)
        self._left(lane, ticket.item)
        ticket.item.admitted(backend, target)

    def info(self) -> dict[str, object]:
        """The lanes."""
        lanes = {f"{route}/{rule} {request_type}": lane.queue.info() for (route, rule, request_type), lane in self._lanes.items()}
        held = {backend: requests for backend, (requests, _) in self.held().items()}
        return {"waiting": self.count, "held": held, "lanes": lanes}


def _nobody() -> None:
    """Nobody wants to know."""


def _full(outcome: Outcome, retry_after_seconds: int) -> Refusal:
    message = "Every place that serves this model is full."
    return Refusal(429, outcome, message, retry_after=retry_after_seconds, code="overloaded")
