"""Statuses, written to the API server by server-side apply.

The status pass decides what is worth a write (conditions at once, load figures at most each 10 s an object) and hands it here. Here is
one place for each object, so that a status which has not left yet is replaced by the next; conditions go before figures; a few
requests are under way at a time, all within one budget; and what fails for a passing reason is tried again later and later.

A change that is on its way to the proxies is on them within a fraction of a second as a rule, so a status that says no more than this
waits for a moment: one write then says that the object is accepted and that it is programmed. A proxy that lags is told of after it.

What somebody else made of a status is put right: every few seconds what we wrote is held against what the watch has shown of it, and
what differs at two looks is written again. What others added beside it (conditions of their own) is theirs.

Each write names our field manager, takes over fields that somebody else wrote (they are ours alone) and names the object's uid, so
that a status never lands on another object of the same name. Before each write `may_write` is asked, and `clear` drops what waits
when a term is over: writes of two leaders do not mix.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from spillway_operator.api import API_VERSION, BackendStatus, ObjectKey, RouteStatus, condition_of
from spillway_operator.kube.api import APPLY, ApiError, KubeApi, KubeError
from spillway_operator.kube.budget import TokenBucket
from spillway_operator.kube.transitions import Transition, transitions
from spillway_operator.policies import reasons

FIELD_MANAGER: Final = "spillway"
PLURALS: Final = {"ModelBackend": "modelbackends", "ModelRoute": "modelroutes"}

Status = BackendStatus | RouteStatus

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WriteBudget:
    """How much may be written."""

    per_second: float = 100.0  # an API server spends 5 ms of a core on each: half a core
    burst: int = 500  # so many objects are applied at once now and then, and their author waits for them
    concurrency: int = 8  # a busy API server slows us down
    pending_seconds: float = 1.0  # for proxies to take a change; a flood of them reaches proxies four times a second
    retry_base_seconds: float = 0.25
    retry_max_seconds: float = 30.0
    look_seconds: float = 10.0  # between two looks for statuses that are not as we left them; the watch is not as far behind


@dataclass(slots=True)
class _Waiting:
    status: Status
    urgent: bool
    due_at: float = 0.0
    failures: int = 0


class ApplySink:
    """A status sink over the API server. `write` never waits; `run` does the writing."""

    def __init__(
        self,
        api: KubeApi,
        *,
        uid_of: Callable[[ObjectKey], str],
        shown: Callable[[ObjectKey], Status | None],
        may_write: Callable[[], bool],
        on_transition: Callable[[ObjectKey, Transition], None],
        clock: Callable[[], float],
        rng: random.Random,
        budget: WriteBudget | None = None,
    ) -> None:
        self._api = api
        self._uid_of = uid_of
        self._shown = shown
        self._may_write = may_write
        self._on_transition = on_transition
        self._clock = clock
        self._rng = rng
        self._settings = budget or WriteBudget()
        self._budget = TokenBucket(per_second=self._settings.per_second, burst=self._settings.burst)
        self._standing: dict[ObjectKey, Status] = {}
        self._waiting: dict[ObjectKey, _Waiting] = {}
        self._under_way: dict[ObjectKey, asyncio.Task[None]] = {}
        self._look_at = 0.0
        self._suspect: set[ObjectKey] = set()
        self._wake = asyncio.Event()
        self._counts: Counter[str] = Counter()

    def write(self, key: ObjectKey, status: Status) -> None:
        """The status of an object is this."""
        before = self._standing.get(key)
        self._standing[key] = status
        for transition in transitions(before, status):
            self._on_transition(key, transition)
        waiting = self._waiting.get(key)
        urgent = (
            before is None or before.conditions != status.conditions or before.observed_generation != status.observed_generation
        )
        if waiting is None:
            due_at = self._clock() + self._settings.pending_seconds if _on_its_way(status) else 0.0
        else:
            due_at = 0.0 if urgent and not _on_its_way(status) else waiting.due_at
        self._waiting[key] = _Waiting(
            status=status,
            urgent=urgent or (waiting is not None and waiting.urgent),
            due_at=due_at,
            failures=waiting.failures if waiting is not None else 0,
        )
        self._wake.set()

    def adopt(self, key: ObjectKey, status: Status) -> None:
        """The API server has this status already."""
        self._standing[key] = status

    def forget(self, key: ObjectKey) -> None:
        """The object is gone, or another one has its name."""
        self._standing.pop(key, None)
        self._waiting.pop(key, None)

    def clear(self) -> None:
        """A term is over: drop what waits and cut what is under way."""
        self._waiting.clear()
        self._standing.clear()
        for task in self._under_way.values():
            task.cancel()

    async def run(self) -> None:
        """Writes for ever."""
        try:
            while True:
                self._wake.clear()
                now = self._clock()
                self._look(now)
                pause = self._start_due(now)
                pause = self._look_at - now if pause is None else min(pause, self._look_at - now)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
        finally:
            self.clear()

    def _look(self, now: float) -> None:
        """Write again what differs from what we wrote, now and at the last look."""
        if now < self._look_at:
            return
        self._look_at = now + self._settings.look_seconds
        before, self._suspect = self._suspect, set()
        for key, status in self._standing.items():
            if key in self._waiting or key in self._under_way or stands(status, self._shown(key)):
                continue
            if key in before:
                self._counts["corrected"] += 1
                self._waiting[key] = _Waiting(status=status, urgent=True)
            else:
                self._suspect.add(key)

    def _start_due(self, now: float) -> float | None:
        """Begin what may begin; the seconds until something else may, None: when somebody calls."""
        while True:
            if len(self._under_way) >= self._settings.concurrency:
                return None
            ready = [(not w.urgent, w.due_at, key) for key, w in self._waiting.items() if key not in self._under_way]
            if not ready:
                return None
            due = [entry for entry in ready if entry[1] <= now]
            if not due:
                return max(0.01, min(entry[1] for entry in ready) - now)
            wait = self._budget.take(now)
            if wait > 0:
                return wait
            key = min(due)[2]
            waiting = self._waiting.pop(key)
            task = asyncio.create_task(self._apply(key, waiting), name=f"status {key}")
            self._under_way[key] = task
            task.add_done_callback(lambda _, key=key: self._done(key))  # type: ignore[misc]

    def _done(self, key: ObjectKey) -> None:
        self._under_way.pop(key, None)
        self._wake.set()

    async def _apply(self, key: ObjectKey, waiting: _Waiting) -> None:
        if not self._may_write():
            self._counts["not_leading"] += 1
            return
        path = f"/apis/{API_VERSION}/namespaces/{key.namespace}/{PLURALS[key.kind]}/{key.name}/status"
        body = apply_body(key, waiting.status, self._uid_of(key))
        try:
            await self._api.request(
                "PATCH", path, body, params={"fieldManager": FIELD_MANAGER, "force": "true"}, content_type=APPLY
            )
        except ApiError as error:
            self._refused(key, waiting, error)
        except KubeError as error:
            self._retry(key, waiting, error, None)
        else:
            self._counts["applied"] += 1

    def _refused(self, key: ObjectKey, waiting: _Waiting, error: ApiError) -> None:
        if error.status == 404:
            self._counts["gone"] += 1
        elif error.status == 409 and waiting.failures >= 3:
            self._counts["replaced"] += 1  # another object has the name; the source will tell
        elif error.passing or error.status in {401, 403}:
            self._retry(key, waiting, error, error.retry_after_seconds)
        else:
            self._counts["refused"] += 1
            _log.error("status: the API server does not take the status of %s: %s", key, error)

    def _retry(self, key: ObjectKey, waiting: _Waiting, error: KubeError, at_least_seconds: float | None) -> None:
        self._counts["retried"] += 1
        if waiting.failures == 0:
            _log.warning("status: %s is written later: %s", key, error)
        settings = self._settings
        delay = min(settings.retry_max_seconds, settings.retry_base_seconds * 2.0 ** min(waiting.failures, 16))
        delay = max(delay * self._rng.uniform(0.75, 1.0), at_least_seconds or 0.0)
        newer = self._waiting.get(key)
        kept = newer or waiting
        kept.failures, kept.due_at = waiting.failures + 1, self._clock() + delay
        self._waiting[key] = kept

    def info(self) -> dict[str, Any]:
        """What waits, and counts."""
        return {
            "waiting": len(self._waiting),
            "under_way": len(self._under_way),
            "budget": self._budget.info(),
            "counts": dict(self._counts),
        }


def _on_its_way(status: Status) -> bool:
    """Whether proxies are expected to take the object any moment."""
    programmed = condition_of(status.conditions, reasons.PROGRAMMED)
    return programmed is not None and programmed.reason == reasons.PENDING


def stands(ours: Status, shown: Status | None) -> bool:
    """Whether what is shown is what we wrote, whatever others have added to it."""
    if shown is None or ours == shown:
        return shown is not None
    own = {condition.type for condition in ours.conditions}
    of_ours = shown.model_copy(update={"conditions": tuple(each for each in shown.conditions if each.type in own)})
    return bool(_unordered(ours.model_dump(mode="json")) == _unordered(of_ours.model_dump(mode="json")))


def _unordered(value: Any) -> Any:
    """The lists of a status are sets and maps, which the API server merges: their order says nothing."""
    if isinstance(value, dict):
        return {name: _unordered(part) for name, part in value.items()}
    return sorted((_unordered(part) for part in value), key=repr) if isinstance(value, list) else value


def apply_body(key: ObjectKey, status: Status, uid: str) -> dict[str, Any]:
    """What is applied: the whole status, since what is left out of an apply is taken away."""
    metadata = {"name": key.name, "namespace": key.namespace}
    if uid:
        metadata["uid"] = uid
    return {
        "apiVersion": API_VERSION,
        "kind": key.kind,
        "metadata": metadata,
        "status": status.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
