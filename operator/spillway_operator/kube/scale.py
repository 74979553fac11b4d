"""The replicas of targets, read and set through their `scale` subresource: of any kind that has one. Implements `scaling.ports.ScaleTargets`.

What is kept. Scale cannot be watched, so the targets of interest are read every few seconds while we lead, and so are the autoscalers
of their namespaces; within a budget, so that a thousand targets are read less often and not more expensively. At rest a target costs one
small request in five seconds; without targets nothing is asked. A term begins with nothing known.

How it is set. `scale` sends at once. A request names the resource version that was read, so that it fails where somebody else
has changed the object since: then the target is read again, and if the replicas are still those that the decision was made on, the
request is repeated; if not, the decision is void and the next one is made on what there is now. What fails is tried again later and later,
but never for longer than `fresh_seconds` after it was last asked for: an old decision is not carried out. Before replicas are taken away
`before_fewer` is awaited, for as long as its author bounds it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from spillway_operator.kube.api import ApiError, KubeApi, KubeError
from spillway_operator.kube.autoscalers import Writers, read_writers
from spillway_operator.kube.budget import TokenBucket
from spillway_operator.policies import reasons
from spillway_operator.scaling.ports import TargetRef, TargetState

MERGE_PATCH: Final = "application/merge-patch+json"
FIELD_MANAGER: Final = "spillway"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScalePace:
    """How often and how much."""

    read_seconds: float = 5.0  # what somebody else did to a target shows within as much
    reads_per_second: float = 20.0  # 100 targets are read each 5 s, more of them less often
    read_burst: int = 50
    read_timeout_seconds: float = 3.0
    concurrency: int = 4
    writes_per_second: float = 5.0
    write_burst: int = 50
    retry_base_seconds: float = 0.1
    retry_max_seconds: float = 5.0
    fresh_seconds: float = 6.0  # three ticks: what is not asked for again is not wanted any more
    resource_seconds: float = 300.0  # between two looks at what a group serves
    missing_seconds: float = 30.0  # ... where it did not serve the kind; also for autoscalers' kinds


@dataclass(slots=True)
class _Asked:
    """Replicas that are to be set."""

    replicas: int
    basis: int | None  # the replicas that the decision was made on
    at: float
    again_at: float  # the same was asked for last


@dataclass(slots=True)
class _Target:
    ref: TargetRef
    read_at: float = float("-inf")
    seen: bool = False
    replicas: int = 0
    version: str = ""
    problem: str = ""
    message: str = ""
    failed: str = ""  # what became of the last request to set it
    asked: _Asked | None = None
    task: asyncio.Task[None] | None = None

    def accept(self, scale: Any, now: float) -> None:
        """What the API server says the target is."""
        metadata, spec = scale.get("metadata") or {}, scale.get("spec") or {}
        self.replicas = int(spec.get("replicas") or 0)
        self.version = str(metadata.get("resourceVersion") or "")
        self.seen, self.read_at, self.problem, self.message = True, now, "", ""


class KubeScaleTargets:
    """Targets of one cluster. `run` reads; `scale` sets."""

    def __init__(
        self,
        api: KubeApi,
        *,
        may_write: Callable[[], bool],
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime],
        rng: random.Random,
        before_fewer: Callable[[TargetRef], Awaitable[None]] | None = None,
        pace: ScalePace | None = None,
    ) -> None:
        self._api = api
        self._may_write = may_write
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng
        self._before_fewer = before_fewer
        self._pace = pace or ScalePace()
        self._reads = TokenBucket(per_second=self._pace.reads_per_second, burst=self._pace.read_burst)
        self._writes = TokenBucket(per_second=self._pace.writes_per_second, burst=self._pace.write_burst)
        self._targets: dict[TargetRef, _Target] = {}
        self._writers: dict[str, tuple[float, Writers]] = {}
        self._absent: dict[str, float] = {}  # kinds of autoscalers that are not installed, and until when that is taken for granted
        self._plurals: dict[tuple[str, str], tuple[float, str | None]] = {}
        self._scaled_at: dict[TargetRef, float] = {}  # wall clock
        self._wake = asyncio.Event()
        self._counts: Counter[str] = Counter()

    # -- the port

    def state(self, ref: TargetRef) -> TargetState | None:
        """The target as it was last read; None before that."""
        target, known = self._targets.get(ref), self._writers.get(ref.namespace)
        if target is None or known is None or not (target.seen or target.problem):
            return None
        _, writers = known
        if writers.forbidden and not target.problem:
            return TargetState(replicas=target.replicas, problem=reasons.TARGET_FORBIDDEN, message=writers.forbidden)
        problem, message = target.problem, target.message
        if target.failed and not problem:
            problem, message = reasons.SCALE_FAILED, target.failed
        return TargetState(replicas=target.replicas, other_writer=writers.of(ref), problem=problem, message=message)

    def scale(self, ref: TargetRef, replicas: int) -> None:
        """Sets the replicas, at once, or as soon as it works."""
        target = self._targets.get(ref)
        if target is None or not self._may_write():
            return
        asked, now = target.asked, self._clock()
        if asked is not None and asked.replicas == replicas:
            asked.again_at = now
            return
        target.asked = _Asked(replicas, target.replicas if target.seen else None, now, now)
        if target.task is None:
            target.task = asyncio.create_task(self._carry_out(target), name=f"scale {ref}")

    def retain(self, refs: Collection[TargetRef]) -> None:
        """Keep these fresh."""
        wanted = set(refs)
        if wanted == self._targets.keys():
            return
        for ref in self._targets.keys() - wanted:
            self._drop(self._targets.pop(ref))
            self._scaled_at.pop(ref, None)
        for ref in wanted - self._targets.keys():
            self._targets[ref] = _Target(ref)
        for namespace in self._writers.keys() - {ref.namespace for ref in wanted}:
            del self._writers[namespace]
        self._wake.set()

    @staticmethod
    def _drop(target: _Target) -> None:
        target.asked = None
        if target.task is not None:
            target.task.cancel()

    # -- reading

    def begin_term(self) -> None:
        """We lead: read everything now."""
        self._wake.set()

    def clear(self) -> None:
        """A term is over: nothing is known, and nothing more is set."""
        for target in self._targets.values():
            self._drop(target)
        self._targets = {ref: _Target(ref) for ref in self._targets}
        self._writers.clear()

    async def run(self) -> None:
        """Reads for ever."""
        try:
            while True:
                self._wake.clear()
                if self._may_write():
                    await self._read_due()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._pause()):
                        await self._wake.wait()
        finally:
            self.clear()

    def _pause(self) -> float | None:
        """Until something is to be read again; None: until somebody calls."""
        if not self._targets or not self._may_write():
            return None
        oldest = min([target.read_at for target in self._targets.values()] + [at for at, _ in self._writers.values()])
        return min(1.0, max(0.05, oldest + self._pace.read_seconds - self._clock()))

    async def _granted(self, budget: TokenBucket) -> None:
        wait = budget.take(self._clock())
        while wait > 0:
            await asyncio.sleep(wait)
            wait = budget.take(self._clock())

    async def _read_due(self) -> None:
        due = self._clock() - self._pace.read_seconds
        room = asyncio.Semaphore(self._pace.concurrency)

        async def one(read: Callable[[], Awaitable[None]]) -> None:
            async with room:
                await self._granted(self._reads)
                if self._may_write():
                    await read()

        namespaces = {ref.namespace for ref in self._targets}
        jobs = [
            one(lambda namespace=namespace: self._read_writers(namespace))  # type: ignore[misc]
            for namespace in sorted(namespaces)
            if self._writers.get(namespace, (float("-inf"), None))[0] <= due
        ]
        jobs += [
            one(lambda target=target: self._read_target(target))  # type: ignore[misc]
            for target in self._targets.values()
            if target.read_at <= due and target.task is None
        ]
        await asyncio.gather(*jobs)

    async def _read_writers(self, namespace: str) -> None:
        before, now = self._writers.get(namespace), self._clock()
        absent = {kind for kind, until in self._absent.items() if now < until}
        try:
            writers = await read_writers(self._api, namespace, self._pace.read_timeout_seconds, absent)
        except KubeError as error:
            self._counts["unread"] += 1
            _log.debug("scale: the autoscalers of %s are not known: %s", namespace, error)
            if before is not None:
                self._writers[namespace] = (self._clock(), before[1])
            return
        self._absent |= dict.fromkeys(writers.absent, now + self._pace.missing_seconds)
        if self._may_write():
            self._writers[namespace] = (self._clock(), writers)

    async def _read_target(self, target: _Target) -> None:
        """Look at a target; what is known stays where nobody answers, and where we have set it meanwhile."""
        self._counts["read"] += 1
        before = target.version
        try:
            path = await self._path(target.ref)
            scale = await self._api.request("GET", path, timeout_seconds=self._pace.read_timeout_seconds)
            if target.version == before:
                target.accept(scale, self._clock())
                target.failed = ""  # it is what it is; who still wants another number asks again
        except KubeError as error:
            self._counts["unread"] += 1
            target.read_at = self._clock()
            if isinstance(error, ApiError) and not error.passing:
                self._refused(target, error)

    def _refused(self, target: _Target, error: ApiError) -> None:
        target.problem = {404: reasons.TARGET_NOT_FOUND, 403: reasons.TARGET_FORBIDDEN}.get(error.status, reasons.SCALE_FAILED)
        target.message = str(error)

    async def _path(self, ref: TargetRef) -> str:
        """Where the target's scale is. Raises `ApiError` 404 for a kind that is not served, or has none."""
        key = (ref.api_version, ref.kind)
        known_at, plural = self._plurals.get(key, (float("-inf"), None))
        fresh = self._pace.resource_seconds if plural else self._pace.missing_seconds
        base = f"/api/{ref.api_version}" if "/" not in ref.api_version else f"/apis/{ref.api_version}"
        if self._clock() - known_at > fresh:
            try:
                served = await self._api.request("GET", base, timeout_seconds=self._pace.read_timeout_seconds)
            except ApiError as error:
                if error.status != 404:
                    raise
                served = {}
            plural = scalable(served, ref.kind)
            self._plurals[key] = (self._clock(), plural)
        if plural is None:
            raise ApiError(404, "NotFound", f"{ref.api_version} has no kind {ref.kind} with a scale subresource")
        return f"{base}/namespaces/{ref.namespace}/{plural}/{ref.name}/scale"

    # -- setting

    async def _carry_out(self, target: _Target) -> None:
        failures = 0
        try:
            while (asked := target.asked) is not None and self._wanted(asked):
                try:
                    await self._granted(self._writes)
                    await self._set(target, asked)
                    failures = 0
                except KubeError as error:
                    self._counts["failed"] += 1
                    _log.log(
                        logging.DEBUG if failures else logging.WARNING,
                        "scale: %s in %s: %s",
                        target.ref,
                        target.ref.namespace,
                        error,
                    )
                    target.failed = str(error)
                    if isinstance(error, ApiError) and error.status == 404:
                        self._refused(target, error)
                        break
                    failures += 1
                    await asyncio.sleep(self._delay(failures))
        finally:
            target.asked = target.task = None

    def _wanted(self, asked: _Asked) -> bool:
        return self._may_write() and self._clock() - asked.again_at <= self._pace.fresh_seconds

    def _delay(self, failures: int) -> float:
        pace = self._pace
        return min(pace.retry_max_seconds, pace.retry_base_seconds * 2.0 ** min(failures, 10)) * self._rng.uniform(0.75, 1.0)

    async def _set(self, target: _Target, asked: _Asked) -> None:
        """One request; also none, where the target is not what the decision was about."""
        path = await self._path(target.ref)
        if not target.seen:
            target.accept(await self._api.request("GET", path), self._clock())
        if asked.basis is None:
            asked.basis = target.replicas
        if target.replicas != asked.basis or target.replicas == asked.replicas:
            self._counts["void"] += target.replicas != asked.basis
            self._settle(target, asked)
            return
        if asked.replicas < target.replicas and self._before_fewer is not None:
            await self._before_fewer(target.ref)
            if target.asked is not asked or not self._wanted(asked):
                return
        before = target.replicas
        body = {"metadata": {"resourceVersion": target.version}, "spec": {"replicas": asked.replicas}}
        try:
            scale = await self._api.request("PATCH", path, body, params={"fieldManager": FIELD_MANAGER}, content_type=MERGE_PATCH)
        except ApiError as error:
            if error.status != 409:
                raise
            self._counts["conflict"] += 1
            target.accept(await self._api.request("GET", path), self._clock())
            return
        now = self._clock()
        target.accept(scale, now)
        target.failed = ""
        self._counts["set"] += 1
        self._scaled_at[target.ref] = self._wall_clock().timestamp()
        _log.info(
            "scale: %s in %s: %d -> %d, %.0f ms after it was asked for",
            target.ref, target.ref.namespace, before, asked.replicas, (now - asked.at) * 1000,
        )  # fmt: skip
        self._settle(target, asked)

    @staticmethod
    def _settle(target: _Target, asked: _Asked) -> None:
        """This is done with; what was asked for meanwhile is not."""
        if target.asked is asked:
            target.asked = None

    def info(self) -> dict[str, Any]:
        """What is known of each target, and counts."""
        return {
            "targets": {
                f"{ref.namespace}/{ref}": {
                    "replicas": target.replicas if target.seen else None,
                    "problem": target.problem or target.failed,
                    "set_at": self._scaled_at.get(ref),
                }
                for ref, target in sorted(self._targets.items(), key=lambda item: str(item[0]))
            },
            "autoscalers": {name: sorted(writers.by_target.values()) for name, (_, writers) in sorted(self._writers.items())},
            "counts": dict(self._counts),
        }


def scalable(served: Any, kind: str) -> str | None:
    """The plural of a kind that has a scale, by what its group says that it serves."""
    names = {str(each.get("name")): str(each.get("kind")) for each in (served or {}).get("resources") or ()}
    return next((name for name, of in names.items() if of == kind and "/" not in name and f"{name}/scale" in names), None)
