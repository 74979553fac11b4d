"""kopf, in a thread and a loop of its own, started again whenever it ends.

kopf cancels every task of its loop when it stops, and it stops on one bad event of a watch; so it has a loop to itself, and nothing
else lives there. What is set here and why:

- Event handlers only. They write nothing: no finalizer, no annotation, no Event. `kubectl delete` never waits for us.
- Requests that fail are repeated for ever, at most a second apart: 503 and 403 for minutes do not end kopf, and what ends it all
  the same (an ERROR in a watch other than 410) costs a new list.
- A watch that brings nothing for 5 s is opened anew from where it was, so that a stalled connection is noticed; at rest that is
  one cheap request per resource in 5 s.
- Namespaces and CRDs are not watched (`scanning.disabled`): no rights to them are needed. Where our kinds are not installed yet,
  kopf is started anew every few seconds until they are.
- Nothing names the process's user, which a container may not have.

What kopf sees goes out by `emit`, called on kopf's loop: a `Listed` with the uids of a whole list, then a `Change` for each object.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import kopf

from spillway_operator.kube.access import KubeAccess
from spillway_operator.sources.kubernetes_listing import RESOURCES, Listed, Observer, Place
from spillway_operator.sources.kubernetes_objects import place_of, pod_facts, service_facts, slice_facts, uid_of

_log = logging.getLogger(__name__)

_CANCEL_AGAIN_SECONDS: Final = 0.05

_FACTS: Final[dict[str, Callable[[Any], Any]]] = {"Pod": pod_facts, "Service": service_facts, "EndpointSlice": slice_facts}
_QUIET: Final = ("Request attempt", "OS signals are ignored", "Stop-flag is", "Unresolved resources", "Initial auth", "Re-auth")


@dataclass(frozen=True, slots=True)
class Change:
    """An object as it is, or that it is gone (`facts` None). `facts`: of our own kinds the whole object, of others what is kept."""

    resource: str
    place: Place
    uid: str
    facts: Any


@dataclass(frozen=True, slots=True)
class WatchPace:
    """Seconds."""

    stall_seconds: float = 5.0
    list_seconds: float = 30.0  # for one list: thousands of pods
    connect_seconds: float = 2.0
    retry_first_seconds: float = 0.1
    retry_last_seconds: float = 1.0  # so that an API server that is back is found within a second
    restart_first_seconds: float = 0.1
    restart_last_seconds: float = 5.0
    healthy_seconds: float = 20.0  # after that long a restart is the first one again
    missing_seconds: float = 3.0  # without one of our kinds being served
    stuck_seconds: float = 20.0  # one resource fails while others answer
    cut_off_seconds: float = 2.5  # for the tasks of a run to end
    stop_seconds: float = 3.0


class _Backoffs:
    """Delays without end; kopf takes anything iterable, and gives up where it can count them."""

    def __init__(self, pace: WatchPace, rng: random.Random) -> None:
        self._pace = pace
        self._rng = rng

    def __iter__(self) -> Iterator[float]:
        delay = self._pace.retry_first_seconds
        while True:
            yield delay * self._rng.uniform(0.75, 1.0)
            delay = min(self._pace.retry_last_seconds, delay * 2)


class _NothingKept(kopf.DiffBaseStorage):
    """What kopf would keep on an object to see what changed since. Event handlers never ask, and it copies each object for it."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass


