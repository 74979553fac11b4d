"""Watches the engine behind an inbound listener: is it up, and what does it say of its load.

Health and metrics are asked in two loops, so that neither waits for the other, each request with its own deadline and each
interval lengthened by up to a tenth at random, so that many sidecars do not ask in step.

*Health.* Two failures in a row make the engine down, one success makes it up. An engine that has never answered is down at its
first failure, which a request may meet too: there is no earlier success to believe in. While it is in doubt or down it is asked each
second, and at once when the data path meets a refused or broken connection (`failed`). A check that ran out of time
is no failure where it says nothing of the engine: where this process itself got too little time meanwhile (`late_seconds`), for at most
`excused_in_a_row` of them, or where the engine went on with its replies (`replied_at`).

*In-band.* An engine that tells its load with its replies, as it is asked to, is heard (`heard`) between two readings.

*Metrics.* The engine's own names and pages (`engines.tables`); where a page does not answer, the next one is tried the next
time. An engine without metrics is asked ever more rarely, up to `metrics_backoff_seconds`. A reading counts for three
intervals and is unknown after that: never the last value, never 0.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from spillway_sidecar.engines import MAX_EXPOSITION_BYTES, EngineLoad, engine_load, engine_table, metrics_urls
from spillway_sidecar.reporting.fetch import Fetched, FetchError, LateError
from spillway_wire.names import Provider
from spillway_wire.orca import decode_load
from spillway_wire.snapshot import Health

_LOG = logging.getLogger(__name__)

_UNKNOWN = EngineLoad()
_DEFAULT_HEALTH_PATH = Health().path


class Fetch(Protocol):
    """What `reporting.fetch.fetch` is: the whole answer, or `FetchError`."""

    def __call__(self, url: str, *, deadline_seconds: float, max_bytes: int) -> Awaitable[Fetched]:
        """The answer to a GET of `url`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class ProbeSettings:
    """How an engine is asked."""

    metrics_interval_seconds: float = 1.0  # a report goes out each second; asked more often nobody would know
    metrics_timeout_seconds: float = 1.0
    metrics_backoff_seconds: float = 10.0  # between readings of an engine that does not give any
    stale_intervals: int = 3
    failures_to_down: int = 2  # one lost answer is an accident
    doubt_interval_seconds: float = 1.0  # between checks of an engine that has failed one
    late_share: float = 0.25  # of a check's time, by which this process was late itself
    excused_in_a_row: int = 5
    check_soon_seconds: float = 0.1  # at least between two checks that the data path asked for
    jitter_ratio: float = 0.1
    max_health_bytes: int = 64 * 1024


@dataclass(frozen=True, slots=True)
class ProbeTarget:
    """What the snapshot says of the engine: its kind, and how its health is checked."""

    provider: Provider
    health: Health


@dataclass(frozen=True, slots=True)
class EngineSample:
    """The engine as last seen. `load` is unknown where it is stale."""

    up: bool = True
    load: EngineLoad = _UNKNOWN


