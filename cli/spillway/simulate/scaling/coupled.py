"""Scaling through the routing simulator: requests, routers with the production choice, engines that start and leave.

The same event loop as for a fixed number of engines, with one more event: the tick of the scaler. An engine that was asked for takes
requests when it has started; one that is taken away takes none from then on and finishes what it has. Waits are times to the first
token. What comes is a Poisson stream whose rate follows the demand of each tick.

What a replica does is learned as the operator learns it, from what was served while engines were saturated; at first it is known as the
status would have it, or not at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any, Final

from spillway.simulate.policies.ours import Ours
from spillway.simulate.scaling.watch import MOST, TICK_SECONDS, Watch
from spillway.simulate.traffic import PLAIN, Arrival, Request
from spillway.simulate.world import Setting, World
from spillway_operator.scaling.needs import Observed
from spillway_operator.scaling.throughput import Throughput

TRAFFIC_SECONDS: Final = 10.0  # over which the operator reckons what is served
_SCALE: Final = 100  # an event beside those of the routing simulator
_SETTING: Final = Setting(routers=4, endpoints=MOST, slow_endpoints=0)
_REQUESTS_PER_SECOND: Final = _SETTING.engine.requests_per_second(PLAIN.prompt_tokens, PLAIN.output.mean)  # of a replica
_TOKENS: Final = PLAIN.prompt_tokens + PLAIN.output.mean  # of a request


class ScaledWorld(World):
    """The routing simulator with replicas that come and go."""

    def __init__(self, watch: Watch, cold_start_seconds: float, seed: int) -> None:
        super().__init__(_SETTING, Ours, seed)
        self._watch = watch
        self._cold_start_seconds = cold_start_seconds
        self._ready = list(range(watch.start))
        self._starting: list[tuple[float, int]] = []  # when, and which engine
        self._spare = list(range(watch.start, MOST))  # a heap
        self._tokens = 0  # that came since the last tick
        self._served: deque[int] = deque([0], maxlen=round(TRAFFIC_SECONDS / TICK_SECONDS))  # of requests that ended, by tick
        self._throughput = Throughput(_REQUESTS_PER_SECOND * _TOKENS if watch.scene.learned else None)
        self._demand = watch.drawn(0.0)
        self._swap()
        self._at(TICK_SECONDS, _SCALE)

    def arrivals(self) -> Iterator[Arrival]:
        """What comes, at the rate of the moment."""
        rng, now = self._watch.rng, 0.0
        while True:
            now += rng.expovariate(1.0) / max(1e-6, self._demand * _REQUESTS_PER_SECOND)
            if now >= self._watch.scene.seconds:
                return
            arrival = Arrival(now, PLAIN.input.draw(rng), PLAIN.output.draw(rng))
            self._tokens += arrival.input_tokens + arrival.output_tokens
            yield arrival

    def _over(self, request: Request, now: float, *, failed: bool) -> bool:
        if not failed:
            self._served[-1] += request.input_tokens + request.output_tokens
        return super()._over(request, now, failed=failed)

    def _timer(self, kind: int, payload: Any, now: float) -> None:
        if kind != _SCALE:
            super()._timer(kind, payload, now)
            return
        self._begin_started(now)
        ready = len(self._ready)
        asked_for = ready + len(self._starting)
        self._scale(now, self._watch.tick(now, self._demand, self._observed(now), self._concurrency(), asked_for) - asked_for)
        self._demand, self._tokens = self._watch.drawn(now), 0
        self._served.append(0)
        self._at(now + TICK_SECONDS, _SCALE)

    def _begin_started(self, now: float) -> None:
        started = [index for at, index in self._starting if at <= now]
        if started:
            self._starting = [entry for entry in self._starting if entry[0] > now]
            self._ready.extend(started)
            self._swap()

    def _scale(self, now: float, change: int) -> None:
        for _ in range(change):
            self._starting.append((now + self._cold_start_seconds, heappop(self._spare)))
        for _ in range(-change):
            if self._starting:
                heappush(self._spare, self._starting.pop()[1])
            else:
                idle = min(self._ready, key=lambda index: self.engines[index].in_flight_tokens)
                self._ready.remove(idle)
                heappush(self._spare, idle)
        if change < 0:
            self._swap()

    def _swap(self) -> None:
        assert isinstance(self.policy, Ours)  # noqa: S101 - made above
        for view in self.policy.views:
            view.members(self._ready)

    def _observed(self, now: float) -> Observed:
        engines = [self.engines[index] for index in self._ready]
        waiting = sum(len(engine.waiting) + (engine.current is not None) for engine in engines)
        saturated = sum(len(engine.waiting) >= max(4, 0.25 * engine.running) for engine in engines)
        served = sum(self._served) / TICK_SECONDS / len(self._served)
        self._throughput.observe(now, served, len(engines), saturated / max(1, len(engines)))
        return Observed(
            ready=len(engines),
            tokens_per_second_asked=self._tokens / TICK_SECONDS,
            tokens_per_second_replica=self._throughput.learned,
            tokens_per_second_shown=self._throughput.shown,
            tokens_waiting=waiting * _TOKENS,
            waiting=waiting,
            gpu_ratio=sum(engine.running > 0 for engine in engines) / max(1, len(engines)),
            kv_cache_ratio=sum(engine.kv_ratio for engine in engines) / max(1, len(engines)),
        )

    def _concurrency(self) -> float:
        batch = _SETTING.engine.max_running / self._watch.headroom
        return sum(self.engines[index].in_flight for index in self._ready) / batch


def run_coupled(watch: Watch, cold_start_seconds: float, seed: int) -> tuple[list[tuple[float, float]], list[float], float]:
    """Runs the scene; waits with equal weights, the mean wait of what came in each tick, and the share that was refused."""
    world = ScaledWorld(watch, cold_start_seconds, seed)
    requests = world.run(world.arrivals()).requests
    of_tick: list[list[float]] = [[] for _ in range(int(watch.scene.seconds / TICK_SECONDS) + 1)]
    for request in requests:
        if not request.failed:
            of_tick[int(request.arrived_at / TICK_SECONDS)].append(request.first_at - request.arrived_at)
    waits = [(wait, 1.0) for tick in of_tick for wait in tick]
    refused = sum(request.failed for request in requests) / max(1, len(requests))
    return waits, [sum(tick) / len(tick) if tick else 0.0 for tick in of_tick], refused
