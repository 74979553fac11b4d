"""One run: a trace through one policy. Discrete events in one heap; everything by one seed.

A request comes to a router by chance, the policy chooses, the endpoint takes it at once: the network takes no time. A policy that says how
much may wait there may be declined, hears why, and chooses again, as proxies do. An attempt that fails goes
elsewhere, once, within the router's retry budget. Reports ride on replies, and go to all routers at the interval, each endpoint at
a moment of its own.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any, Final

from spillway.simulate.engine import USUAL, Engine, EngineSpec
from spillway.simulate.faults import FAIL_SECONDS, SLOW_FACTOR, Fault
from spillway.simulate.loads import HISTORY_SECONDS, LoadPlane
from spillway.simulate.policies.base import Policy, Scene
from spillway.simulate.traffic import Arrival, Request
from spillway_sidecar.flow.budget import RetryBudget

SAMPLE_SECONDS: Final = 0.1
SAMPLED_ENDPOINTS: Final = 64  # whose load is written down
MAX_ATTEMPTS: Final = 2
MAX_DECLINES: Final = 2
BUDGET_PERCENT: Final = 10
_PROGRESS_EVERY: Final = 4096

_ENGINE, _FAILURE, _REPORT, _TICK, _SAMPLE, _REMEMBER, _FAULT = range(7)


@dataclass(frozen=True, slots=True)
class Setting:
    """What is simulated, but for traffic and policy."""

    routers: int = 16
    endpoints: int = 16
    slow_endpoints: int = 2  # at half speed
    engine: EngineSpec = USUAL
    report_seconds: float = 0.0  # 0: only with replies
    fault: Fault | None = None
    fault_at_seconds: float = 0.0

    @property
    def speeds(self) -> list[float]:
        """Of each endpoint; the last are slow."""
        return [1.0] * (self.endpoints - self.slow_endpoints) + [0.5] * self.slow_endpoints

    def capacity(self, prompt_tokens: float, output_tokens: float) -> float:
        """Requests per second that all endpoints can do at most."""
        return sum(self.speeds) * self.engine.requests_per_second(prompt_tokens, output_tokens)


USUAL_SETTING: Final = Setting()


@dataclass(slots=True)
class Run:
    """What happened: every request, and the tokens waiting at each sampled endpoint each `SAMPLE_SECONDS`."""

    requests: list[Request]
    waiting: list[list[int]]
    endpoints: int
    faulty: int
    preempted: int


class World:
    """The event loop."""

    def __init__(
        self,
        setting: Setting,
        policy: Callable[[Scene], Policy],
        seed: int,
        engine: Callable[[int, EngineSpec, float], Engine] = Engine,
    ) -> None:
        self.setting = setting
        self.rng = random.Random(f"world {seed}")  # noqa: S311
        self.engines = [engine(index, setting.engine, speed) for index, speed in enumerate(setting.speeds)]
        self.faulty = 0
        self.plane = LoadPlane(self.engines, setting.fault, self.faulty, random.Random(f"plane {seed}"))  # noqa: S311
        self.policy = policy(
            Scene(setting.routers, self.engines, self.plane, random.Random(f"policy {seed}"))  # noqa: S311
        )
        self.budgets = [RetryBudget(BUDGET_PERCENT) for _ in range(setting.routers)]
        self.requests: list[Request] = []
        self.waiting: list[list[int]] = [[] for _ in range(min(setting.endpoints, SAMPLED_ENDPOINTS))]
        self._heap: list[tuple[float, int, int, Any]] = []
        self._order = 0
        self._failing = -1

    def run(self, arrivals: Iterable[Arrival], progress: Callable[[float], None] | None = None) -> Run:
        """Runs until the last request has ended. `progress` gets the time reached, now and then."""
        heap, engines = self._heap, self.engines
        routers = self.setting.routers
        draw = self.rng.random
        self._begin()
        source = iter(arrivals)
        arrival = next(source, None)
        events = open_requests = 0
        while arrival is not None or open_requests:
            events += 1
            if arrival is not None and (not heap or arrival.at_seconds <= heap[0][0]):
                request = Request(len(self.requests), arrival)
                request.router = int(draw() * routers)
                self.requests.append(request)
                budget = self.budgets[request.router]
                budget.in_flight += 1
                budget.begun_total += 1
                open_requests += 1 - self._place(request, arrival.at_seconds)
                arrival = next(source, None)
            else:
                now, _, kind, payload = heappop(heap)
                if kind == _ENGINE:
                    engine, version = payload
                    if version == engine.version:
                        open_requests -= self._engine(engine, now)
                elif kind == _FAILURE:
                    open_requests -= self._failed(payload, now)
                elif arrival is not None:  # nobody is to be chosen any more after the last
                    self._timer(kind, payload, now)
            if progress is not None and not events % _PROGRESS_EVERY:
                progress(heap[0][0] if heap else 0.0)
        return Run(self.requests, self.waiting, len(engines), self.faulty, sum(engine.preempted for engine in engines))

    def _begin(self) -> None:
        setting = self.setting
        if self.policy.hears and setting.report_seconds > 0.0:
            for index in range(setting.endpoints):
                self._at(self.rng.random() * setting.report_seconds, _REPORT, index)
        if self.policy.tick_seconds > 0.0:
            self._at(0.0, _TICK)
        self._at(0.0, _SAMPLE)
        if setting.fault is not None:
            self._at(setting.fault_at_seconds, _FAULT)
            if setting.fault is Fault.OLD:
                self._at(0.0, _REMEMBER)

    def _at(self, when: float, kind: int, payload: object = None) -> None:
        self._order += 1
        heappush(self._heap, (when, self._order, kind, payload))

    # --- a request

    def _place(self, request: Request, now: float) -> bool:
        """Makes one attempt; whether the request is over because there is nowhere to go."""
        policy = self.policy
        declines = 0
        while True:
            request.bound = 0
            index = policy.choose(request, now)
            if index < 0:
                return self._over(request, now, failed=True)
            if not request.bound or declines == MAX_DECLINES or self.plane.waiting_tokens(index) <= request.bound:
                break
            declines += 1
            request.declined += 1
            request.endpoint = index
            self._reply(request, now)
        request.endpoint = index
        request.sent_at = now
        policy.sent(request, now)
        if index == self._failing:
            self._at(now + FAIL_SECONDS, _FAILURE, request)
            return False
        engine = self.engines[index]
        if not engine.submit(request, now):
            policy.ended(request, now, ok=True)  # its own fault, not the endpoint's
            return self._over(request, now, failed=True)
        request.number = self.plane.places[index].enter()
        self._schedule(engine)
        if policy.hears:
            self._reply(request, now)
            policy.admitted(request, now)
        return False

    def _failed(self, request: Request, now: float) -> bool:
        """The attempt ended in an error: once more elsewhere, if the budget allows. Whether the request is over."""
        self.policy.ended(request, now, ok=False)
        if self.policy.hears:
            self._reply(request, now)
        request.tried = (*request.tried, request.endpoint)
        budget = self.budgets[request.router]
        if len(request.tried) < MAX_ATTEMPTS and budget.take():
            request.retried = True
            return self._place(request, now)
        return self._over(request, now, failed=True)

    def _over(self, request: Request, now: float, *, failed: bool) -> bool:
        request.failed = failed
        request.ended_at = now
        self.budgets[request.router].in_flight -= 1
        self._answered(request)
        return True

    def _answered(self, request: Request) -> None:
        """A retry is over with the first byte of its reply."""
        if request.retried:
            request.retried = False
            self.budgets[request.router].give_back()

    def _reply(self, request: Request, now: float) -> None:
        """The load that rides on a reply."""
        load = self.plane.told(request.endpoint, now)
        if load is not None:
            self.policy.report(request.router, request.endpoint, load, now)

    # --- events

    def _engine(self, engine: Engine, now: float) -> int:
        """What was due at an engine; how many requests are over."""
        first, ended = engine.run(now)
        self._schedule(engine)
        if first is not None:
            first.first_at = now
            self.plane.places[engine.index].first_token(first.number, first.cost, first.sent_at, now)
            self._answered(first)
            self.policy.first_token(first, now)
            if self.policy.hears:
                self._reply(first, now)
        if ended is None:
            return 0
        self.plane.places[engine.index].end(now - ended.first_at, now)
        self.policy.ended(ended, now, ok=True)
        self._over(ended, now, failed=False)
        return 1

    def _schedule(self, engine: Engine) -> None:
        if engine.next_at != float("inf"):
            self._order += 1
            heappush(self._heap, (engine.next_at, self._order, _ENGINE, (engine, engine.version)))

    def _timer(self, kind: int, payload: Any, now: float) -> None:
        setting = self.setting
        if kind == _REPORT:
            for router in range(setting.routers):
                load = self.plane.told(payload, now)
                if load is not None:
                    self.policy.report(router, payload, load, now)
            self._at(now + setting.report_seconds, _REPORT, payload)
        elif kind == _TICK:
            self.policy.tick(now)
            self._at(now + self.policy.tick_seconds, _TICK)
        elif kind == _SAMPLE:
            for index, samples in enumerate(self.waiting):
                samples.append(self.engines[index].waiting_tokens)
            self._at(now + SAMPLE_SECONDS, _SAMPLE)
        elif kind == _REMEMBER:
            self.plane.remember(now)
            self._at(now + HISTORY_SECONDS, _REMEMBER)
        else:
            self.plane.live = True
            if setting.fault is Fault.SLOW:
                engine = self.engines[self.faulty]
                engine.set_speed(engine.speed / SLOW_FACTOR, now)
                self._schedule(engine)
            elif setting.fault is Fault.FAILING:
                self._failing = self.faulty
