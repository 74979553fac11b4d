"""The production policy: the proxy's own classes for endpoints, pools and profiles, and its own choice, one set for each router.

This module does what `proxy.attempt` and `proxy.sweep` do around them, and no more.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

from spillway.simulate.loads import MAX_CONCURRENCY, MAX_QUEUE
from spillway.simulate.policies.base import Policy, Scene
from spillway.simulate.traffic import Request
from spillway_sidecar.balancing.choose import choose
from spillway_sidecar.proxy.sweep import compare
from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.routing.table import CompiledRule, compile_table
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState
from spillway_wire.loads import Load
from spillway_wire.names import RequestType
from spillway_wire.snapshot import BackendRef, Route, Rule

SWEEP_SECONDS: Final = 0.1
SWEPT_AT_ONCE: Final = 16_384  # with more routers times endpoints, sweeps are rarer
COMPARE_SECONDS: Final = 1.0
LIMIT_SECONDS: Final = 5.0  # limits follow the mean request
_MODEL: Final = "m"


class RouterView:
    """One router: its pictures of all endpoints, and what `choose` wants to know of it."""

    __slots__ = ("now", "pool", "random", "routers", "rule", "states")
    pool: Pool[EndpointState]
    rule: CompiledRule[Pool[EndpointState]]

    def __init__(self, scene: Scene) -> None:
        self.routers = scene.routers
        self.now = 0.0
        self.random = scene.rng.random
        speed = ClusterSpeed()
        self.states = [EndpointState(str(index), True, speed) for index in range(len(scene.engines))]
        self._take(Pool("pool", self.states, speed))
        self.limit()

    def members(self, indexes: Sequence[int]) -> None:
        """From here on these are the endpoints that there are, as after a swap of snapshots."""
        before = self.pool
        self._take(Pool("pool", [self.states[index] for index in indexes], before.speed, before.peers, before.prefixes))

    def _take(self, pool: Pool[EndpointState]) -> None:
        self.pool = pool
        table = compile_table(
            "1",
            [Route("r", (_MODEL,), (Rule("all", (BackendRef("pool"),)),))],
            {},
            lambda _: (pool, _MODEL, tuple(RequestType)),
        )
        self.rule = table.routes[_MODEL].rules[0]

    def limit(self) -> None:
        """As a snapshot's limits are kept in force."""
        for state in self.states:
            state.limit(MAX_CONCURRENCY, MAX_QUEUE)


class Ours(Policy):
    """As the proxies choose."""

    hears = True

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self.views = [RouterView(scene) for _ in range(scene.routers)]
        self.tick_seconds = SWEEP_SECONDS * max(1, scene.routers * self.count // SWEPT_AT_ONCE)
        self._compare_at = COMPARE_SECONDS
        self._limit_at = LIMIT_SECONDS
        self._unsettled: set[EndpointState] = set()  # whose factor changes with time alone

    def choose(self, request: Request, now: float) -> int:
        view = self.views[request.router]
        view.now = now
        tried = tuple(view.states[index] for index in request.tried)
        facts = request.facts = request.facts or self.facts(request)
        choice = choose(view.rule, facts, view, tried)
        request.bound = facts.limit
        return -1 if choice is None else int(choice[1].id)

    def facts(self, request: Request) -> Facts:
        """What a proxy would read of the request. Every prompt has a beginning, shared or not."""
        key = zlib.crc32((request.prefix if request.prefix_tokens else str(request.id)).encode()) + 1
        return Facts(RequestType.CHAT, _MODEL, stream=True, prompt_tokens=request.input_tokens, prefix=key)

    def sent(self, request: Request, now: float) -> None:
        state = self.views[request.router].states[request.endpoint]
        request.probe = state.sent(request.cost)
        request.ahead = state.awaits(request.cost)

    def admitted(self, request: Request, now: float) -> None:
        load = self.views[request.router].states[request.endpoint].load
        if load is not None and load.waiting_tokens is not None and load.waiting_tokens >= request.cost:
            request.ahead = load.waiting_tokens - request.cost

    def first_token(self, request: Request, now: float) -> None:
        state = self.views[request.router].states[request.endpoint]
        state.arrived(request.cost)
        state.first_token(True, now - request.sent_at, request.input_tokens, now, request.ahead)

    def ended(self, request: Request, now: float, *, ok: bool) -> None:
        state = self.views[request.router].states[request.endpoint]
        if not ok:
            state.failed(now, hard=False, sent_at=request.sent_at)
        state.done(request.cost, probe=request.probe)
        if request.first_at < 0.0:
            state.arrived(request.cost)
        if ok:
            state.succeeded(now, request.sent_at)
        self._unsettled.add(state)

    def report(self, router: int, endpoint: int, load: Load, now: float) -> None:
        self.views[router].states[endpoint].report(load, now)

    def tick(self, now: float) -> None:
        for state in self._unsettled:
            state.refresh(now)
        self._unsettled = {state for state in self._unsettled if state.factor != 1.0 or state.slowness != 1.0}
        if now >= self._compare_at:
            self._compare_at = now + COMPARE_SECONDS
            for view in self.views:
                compare(view.pool, now)  # type: ignore[arg-type]
        if now >= self._limit_at:
            self._limit_at = now + LIMIT_SECONDS
            for view in self.views:
                view.limit()
