"""Samples the GPU: NVML where the pod sees its device, else a DCGM exporter, else unknown.

NVML comes through `nvidia-ml-py` (module `pynvml`), which is looked for once, when the first sample is taken; its absence is
normal. In a container NVML lists the devices that the container was given, so the mean over all of them is the pod's. A
driver call can block for seconds, for ever on a GPU that fell off the bus, so calls run in a daemon thread, one at a time:
the event loop waits for it until the deadline, goes on without a figure, and starts no second call while the first
one hangs. A reader that fails is left alone for a time that doubles up to five minutes.

Utilisation misleads on its own: 100 % means that some kernel ran all the time, not that there is no room.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final, Protocol

from spillway_sidecar.engines import MAX_EXPOSITION_BYTES, GpuLoad, dcgm_load
from spillway_sidecar.reporting.engine import Fetch
from spillway_sidecar.reporting.fetch import FetchError

_LOG = logging.getLogger(__name__)

UNKNOWN: Final = GpuLoad()
MAX_DEVICES: Final = 64


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """How a GPU is sampled."""

    interval_seconds: float = 2.0  # NVML's own window is up to one second; a DCGM exporter's 1 to 30
    deadline_seconds: float = 1.0
    backoff_seconds: float = 5.0  # after a first failure, doubling
    max_backoff_seconds: float = 300.0
    stale_intervals: int = 3


class GpuReader(Protocol):
    """One source of GPU figures. `read` gives None where there is nothing to say, and never raises."""

    async def read(self) -> GpuLoad | None:
        """A sample."""
        raise NotImplementedError

    def info(self) -> dict[str, object]:
        """State."""
        raise NotImplementedError


class _Backoff:
    """Time not to ask, after failures in a row."""

    def __init__(self, settings: GpuSettings, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._clock = clock
        self._until_seconds = -float("inf")
        self.failures = 0
        self.error = ""

    def waits(self) -> bool:
        return self._clock() < self._until_seconds

    def succeeded(self) -> None:
        self.failures, self.error = 0, ""

    def failed(self, error: str) -> None:
        pause = self._settings.backoff_seconds * 2.0 ** min(self.failures, 16)
        self._until_seconds = self._clock() + min(pause, self._settings.max_backoff_seconds)
        self.failures += 1
        self.error = error[:200]


def _import_pynvml() -> Any:
    return importlib.import_module("pynvml")


class NvmlReader:
    """NVML through `pynvml`. `load` gives the module, or raises ImportError, which ends the search for good."""

    def __init__(
        self, *, clock: Callable[[], float], settings: GpuSettings | None = None, load: Callable[[], Any] = _import_pynvml
    ) -> None:
        self._settings = settings or GpuSettings()
        self._backoff = _Backoff(self._settings, clock)
        self._load = load
        self._absent = False
        self._nvml: Any = None
        self._devices = 0
        self._call: asyncio.Future[GpuLoad] | None = None

    async def read(self) -> GpuLoad | None:
        """The mean over the devices; None if there is no NVML, it fails, or a call hangs."""
        if self._absent or self._backoff.waits() or (self._call is not None and not self._call.done()):
            return None
        self._call = call = self._in_thread()
        try:
            async with asyncio.timeout(self._settings.deadline_seconds):
                load = await asyncio.shield(call)
        except TimeoutError:
            self._backoff.failed(f"no answer within {self._settings.deadline_seconds:g} s")
            return None
        except ImportError:
            self._absent = True
            return None
        except Exception as error:  # noqa: BLE001 - a driver's binding raises what it likes; none of it is ours to die of
            self._backoff.failed(f"{type(error).__name__}: {error}")
            return None
        self._backoff.succeeded()
        return load

    def info(self) -> dict[str, object]:
        """Whether the module is there, how many devices it shows, and what failed."""
        return {
            "source": "nvml",
            "absent": self._absent,
            "devices": self._devices,
            "hanging": self._call is not None and not self._call.done(),
            "failures": self._backoff.failures,
            "error": self._backoff.error,
        }

    def _in_thread(self) -> asyncio.Future[GpuLoad]:
        """Runs a sample in a daemon thread: a call that hangs must not keep the process from ending."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[GpuLoad] = loop.create_future()
        future.add_done_callback(_retrieved)

        def settle(load: GpuLoad | None, error: Exception | None) -> None:
            if future.cancelled():
                return
            if error is not None:
                future.set_exception(error)
            elif load is not None:
                future.set_result(load)

        def work() -> None:
            load, failure = None, None
            try:
                load = self._sample()
            except Exception as error:  # noqa: BLE001 - handed to who waits
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, load, failure)

        threading.Thread(target=work, name="nvml", daemon=True).start()
        return future

    def _sample(self) -> GpuLoad:
        if self._nvml is None:
            nvml = self._load()
            nvml.nvmlInit()
            self._nvml = nvml
        try:
            return self._read_devices(self._nvml)
        except Exception:
            # A reset driver wants a fresh start, which the next sample makes.
            stale, self._nvml = self._nvml, None
            with contextlib.suppress(Exception):
                stale.nvmlShutdown()
            raise

    def _read_devices(self, nvml: Any) -> GpuLoad:
        self._devices = min(int(nvml.nvmlDeviceGetCount()), MAX_DEVICES)
        utilization: list[float] = []
        memory: list[float] = []
        for index in range(self._devices):
            device = nvml.nvmlDeviceGetHandleByIndex(index)
            with contextlib.suppress(nvml.NVMLError_NotSupported):  # a GPU in MIG mode has no utilisation
                utilization.append(nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100)
            with contextlib.suppress(nvml.NVMLError_NotSupported):
                figures = nvml.nvmlDeviceGetMemoryInfo(device)
                if figures.total > 0:
                    memory.append(figures.used / figures.total)
        return GpuLoad(_mean(utilization), _mean(memory))


