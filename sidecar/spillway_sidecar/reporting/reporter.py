"""Makes the load of this endpoint, for responses and for reports.

*On responses.* The inbound listener asks for `load_header()` on each, so it is cheap: its counters are compared with those of
the last header, and only a difference makes another one. What changes slowly (engine, GPU, tokens per second) is gathered by
`tick`, ten times a second, and not per request. Nothing here is a task or a timer per request.

*To the operator.* `tick` sends a report when a count or a state changed since the last one, at most each 100 ms, and each second in any case;
`at_once` sends one besides, as often at most. What is counted since the last report (traffic, refused) is drained from its owner while the
report is built, and the report is built only by a sender that can take it: `send` is given the builder, calls it if the stream is
up, and returns False, without calling, if not. So nothing is drained that is not sent, and nothing is counted twice; a
report that is lost on the way is lost (at most once). With the stream down, counts add up where they are, for
`max_unsent_seconds`; then they are drained and dropped, because an hour's traffic in one report would read as a flood.

A gateway has no inbound listener: its reports carry no load, and go each second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from spillway_sidecar.engines import GpuLoad
from spillway_sidecar.reporting.engine import EngineSample
from spillway_sidecar.reporting.host import HostLoad
from spillway_wire.loads import BackendTraffic, ClusterProblem, Demand, Diversion, Load, RouteErrors
from spillway_wire.messages import Report
from spillway_wire.orca import encode_load

_MAX_COUNT: Final = 1_000_000  # the wire's caps: a load beyond one would be refused whole
_MAX_TOKENS: Final = 10_000_000_000
_MAX_RATE: Final = 1e9
_MAX_TRAFFIC: Final = 4096
_MAX_OTHERS: Final = 1024
_SLACK_SECONDS: Final = 0.001  # a tick that comes a hair early must not wait for the next


class InboundCounters(Protocol):
    """What the inbound listener counts. Read, never kept."""

    @property
    def in_flight(self) -> int:
        """Requests at the engine."""
        raise NotImplementedError

    @property
    def queued(self) -> int:
        """Requests waiting before it."""
        raise NotImplementedError

    @property
    def in_flight_tokens(self) -> int:
        """Estimated prompt tokens of both."""
        raise NotImplementedError

    @property
    def waiting_tokens(self) -> int:
        """Estimated tokens of those without a first token."""
        raise NotImplementedError

    @property
    def place_tokens(self) -> int | None:
        """What one more request would wait for a place in the engine."""
        raise NotImplementedError

    @property
    def max_concurrency(self) -> int:
        """Limit on `in_flight`."""
        raise NotImplementedError

    @property
    def draining(self) -> bool:
        """Whether nothing more is taken."""
        raise NotImplementedError

    @property
    def output_tokens_total(self) -> int:
        """Tokens that the engine has produced since the start."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class RouterFigures:
    """What the route listener tells. `traffic`, `refused` and what `demand` tells of arrivals drain: each call gives what came since the one before."""

    traffic: Callable[[], tuple[BackendTraffic, ...]] = tuple
    refused: Callable[[], tuple[RouteErrors, ...]] = tuple
    demand: Callable[[], tuple[Demand, ...]] = tuple
    problems: Callable[[], tuple[ClusterProblem, ...]] = tuple
    diversions: Callable[[], tuple[Diversion, ...]] = tuple


@dataclass(frozen=True, slots=True)
class ReportSettings:
    """When reports go out."""

    tick_seconds: float = 0.1  # also the least time between two reports
    interval_seconds: float = 1.0
    max_unsent_seconds: float = 30.0


@dataclass(frozen=True, slots=True)
class _Slow:
    """The part of a load that `tick` gathers."""

    engine: EngineSample
    gpu: GpuLoad
    host: HostLoad
    tokens_per_second: float | None = None


_Counts = tuple[int, int, int, int, int | None, int, bool]
Send = Callable[[Callable[[], Report]], bool]