class KopfThread:
    """Runs kopf until `stop`. `emit` is called in the thread."""

    def __init__(
        self,
        access: KubeAccess,
        emit: Callable[[Listed | Change], None],
        *,
        namespaces: Sequence[str],
        pod_selector: str,
        clock: Callable[[], float],
        rng: random.Random,
        pace: WatchPace | None = None,
    ) -> None:
        self._access = access
        self._emit = emit
        self._namespaces = tuple(namespaces)
        self._pod_selector = pod_selector
        self._clock = clock
        self._rng = rng
        self._pace = pace or WatchPace()
        self._stopping = threading.Event()
        self._stop_kopf: Callable[[], object] | None = None
        self._observer = Observer(clock=clock, on_listed=emit)
        self._sessions: list[aiohttp.ClientSession] = []
        self._starts = 0
        self._last_end = ""
        self._started_at = 0.0
        self._thread = threading.Thread(target=self._main, name="kopf", daemon=True)

    def start(self) -> None:
        """Begin."""
        _hush()
        self._thread.start()

    async def stop(self) -> None:
        """End, within bounds: what hangs is a daemon thread that holds nothing."""
        self._stopping.set()
        stop = self._stop_kopf
        if stop is not None:
            with contextlib.suppress(RuntimeError):  # its loop is closed already
                stop()
        await asyncio.to_thread(self._thread.join, self._pace.stop_seconds)

    def _main(self) -> None:
        failures = 0
        while not self._stopping.is_set():
            self._starts += 1
            self._started_at = self._clock()
            try:
                self._run_once()
                self._last_end = self._last_end or "it stopped by itself"
            except Exception as error:  # noqa: BLE001 - whatever ends kopf, it is started again
                self._last_end = f"{type(error).__name__}: {error}"[:300]
            if self._stopping.is_set():
                return
            failures = 0 if self._clock() - self._started_at > self._pace.healthy_seconds else failures + 1
            delay = min(self._pace.restart_last_seconds, self._pace.restart_first_seconds * 2.0 ** min(failures, 10))
            delay *= self._rng.uniform(0.75, 1.0)
            _log.warning("kubernetes: the watch ended (%s); it begins anew in %.1f s", self._last_end, delay)
            self._stopping.wait(delay)

    def _run_once(self) -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(_left_behind)
        try:
            loop.run_until_complete(self._run())
        finally:
            with contextlib.suppress(Exception):  # the end of a run that has failed is not to hide why
                loop.run_until_complete(self._cut_off())
            loop.close()

    async def _run(self) -> None:
        self._last_end = ""
        self._observer = Observer(clock=self._clock, on_listed=self._emit)
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._stop_kopf = lambda: loop.call_soon_threadsafe(stop.set)
        if self._stopping.is_set():
            return
        # Its own stop flag would keep it from ending by itself for 5 s, and a watch that meets the end of its session waits for
        # credentials that nobody brings any more. So its root tasks are watched here, and whatever is left is cut off.
        watchdog = asyncio.create_task(self._watch_over(stop), name="watchdog")
        stopped = asyncio.create_task(stop.wait(), name="stopped")
        roots = await kopf.spawn_tasks(
            registry=self._registry(),
            settings=self._settings(),
            clusterwide=not self._namespaces,
            namespaces=self._namespaces,
            standalone=True,
            identity="spillway",  # type: ignore[arg-type] # else it is made from the user's name
        )
        try:
            done, _ = await asyncio.wait({stopped, *roots}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stop_kopf = None
            watchdog.cancel()
        for task in done - {stopped}:
            task.result()

    async def _cut_off(self) -> None:
        """Ends what is left of a run. What does not end is left behind with its loop.

        Some of kopf's tasks wait for others when they are cancelled, and end when they are cancelled again.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._pace.cut_off_seconds
        while (left := asyncio.all_tasks() - {asyncio.current_task()}) and loop.time() < end:
            for task in left:
                task.cancel()
            await asyncio.wait(left, timeout=_CANCEL_AGAIN_SECONDS)
        for session in self._sessions:
            await session.close()
        self._sessions.clear()

    async def _watch_over(self, stop: asyncio.Event) -> None:
        """Ends a run that cannot come to anything by itself."""
        hindered = ""
        while True:
            await asyncio.sleep(0.5)
            failing = self.failing
            if bool(failing) != bool(hindered):
                _log.warning("kubernetes: the watch is hindered: %s", failing) if failing else _log.info(
                    "kubernetes: the watch goes on"
                )
                hindered = failing
            reason = self._hopeless(self._clock())
            if reason:
                self._last_end = reason
                stop.set()
                return

    def _hopeless(self, now: float) -> str:
        observer, pace = self._observer, self._pace
        answers = observer.last_good_at is not None and now - observer.last_good_at < pace.stall_seconds + 1.0
        missing = sorted(set(RESOURCES.values()) - observer.contacts.keys())
        if missing and observer.last_good_at is not None and now - observer.last_good_at > pace.missing_seconds:
            return f"the API server does not serve {', '.join(missing)}: are the CRDs installed?"
        if missing and answers and now - self._started_at > 2 * pace.missing_seconds:
            return f"the API server does not serve {', '.join(missing)}: are the CRDs installed?"
        for name, contact in observer.contacts.items():
            # Such as a watch from a version that an API server restored from a backup has not come to yet.
            if answers and contact.failing_since is not None and now - contact.failing_since > pace.stuck_seconds:
                return f"{name}: {contact.failure} for {pace.stuck_seconds:.0f} s"
        return ""

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        session = self._session

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            return kopf.AiohttpSession(server=self._access.server, aiohttp_session=session())

        for (plural, group), name in RESOURCES.items():
            kopf.on.event(group or "v1", plural, id=name, registry=registry)(self._handler(name))
        return registry

    def _session(self) -> aiohttp.ClientSession:
        session = self._access.session((self._observer,))
        self._sessions.append(session)
        return session

    def _handler(self, resource: str) -> Any:
        facts = _FACTS.get(resource, dict)
        emit = self._emit

        async def handle(event: Any, **_: Any) -> None:
            raw = event["object"]
            gone = event["type"] == "DELETED"
            emit(Change(resource=resource, place=place_of(raw), uid=uid_of(raw), facts=None if gone else facts(raw)))

        return handle

    def _settings(self) -> kopf.OperatorSettings:
        pace = self._pace
        settings = kopf.OperatorSettings()
        settings.process.ultimate_exiting_timeout = None  # it would kill the whole process
        settings.posting.enabled = False
        settings.scanning.disabled = True
        settings.persistence.diffbase_storage = _NothingKept()
        settings.networking.error_backoffs = _Backoffs(pace, self._rng)
        settings.networking.request_timeout = pace.list_seconds
        settings.networking.connect_timeout = pace.connect_seconds
        settings.watching.inactivity_timeout = pace.stall_seconds
        settings.watching.server_timeout = 300  # whole seconds; the API server closes a watch then
        settings.watching.chunk_size = 500
        settings.watching.reconnect_backoff = 0.1
        settings.queueing.idle_timeout = 1.0  # a worker per object is gone a second after its last event
        settings.queueing.exit_timeout = 0.2
        if self._pod_selector:
            settings.watching.label_selectors["v1", "pods"] = self._pod_selector
        return settings

    @property
    def failing(self) -> str:
        """What is in the way of watching; empty where nothing is."""
        told = [f"{name}: {contact.failure}" for name, contact in sorted(self._observer.contacts.items()) if contact.failure]
        return "; ".join(told) or (self._last_end if not self._observer.contacts else "")

    def info(self) -> dict[str, Any]:
        """How often it began, why it ended last, and how requests go."""
        return {"starts": self._starts, "last_end": self._last_end, "contacts": self._observer.info()}


def _left_behind(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """It hears of the first watch that fails and leaves the others' errors behind."""
    _log.debug("kubernetes: %s: %r", context.get("message"), context.get("exception"))


class _Selected(logging.Handler):
    """kopf's log without what we tell ourselves, once and not at each attempt."""

    def emit(self, record: logging.LogRecord) -> None:
        text = str(record.msg)
        if not text.startswith(_QUIET) and " has failed: " not in text:
            _log.handle(record)


def _hush() -> None:
    logger = logging.getLogger("kopf")
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    if not any(isinstance(handler, _Selected) for handler in logger.handlers):
        logger.addHandler(_Selected())