class DcgmReader:
    """The figures of the pod `namespace/pod` in the text of the DCGM exporter at `url`."""

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        pod: str,
        fetch: Fetch,
        clock: Callable[[], float],
        settings: GpuSettings | None = None,
    ) -> None:
        self._url = url
        self._namespace = namespace
        self._pod = pod
        self._fetch = fetch
        self._settings = settings or GpuSettings()
        self._backoff = _Backoff(self._settings, clock)

    async def read(self) -> GpuLoad | None:
        """The pod's figures; None if the exporter does not answer or has none of this pod."""
        if self._backoff.waits():
            return None
        try:
            answer = await self._fetch(self._url, deadline_seconds=self._settings.deadline_seconds, max_bytes=MAX_EXPOSITION_BYTES)
        except FetchError as error:
            self._backoff.failed(str(error))
            return None
        load = dcgm_load(answer.body, self._namespace, self._pod) if answer.status == 200 else UNKNOWN
        if load == UNKNOWN:
            self._backoff.failed(f"status {answer.status}, no figures of this pod")
            return None
        self._backoff.succeeded()
        return load

    def info(self) -> dict[str, object]:
        """Where it asks, and what failed."""
        return {"source": "dcgm", "url": self._url, "failures": self._backoff.failures, "error": self._backoff.error}


class GpuSampler:
    """Asks its readers in order, each interval; the first that has a figure gives the sample."""

    def __init__(
        self,
        readers: Sequence[GpuReader],
        *,
        clock: Callable[[], float],
        rng: Random,
        settings: GpuSettings | None = None,
    ) -> None:
        self._readers = readers
        self._clock = clock
        self._rng = rng
        self._settings = settings or GpuSettings()
        self._load = UNKNOWN
        self._at_seconds = -float("inf")

    def sample(self, now: float) -> GpuLoad:
        """The GPU as known at `now`; unknown once the last figure is older than three intervals."""
        fresh = now - self._at_seconds <= self._settings.stale_intervals * self._settings.interval_seconds
        return self._load if fresh else UNKNOWN

    async def read(self) -> None:
        """Takes one sample; its outcome is in `sample`."""
        for reader in self._readers:
            load = await reader.read()
            if load is not None and load != UNKNOWN:
                self._load, self._at_seconds = load, self._clock()
                return

    async def run(self) -> None:
        """Samples until cancelled; returns at once where there is nothing to ask."""
        while self._readers:
            await self.read()
            await asyncio.sleep(self._settings.interval_seconds * (1 + 0.1 * self._rng.random()))

    def info(self) -> dict[str, object]:
        """The last figures and the state of each reader."""
        fresh = self.sample(self._clock())
        return {
            "utilization_ratio": fresh.utilization_ratio,
            "memory_ratio": fresh.memory_ratio,
            "readers": [reader.info() for reader in self._readers],
        }


def _mean(values: list[float]) -> float | None:
    known = [min(value, 1.0) for value in values if value >= 0]
    return sum(known) / len(known) if known else None


def _retrieved(future: asyncio.Future[GpuLoad]) -> None:
    """Marks a late failure as seen; nobody waits for it any more."""
    if not future.cancelled():
        future.exception()