class Reporter:
    """Load and reports of one process. `inbound` None: a gateway. `engine`, `gpu` and `host` give samples as known at a time."""

    def __init__(
        self,
        boot_id: str,
        *,
        clock: Callable[[], float],
        send: Send,
        router: RouterFigures,
        inbound: Callable[[], InboundCounters] | None = None,
        engine: Callable[[float], EngineSample] = lambda _: EngineSample(),
        gpu: Callable[[float], GpuLoad] = lambda _: GpuLoad(),
        host: Callable[[float], HostLoad] = lambda _: HostLoad(),
        settings: ReportSettings | None = None,
    ) -> None:
        self._boot_id = boot_id
        self._clock = clock
        self._send = send
        self._router = router
        self._inbound = inbound
        self._engine = engine
        self._gpu = gpu
        self._host = host
        self._settings = settings or ReportSettings()
        self._slow = _Slow(EngineSample(), GpuLoad(), HostLoad())
        self._counts: _Counts | None = None
        self._load: Load | None = None
        self._header: bytes | None = None
        self._sequence = 0
        self._sent_at_seconds: float | None = None
        self._sent_load: Load | None = None
        self._urgent = False  # the next report is not to wait
        self._hurried_at_seconds: float | None = None
        self._rated_at_seconds: float | None = None
        self._rated_tokens = 0
        self._reports = 0
        self._unsent = 0
        self._dropped = 0

    def current_load(self) -> Load | None:
        """This endpoint's load at this moment; None for a gateway."""
        if self._inbound is None:
            return None
        inbound = self._inbound()
        counts = (
            inbound.in_flight, inbound.queued, inbound.in_flight_tokens, inbound.waiting_tokens, inbound.place_tokens, inbound.max_concurrency, inbound.draining,
        )  # fmt: skip
        if self._load is None or counts != self._counts:
            self._counts = counts
            self._load = _load(counts, self._slow)
            self._header = None
        return self._load

    def load_header(self) -> bytes:
        """The value of `endpoint-load-metrics` for a response at this moment; empty for a gateway."""
        load = self.current_load()
        if load is None:
            return b""
        if self._header is None:
            self._header = encode_load(load)
        return self._header

    def at_once(self) -> None:
        """Sends a report now, or with the next tick where one was hurried just before or the stream is down."""
        now, last = self._clock(), self._hurried_at_seconds
        self._urgent = True
        if last is None or now - last >= self._settings.tick_seconds:
            self._hurried_at_seconds = now
            self._send(self.take)

    def take(self) -> Report:
        """The next report. Drains what is counted since the last: only for who sends it."""
        self._sequence += 1
        self._reports += 1
        self._sent_at_seconds = self._clock()
        self._sent_load = self.current_load()
        self._urgent = False
        return Report(
            boot_id=self._boot_id,
            sequence=self._sequence,
            load=self._sent_load,
            traffic=self._router.traffic()[:_MAX_TRAFFIC],
            refused=self._router.refused()[:_MAX_OTHERS],
            demand=self._router.demand()[:_MAX_OTHERS],
            problems=self._router.problems()[:_MAX_OTHERS],
            diversions=self._router.diversions()[:_MAX_OTHERS],
        )

    def tick(self) -> None:
        """Gathers what changes slowly, and sends a report if one is due. For `run`, and for tests."""
        now = self._clock()
        self._gather(now)
        if self._sent_at_seconds is None:
            self._sent_at_seconds = now - self._settings.interval_seconds
        if not self._due(now):
            return
        if self._send(self.take):
            return
        self._unsent += 1
        if now - self._sent_at_seconds >= self._settings.max_unsent_seconds:
            self._dropped += sum(traffic.requests for traffic in self._router.traffic())
            self._dropped += sum(refused.requests for refused in self._router.refused())
            self._router.demand()
            self._sent_at_seconds = now

    async def run(self) -> None:
        """Ticks until cancelled."""
        while True:
            self.tick()
            await asyncio.sleep(self._settings.tick_seconds)

    def info(self) -> dict[str, object]:
        """Sequence, counts of reports, and the load as it is sent."""
        load = self.current_load()
        return {
            "sequence": self._sequence,
            "reports": self._reports,
            "unsent": self._unsent,
            "dropped_requests": self._dropped,
            "load": {name: getattr(load, name) for name in load.__struct_fields__} if load is not None else None,
        }

    def _due(self, now: float) -> bool:
        since = now - (self._sent_at_seconds or 0.0) + _SLACK_SECONDS
        if since >= self._settings.interval_seconds:
            return True
        return since >= self._settings.tick_seconds and (self._urgent or _told(self.current_load()) != _told(self._sent_load))

    def _gather(self, now: float) -> None:
        if self._inbound is None:
            return
        slow = _Slow(self._engine(now), self._gpu(now), self._host(now), self._rate(self._inbound().output_tokens_total, now))
        if slow != self._slow:
            self._slow = slow
            self._load = None

    def _rate(self, tokens: int, now: float) -> float | None:
        """Output tokens a second over the last interval; None until one has passed."""
        if self._rated_at_seconds is None:
            self._rated_at_seconds, self._rated_tokens = now, tokens
            return None
        seconds = now - self._rated_at_seconds
        if seconds < self._settings.interval_seconds:
            return self._slow.tokens_per_second
        rate = max(0, tokens - self._rated_tokens) / seconds
        self._rated_at_seconds, self._rated_tokens = now, tokens
        return min(rate, _MAX_RATE)


def _load(counts: _Counts, slow: _Slow) -> Load:
    in_flight, queued, tokens, waiting, place, max_concurrency, draining = counts
    return Load(
        in_flight=_within(in_flight, _MAX_COUNT),
        queued=_within(queued, _MAX_COUNT),
        in_flight_tokens=_within(tokens, _MAX_TOKENS),
        max_concurrency=_within(max_concurrency, _MAX_COUNT),
        tokens_per_second=slow.tokens_per_second,
        engine_up=slow.engine.up,
        draining=draining,
        engine_waiting=slow.engine.load.waiting,
        engine_running=slow.engine.load.running,
        kv_cache_ratio=slow.engine.load.kv_cache_ratio,
        gpu_ratio=slow.gpu.utilization_ratio,
        gpu_memory_ratio=slow.gpu.memory_ratio,
        cpu_ratio=slow.host.cpu_ratio,
        memory_ratio=slow.host.memory_ratio,
        adapters=slow.engine.load.adapters,
        waiting_tokens=_within(waiting, _MAX_TOKENS),
        place_tokens=_within(place, _MAX_TOKENS) if place else None,
    )


def _within(count: int, cap: int) -> int:
    return max(0, min(count, cap))


def _told(load: Load | None) -> tuple[int, int, bool, bool] | None:
    """What is worth a report between two regular ones."""
    return (load.in_flight, load.queued, load.engine_up, load.draining) if load is not None else None
