"""The load on responses and in reports, and when what is counted is drained."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from spillway_sidecar.engines import EngineLoad, GpuLoad
from spillway_sidecar.reporting import EngineSample, HostLoad, Reporter, ReportSettings, RouterFigures
from spillway_sidecar.reporting import reporter as reporter_module
from spillway_wire.loads import BackendTraffic, ClusterProblem, Demand, Load, RouteErrors
from spillway_wire.messages import Report, decode_from_proxy, encode
from spillway_wire.orca import decode_load


@dataclass
class Counters:
    in_flight: int = 0
    queued: int = 0
    in_flight_tokens: int = 0
    max_concurrency: int = 8
    draining: bool = False
    output_tokens_total: int = 0
    waiting_tokens: int = 0
    place_tokens: int | None = None


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Router:
    """Counts requests; `traffic` and `refused` drain."""

    requests: int = 0
    lost: int = 0
    drains: int = 0
    found: list[ClusterProblem] = field(default_factory=list)

    def traffic(self) -> tuple[BackendTraffic, ...]:
        self.drains += 1
        requests, self.requests = self.requests, 0
        return (BackendTraffic("default/chat", "main", "default/fast", requests=requests),) if requests else ()

    def refused(self) -> tuple[RouteErrors, ...]:
        lost, self.lost = self.lost, 0
        return (RouteErrors("default/chat", lost),) if lost else ()

    def figures(self) -> RouterFigures:
        return RouterFigures(self.traffic, self.refused, lambda: (Demand("default/fast", 1, 10),), lambda: tuple(self.found))


class Setting:
    def __init__(self, *, gateway: bool = False) -> None:
        self.clock = Clock()
        self.counters = Counters()
        self.router = Router()
        self.engine = EngineSample(True, EngineLoad(2, 4, 0.5, ("a",)))
        self.gpu = GpuLoad(0.9, 0.7)
        self.connected = True
        self.sent: list[Report] = []
        self.asked_at: list[float] = []
        self.reporter = Reporter(
            "boot-1",
            clock=self.clock,
            send=self.send,
            router=self.router.figures(),
            inbound=None if gateway else lambda: self.counters,
            engine=self.sample_engine,
            gpu=lambda _: self.gpu,
            host=lambda _: HostLoad(0.25, 0.75),
        )

    def sample_engine(self, now: float) -> EngineSample:
        self.asked_at.append(now)
        return self.engine

    def send(self, build: Callable[[], Report]) -> bool:
        if self.connected:
            self.sent.append(build())
        return self.connected

    def tick(self, seconds: float = 0.0) -> int:
        """Lets time pass and ticks; the number of reports that went out."""
        self.clock.now += seconds
        before = len(self.sent)
        self.reporter.tick()
        return len(self.sent) - before


class TestLoad:
    def test_it_has_what_the_listener_the_engine_and_the_gpu_say(self) -> None:
        setting = Setting()
        setting.tick()
        setting.counters = Counters(3, 1, 500, 8, draining=True, waiting_tokens=70, place_tokens=900)
        assert setting.reporter.current_load() == Load(
            3, 1, 500, 8, None, True, True, 2, 4, 0.5, 0.9, 0.7, cpu_ratio=0.25, memory_ratio=0.75, adapters=("a",), waiting_tokens=70, place_tokens=900,
        )  # fmt: skip

    def test_before_the_first_tick_engine_and_gpu_are_unknown(self) -> None:
        assert Setting().reporter.current_load() == Load(max_concurrency=8, waiting_tokens=0)

    def test_counts_show_at_once_and_slow_figures_at_the_next_tick(self) -> None:
        setting = Setting()
        setting.tick()
        setting.counters.in_flight = 5
        setting.engine = EngineSample(False, EngineLoad())
        load = setting.reporter.current_load()
        assert load is not None
        assert (load.in_flight, load.engine_up, load.engine_waiting) == (5, True, 2)
        setting.tick(0.1)
        load = setting.reporter.current_load()
        assert load is not None
        assert (load.engine_up, load.engine_waiting) == (False, None)
        assert setting.asked_at == [100.0, 100.1], "the engine is sampled as of the tick's time"

    def test_the_header_decodes_to_the_load_and_is_made_anew_only_for_a_difference(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = []
        encode_load = reporter_module.encode_load
        monkeypatch.setattr(reporter_module, "encode_load", lambda load: made.append(load) or encode_load(load))
        setting = Setting()
        setting.tick()
        header = setting.reporter.load_header()
        assert setting.reporter.load_header() is header
        setting.tick(0.1)
        assert setting.reporter.load_header() is header, "a tick that finds nothing different changes nothing"
        assert len(made) == 1
        setting.counters.queued = 2
        decoded = decode_load(setting.reporter.load_header())
        assert decoded is not None
        assert (decoded.queued, decoded.engine_waiting, decoded.gpu_ratio) == (2, 2, 0.9)
        setting.gpu = GpuLoad(0.2)
        setting.tick(0.1)
        assert decode_load(setting.reporter.load_header()) == replace_load(decoded, gpu_ratio=0.2)
        assert len(made) == 3

    def test_a_count_out_of_the_wires_range_does_not_spoil_the_report(self) -> None:
        setting = Setting()
        setting.counters = Counters(-1, 2_000_000, 10**12, 10**9)
        setting.tick()
        (report,) = setting.sent
        assert report.load is not None
        assert (report.load.in_flight, report.load.queued, report.load.in_flight_tokens) == (0, 1_000_000, 10**10)
        assert decode_from_proxy(encode(report)) == report

    def test_tokens_per_second_are_those_of_the_last_whole_interval(self) -> None:
        setting = Setting()
        rates = []
        for seconds, tokens in [(0, 1000), (0.5, 1100), (0.5, 1200), (0.5, 9000), (0.5, 9200), (2.0, 9200), (1.0, 10)]:
            setting.counters.output_tokens_total = tokens
            setting.tick(seconds)
            load = setting.reporter.current_load()
            assert load is not None
            rates.append(load.tokens_per_second)
        assert rates == [None, None, 200.0, 200.0, 8000.0, 0.0, 0.0]

    def test_a_gateway_has_none(self) -> None:
        setting = Setting(gateway=True)
        setting.tick()
        assert setting.reporter.current_load() is None
        assert setting.reporter.load_header() == b""
        assert setting.sent[0].load is None
        assert setting.asked_at == []


def replace_load(load: Load, **changes: object) -> Load:
    return Load(**{**{name: getattr(load, name) for name in Load.__struct_fields__}, **changes})  # type: ignore[arg-type]


class TestWhen:
    def test_the_first_goes_at_once_and_then_one_a_second(self) -> None:
        setting = Setting()
        assert [setting.tick(seconds) for seconds in (0, 0.1, 0.8, 0.1, 0.5, 0.5)] == [1, 0, 0, 1, 0, 1]
        assert [report.sequence for report in setting.sent] == [1, 2, 3]
        assert {report.boot_id for report in setting.sent} == {"boot-1"}

    @pytest.mark.parametrize("change", [{"in_flight": 1}, {"queued": 1}, {"draining": True}])
    def test_a_change_goes_at_once_but_not_within_a_tick_of_the_last(self, change: dict[str, object]) -> None:
        setting = Setting()
        setting.tick()
        setting.counters = replace(setting.counters, **change)  # type: ignore[arg-type]
        assert [setting.tick(0.05), setting.tick(0.06), setting.tick(0.2)] == [0, 1, 0]

    def test_an_engine_that_goes_down_is_a_change(self) -> None:
        setting = Setting()
        setting.tick()
        setting.engine = EngineSample(False)
        assert setting.tick(0.1) == 1
        load = setting.sent[-1].load
        assert load is not None
        assert not load.engine_up

    def test_tokens_and_gauges_alone_wait_for_the_second(self) -> None:
        setting = Setting()
        setting.tick()
        setting.counters.in_flight_tokens = 7
        setting.gpu = GpuLoad(0.1)
        assert [setting.tick(0.5), setting.tick(0.5)] == [0, 1]

    def test_there_and_back_between_two_reports_is_no_change(self) -> None:
        setting = Setting()
        setting.tick()
        setting.counters.in_flight = 1
        setting.tick(0.05)
        setting.counters.in_flight = 0
        assert setting.tick(0.1) == 0

    async def test_run_ticks_until_cancelled(self) -> None:
        setting = Setting()
        setting.reporter._settings = ReportSettings(tick_seconds=0.001)
        task = asyncio.create_task(setting.reporter.run())
        async with asyncio.timeout(10):
            while len(setting.asked_at) < 3:  # noqa: ASYNC110 - the reporter has no event for its ticks
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestAtOnce:
    def test_a_hurried_report_waits_for_no_tick_and_comes_as_often_as_a_tick_at_most(self) -> None:
        setting = Setting(gateway=True)
        setting.tick()
        setting.clock.now += 0.01
        setting.reporter.at_once()
        assert len(setting.sent) == 2
        setting.clock.now += 0.01
        setting.reporter.at_once()
        assert len(setting.sent) == 2
        assert setting.tick(0.09) == 1, "the tick makes up for it, though a regular report is not due"
        assert setting.tick(0.1) == 0

    def test_what_cannot_go_now_goes_with_the_first_tick_that_can(self) -> None:
        setting = Setting(gateway=True)
        setting.tick()
        setting.connected = False
        setting.clock.now += 0.2
        setting.reporter.at_once()
        assert setting.tick(0.1) == 0
        setting.connected = True
        assert setting.tick(0.1) == 1


class TestDraining:
    def test_a_report_carries_what_the_router_tells(self) -> None:
        setting = Setting()
        setting.router = router = setting.router
        router.requests, router.lost = 3, 2
        router.found = [ClusterProblem("default/ext", "SecretMissing", "not found")]
        setting.tick()
        (report,) = setting.sent
        assert report.traffic == (BackendTraffic("default/chat", "main", "default/fast", requests=3),)
        assert report.refused == (RouteErrors("default/chat", 2),)
        assert report.demand == (Demand("default/fast", 1, 10),)
        assert report.problems == tuple(router.found)
        setting.tick(1)
        assert (setting.sent[1].traffic, setting.sent[1].refused, setting.sent[1].problems) == ((), (), report.problems)

    def test_while_the_stream_is_down_nothing_is_drained_and_then_all_goes_once(self) -> None:
        setting = Setting()
        setting.tick()
        setting.connected = False
        drains = setting.router.drains
        for _ in range(20):
            setting.router.requests += 1
            setting.tick(1)
        assert setting.router.drains == drains
        setting.connected = True
        assert setting.tick(0.1) == 1, "what waited goes at the first chance"
        assert sum(traffic.requests for report in setting.sent for traffic in report.traffic) == 20
        assert setting.sent[-1].sequence == 2, "a report that was never built has no number"

    def test_what_waited_too_long_is_dropped_and_counted(self) -> None:
        setting = Setting()
        setting.tick()
        setting.connected = False
        setting.router.requests, setting.router.lost = 7, 2
        setting.tick(29)
        assert setting.reporter.info()["dropped_requests"] == 0
        setting.tick(1)
        assert setting.reporter.info()["dropped_requests"] == 9
        setting.router.requests = 4
        setting.connected = True
        setting.tick(1)
        assert [traffic.requests for traffic in setting.sent[-1].traffic] == [4]

    def test_the_operator_may_be_away_from_the_start(self) -> None:
        setting = Setting()
        setting.connected = False
        assert [setting.tick(seconds) for seconds in (0, 1, 60, 60)] == [0, 0, 0, 0]
        setting.connected = True
        assert setting.tick(1) == 1
        assert setting.sent[0].sequence == 1

    def test_taking_a_report_by_hand_counts_as_one(self) -> None:
        setting = Setting()
        setting.tick()
        setting.router.requests = 5
        assert setting.reporter.take().traffic[0].requests == 5
        assert setting.tick(0.5) == 0

    def test_info(self) -> None:
        setting = Setting()
        setting.tick()
        setting.connected = False
        setting.tick(1)
        info = setting.reporter.info()
        assert (info["sequence"], info["reports"], info["unsent"]) == (1, 1, 1)
        assert info["load"]["max_concurrency"] == 8  # type: ignore[index]
        assert Setting(gateway=True).reporter.info()["load"] is None