class EngineProbe:
    """Asks the engine at `engine_url` (`http://host:port`) once `retarget` has said what it is; until then it passes for up."""

    def __init__(
        self,
        engine_url: str,
        *,
        fetch: Fetch,
        clock: Callable[[], float],
        rng: Random,
        settings: ProbeSettings | None = None,
        late_seconds: Callable[[], float] = float,
        replied_at: Callable[[], float] = float,
    ) -> None:
        self._engine_url = engine_url.rstrip("/")
        self._fetch = fetch
        self._clock = clock
        self._rng = rng
        self._settings = settings or ProbeSettings()
        self._late_seconds = late_seconds
        self._replied_at = replied_at
        self._target: ProbeTarget | None = None
        self._up = True
        self._seen_up = False
        self._failures = 0
        self._excused = 0  # checks in a row
        self._health_error = ""
        self._load = _UNKNOWN
        self._load_at_seconds = 0.0
        self._urls: tuple[str, ...] = ()
        self._url = 0
        self._metrics_failures = 0
        self._metrics_error = ""
        self._checked_at_seconds: float | None = None
        self._ask_health = asyncio.Event()
        self._ask_metrics = asyncio.Event()

    @property
    def up(self) -> bool:
        """Whether the engine may be given requests."""
        return self._up

    @property
    def known(self) -> bool:
        """Whether a check has said so."""
        return self._seen_up or self._failures > 0

    def retarget(self, target: ProbeTarget | None) -> None:
        """The snapshot in force names this engine as `target`, or not at all. The same target again changes nothing."""
        if target == self._target:
            return
        old = self._target
        self._target = target
        if target is None or old is None or target.provider is not old.provider:
            self._load = _UNKNOWN
            self._url = self._metrics_failures = 0
            self._urls = metrics_urls(target.provider, self._engine_url) if target is not None else ()
            self._ask_metrics.set()
        if target is None:
            self._up, self._seen_up, self._failures = True, False, 0
        self._ask_health.set()

    def failed(self) -> None:
        """A request met a refused or broken connection. Cheap; told of it often it still checks seldom."""
        if not self._seen_up and self._target is not None:
            self._up = False
        self._ask_health.set()

    def sample(self, now: float) -> EngineSample:
        """The engine as known at `now`."""
        return EngineSample(self._up, self._load if self._fresh(now) else _UNKNOWN)

    def heard(self, value: bytes) -> None:
        """The engine has told its load with a reply (`endpoint-load-metrics`): newer than the last reading, for what it names."""
        load = decode_load(value)
        if load is None or (load.engine_waiting is None and load.engine_running is None and load.kv_cache_ratio is None):
            return
        before = self._load if self._fresh(self._clock()) else _UNKNOWN
        self._load = EngineLoad(
            before.waiting if load.engine_waiting is None else load.engine_waiting,
            before.running if load.engine_running is None else load.engine_running,
            before.kv_cache_ratio if load.kv_cache_ratio is None else load.kv_cache_ratio,
            before.adapters,
        )
        self._load_at_seconds = self._clock()

    async def run(self) -> None:
        """Asks until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._watch_health(), name="engine-health")
            tasks.create_task(self._watch_metrics(), name="engine-metrics")

    async def check_health(self) -> None:
        """One check; its outcome is in `up`."""
        target = self._target
        if target is None:
            return
        began = self._checked_at_seconds = self._clock()
        late = self._late_seconds()
        path, lenient = _health_page(target)
        error = ""
        excused = False
        try:
            answer = await self._fetch(
                self._engine_url + path,
                deadline_seconds=target.health.timeout_seconds,
                max_bytes=self._settings.max_health_bytes,
            )
            if not (200 <= answer.status < 300 or (lenient and answer.status < 500)):
                error = f"status {answer.status}"
        except LateError as failure:
            error = str(failure)
            excused = self._excuses(began, self._late_seconds() - late, target.health.timeout_seconds)
        except FetchError as failure:
            error = str(failure)
        if self._target == target:  # else the answer is to a question that no longer stands
            self._note_health(error, excused=excused)

    def _excuses(self, began: float, late_seconds: float, timeout_seconds: float) -> bool:
        """Whether a check that ran out of time says nothing of the engine."""
        if not self._up or not self._seen_up:
            return False
        if self._replied_at() > began:
            return True
        overdue = self._clock() - began - timeout_seconds
        return (
            max(late_seconds, overdue) > self._settings.late_share * timeout_seconds
            and self._excused < self._settings.excused_in_a_row
        )

    def health_delay_seconds(self) -> float:
        """Until the next check."""
        target = self._target
        interval = target.health.interval_seconds if target is not None else self._settings.doubt_interval_seconds
        if self._failures or self._excused:
            interval = min(interval, self._settings.doubt_interval_seconds)
        return self._jittered(interval)

    async def read_metrics(self) -> None:
        """One reading; its outcome is in `sample`."""
        target, urls = self._target, self._urls
        if target is None or not urls:
            return
        error, load = "", _UNKNOWN
        try:
            answer = await self._fetch(
                urls[self._url], deadline_seconds=self._settings.metrics_timeout_seconds, max_bytes=MAX_EXPOSITION_BYTES
            )
            load = engine_load(target.provider, answer.body) if answer.status == 200 else _UNKNOWN
            if not load.known:
                error = f"status {answer.status}, no known metric"
        except FetchError as failure:
            error = str(failure)
        if self._urls is not urls:
            return
        if error:
            self._metrics_error = error
            self._metrics_failures += 1
            self._url = (self._url + 1) % len(urls)
        else:
            self._metrics_error, self._metrics_failures = "", 0
            self._load, self._load_at_seconds = load, self._clock()

    def metrics_delay_seconds(self) -> float:
        """Until the next reading; never less than the engine bears."""
        interval = self._interval_seconds()
        misses = max(0, self._metrics_failures - len(self._urls))  # each page has one miss for nothing
        if misses:
            interval = max(interval, min(self._settings.metrics_backoff_seconds, interval * 2.0 ** min(misses, 16)))
        return self._jittered(interval)

    def info(self) -> dict[str, object]:
        """State of the engine and of the questions to it."""
        now = self._clock()
        return {
            "engine": self._engine_url,
            "provider": self._target.provider.value if self._target else None,
            "up": self._up,
            "health_failures": self._failures,
            "health_excused": self._excused,
            "health_error": self._health_error,
            "metrics_page": self._urls[self._url] if self._urls else None,
            "metrics_failures": self._metrics_failures,
            "metrics_error": self._metrics_error,
            "load_fresh": self._fresh(now),
            "waiting": self._load.waiting,
            "running": self._load.running,
            "kv_cache_ratio": self._load.kv_cache_ratio,
        }

    def _note_health(self, error: str, *, excused: bool = False) -> None:
        self._health_error = error
        was_up = self._up
        if excused:
            self._excused += 1
            return
        if not error:
            self._up, self._seen_up, self._failures, self._excused = True, True, 0, 0
        else:
            self._failures += 1
            if self._failures >= self._settings.failures_to_down or not self._seen_up:
                self._up = False
        if self._up != was_up:
            _LOG.warning("engine %s engine=%s reason=%s", "up" if self._up else "down", self._engine_url, error or "answers")

    def _interval_seconds(self) -> float:
        floor = engine_table(self._target.provider).min_interval_seconds if self._target is not None else 0.0
        return max(self._settings.metrics_interval_seconds, floor)

    def _fresh(self, now: float) -> bool:
        return self._load.known and now - self._load_at_seconds <= self._settings.stale_intervals * self._interval_seconds()

    def _jittered(self, seconds: float) -> float:
        return seconds * (1 + self._settings.jitter_ratio * self._rng.random())

    async def _watch_health(self) -> None:
        while True:
            asked = await _wait(self._ask_health, self.health_delay_seconds() if self._target is not None else None)
            if asked and self._checked_at_seconds is not None:
                pause = self._checked_at_seconds + self._settings.check_soon_seconds - self._clock()
                await asyncio.sleep(max(0.0, pause))
            self._ask_health.clear()
            await self.check_health()

    async def _watch_metrics(self) -> None:
        while True:
            # Woken only by a change of target, whose new engine has not been asked yet.
            await _wait(self._ask_metrics, self.metrics_delay_seconds() if self._urls else None)
            self._ask_metrics.clear()
            await self.read_metrics()


def _health_page(target: ProbeTarget) -> tuple[str, bool]:
    """The path to ask, and whether any answer that is no server error will do.

    A path that was not set is the engine's own; a server of a kind without one is alive if it answers at all.
    """
    if target.health.path != _DEFAULT_HEALTH_PATH:
        return target.health.path, False
    path = engine_table(target.provider).health_path
    return (_DEFAULT_HEALTH_PATH, True) if path is None else (path, False)


async def _wait(event: asyncio.Event, seconds: float | None) -> bool:
    """Waits for the event or the time; whether it was the event."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    return True
