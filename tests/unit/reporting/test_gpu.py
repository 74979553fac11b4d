"""NVML and DCGM as sources of GPU figures, with a fake driver that is absent, fails or hangs."""

import asyncio
import threading
from collections.abc import Callable
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from tests.unit.engines import corpora

from spillway_sidecar.engines import GpuLoad
from spillway_sidecar.reporting.fetch import Fetched, FetchError
from spillway_sidecar.reporting.gpu import DcgmReader, GpuSampler, GpuSettings, NvmlReader


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeNvml:
    """As much of the module `pynvml` as is used. Devices are (utilisation percent, used, total); None is not supported."""

    class NVMLError(Exception):
        """The binding's base error."""

    class NVMLError_NotSupported(NVMLError):  # noqa: N801 - the binding's own name
        """What a device raises for a figure it does not have."""

    def __init__(self, *devices: tuple[int | None, int | None, int]) -> None:
        self.devices = list(devices)
        self.inits = self.shutdowns = self.loads = 0
        self.failure: Exception | None = None
        self.gate: threading.Event | None = None

    def load(self) -> Any:
        self.loads += 1
        return self

    def nvmlInit(self) -> None:  # noqa: N802
        self.inits += 1
        if self.failure:
            raise self.failure

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.shutdowns += 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        if self.gate is not None:
            self.gate.wait(10)
        if self.failure:
            raise self.failure
        return len(self.devices)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        return index

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> SimpleNamespace:  # noqa: N802
        percent = self.devices[handle][0]
        if percent is None:
            raise self.NVMLError_NotSupported
        return SimpleNamespace(gpu=percent, memory=1)

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> SimpleNamespace:  # noqa: N802
        _, used, total = self.devices[handle]
        if used is None:
            raise self.NVMLError_NotSupported
        return SimpleNamespace(used=used, total=total, free=total - used)


def reader(nvml: FakeNvml, clock: Clock | None = None, **settings: float) -> NvmlReader:
    return NvmlReader(clock=clock or Clock(), settings=GpuSettings(**settings), load=nvml.load)


class TestNvml:
    @pytest.mark.parametrize(
        ("devices", "load"),
        [
            ([(100, 60, 80), (50, 20, 80)], GpuLoad(0.75, 0.5)),
            ([(0, 0, 80)], GpuLoad(0.0, 0.0)),
            ([(None, 40, 80)], GpuLoad(None, 0.5)),
            ([(None, 40, 80), (30, 40, 80)], GpuLoad(0.3, 0.5)),
            ([(30, None, 0)], GpuLoad(0.3, None)),
            ([(30, 0, 0)], GpuLoad(0.3, None)),
            ([(130, 90, 80)], GpuLoad(1.0, 1.0)),
            ([], GpuLoad(None, None)),
        ],
    )
    async def test_mean_over_the_devices_that_say_something(self, devices: list[Any], load: GpuLoad) -> None:
        assert await reader(FakeNvml(*devices)).read() == load

    async def test_it_is_initialised_once(self) -> None:
        nvml = FakeNvml((50, 1, 2))
        nvml_reader = reader(nvml)
        for _ in range(3):
            await nvml_reader.read()
        assert (nvml.loads, nvml.inits) == (1, 1)
        assert nvml_reader.info()["devices"] == 1

    async def test_an_absent_module_is_looked_for_once(self) -> None:
        calls = []

        def absent() -> Any:
            calls.append(1)
            raise ModuleNotFoundError("No module named 'pynvml'")

        nvml_reader = NvmlReader(clock=Clock(), load=absent)
        assert [await nvml_reader.read() for _ in range(3)] == [None, None, None]
        assert len(calls) == 1
        assert nvml_reader.info()["absent"] is True
        assert nvml_reader.info()["error"] == ""

    async def test_a_driver_that_fails_is_left_alone_ever_longer(self) -> None:
        nvml, clock = FakeNvml((50, 1, 2)), Clock()
        nvml_reader = reader(nvml, clock, backoff_seconds=5, max_backoff_seconds=15)
        nvml.failure = FakeNvml.NVMLError("driver not loaded")
        for pause in (5, 10, 15, 15):
            inits = nvml.inits
            assert await nvml_reader.read() is None
            clock.now += pause - 0.01
            assert await nvml_reader.read() is None
            assert nvml.inits == inits + 1, "asked once, then left alone"
            clock.now += 0.01
        assert nvml_reader.info()["error"] == "NVMLError: driver not loaded"
        nvml.failure = None
        assert await nvml_reader.read() == GpuLoad(0.5, 0.5)
        assert nvml_reader.info()["failures"] == 0

    async def test_a_driver_that_fails_later_is_started_anew(self) -> None:
        nvml, clock = FakeNvml((50, 1, 2)), Clock()
        nvml_reader = reader(nvml, clock)
        await nvml_reader.read()
        nvml.failure = FakeNvml.NVMLError("GPU is lost")
        await nvml_reader.read()
        assert nvml.shutdowns == 1
        nvml.failure = None
        clock.now += 5
        assert await nvml_reader.read() == GpuLoad(0.5, 0.5)
        assert nvml.inits == 2

    async def test_a_call_that_hangs_holds_nobody_up_and_no_second_one_is_started(self) -> None:
        nvml, clock = FakeNvml((50, 1, 2)), Clock()
        nvml.gate = threading.Event()
        nvml_reader = reader(nvml, clock, deadline_seconds=0.02)
        before = threading.active_count()
        assert await nvml_reader.read() is None
        clock.now += 1000
        assert await nvml_reader.read() is None
        assert threading.active_count() == before + 1
        assert nvml_reader.info()["hanging"] is True
        call = nvml_reader._call
        nvml.gate.set()
        assert call is not None
        assert await asyncio.wait_for(call, 10) == GpuLoad(0.5, 0.5)
        assert await nvml_reader.read() == GpuLoad(0.5, 0.5)
        assert nvml_reader.info()["hanging"] is False

    async def test_a_late_failure_is_nobodys_surprise(self) -> None:
        nvml = FakeNvml((50, 1, 2))
        nvml.gate = threading.Event()
        nvml_reader = reader(nvml, deadline_seconds=0.02)
        assert await nvml_reader.read() is None
        nvml.failure = FakeNvml.NVMLError("late")
        nvml.gate.set()
        assert nvml_reader._call is not None
        await asyncio.wait([nvml_reader._call], timeout=10)
        assert nvml_reader._call.done()

    async def test_the_thread_does_not_keep_the_process(self) -> None:
        nvml = FakeNvml((50, 1, 2))
        nvml.gate = threading.Event()
        await reader(nvml, deadline_seconds=0.02).read()
        assert all(thread.daemon for thread in threading.enumerate() if thread.name == "nvml")
        nvml.gate.set()


class TestDcgm:
    def reader(self, page: Fetched | FetchError, clock: Clock, asked: list[str]) -> DcgmReader:
        async def fetch(url: str, *, deadline_seconds: float, max_bytes: int) -> Fetched:
            asked.append(url)
            if isinstance(page, FetchError):
                raise page
            return page

        return DcgmReader("http://node:9400/metrics", namespace="default", pod="fast-0", fetch=fetch, clock=clock)

    async def test_the_pods_figures(self) -> None:
        assert await self.reader(Fetched(200, corpora.DCGM), Clock(), []).read() == GpuLoad(0.75, 0.75)

    @pytest.mark.parametrize("page", [Fetched(200, b""), Fetched(404, corpora.DCGM), FetchError("no")])
    async def test_without_figures_it_is_left_alone_for_a_while(self, page: Fetched | FetchError) -> None:
        clock, asked = Clock(), []
        dcgm = self.reader(page, clock, asked)
        assert [await dcgm.read(), await dcgm.read()] == [None, None]
        assert asked == ["http://node:9400/metrics"]
        assert dcgm.info()["failures"] == 1
        clock.now += 5
        await dcgm.read()
        assert len(asked) == 2


class Scripted:
    def __init__(self, *loads: GpuLoad | None) -> None:
        self.loads = list(loads)

    async def read(self) -> GpuLoad | None:
        return self.loads.pop(0) if self.loads else None

    def info(self) -> dict[str, object]:
        return {"left": len(self.loads)}


class TestSampler:
    def sampler(self, *readers: Scripted, clock: Callable[[], float] | None = None, interval: float = 2.0) -> GpuSampler:
        return GpuSampler(readers, clock=clock or Clock(), rng=Random(1), settings=GpuSettings(interval_seconds=interval))

    async def test_the_first_reader_with_a_figure_wins(self) -> None:
        first, second = Scripted(None, GpuLoad(), GpuLoad(0.1, 0.2)), Scripted(GpuLoad(0.5), GpuLoad(0.6))
        sampler = self.sampler(first, second)
        seen = []
        for _ in range(3):
            await sampler.read()
            seen.append(sampler.sample(100.0))
        assert seen == [GpuLoad(0.5), GpuLoad(0.6), GpuLoad(0.1, 0.2)]
        assert sampler.info() == {"utilization_ratio": 0.1, "memory_ratio": 0.2, "readers": [{"left": 0}, {"left": 0}]}

    async def test_a_figure_older_than_three_intervals_is_unknown(self) -> None:
        sampler = self.sampler(Scripted(GpuLoad(0.5)))
        assert sampler.sample(100.0) == GpuLoad()
        await sampler.read()
        await sampler.read()
        assert sampler.sample(106.0) == GpuLoad(0.5)
        assert sampler.sample(106.1) == GpuLoad()

    async def test_it_goes_on_until_cancelled_and_ends_where_there_is_nothing_to_ask(self) -> None:
        await self.sampler().run()
        scripted = Scripted(*[GpuLoad(0.5)] * 5)
        task = asyncio.create_task(self.sampler(scripted, interval=0.001).run())
        async with asyncio.timeout(10):
            while scripted.loads:  # noqa: ASYNC110 - a fake has no events
                await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
