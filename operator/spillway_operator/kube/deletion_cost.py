"""The annotation `controller.kubernetes.io/pod-deletion-cost`: which pod a ReplicaSet takes first when replicas are taken away.

It follows what pods have under way (`scaling.victims`), on the pods of backends that are scaled, also where another autoscaler sets the
replicas: few writes, since each is one to the API server and every watcher of pods. A pod is written when its cost differs enough from
the one that the watch shows, all of them together within a budget. Where we take replicas away ourselves, `settle` writes before what
misleads at that moment, for a second at most: who goes is then chosen by what is under way now.

It is written through the pod's `status` subresource, which takes annotations and leaves the spec alone: a right to `patch pods` would be one
to run any image as any pod's service account. A StatefulSet takes its last pod whatever the cost is: its pods are left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from spillway_operator.kube.api import ApiError, KubeApi, KubeError
from spillway_operator.kube.budget import TokenBucket
from spillway_operator.kube.scale import FIELD_MANAGER, MERGE_PATCH
from spillway_operator.scaling import victims
from spillway_operator.scaling.ports import TargetRef

_ORDERED: Final = "StatefulSet"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Replica:
    """A pod of a target. `tokens`: what it has under way, None where nobody knows; `standing`: its annotation as the watch shows it."""

    namespace: str
    name: str
    tokens: int | None
    standing: int


@dataclass(frozen=True, slots=True)
class CostPace:
    """How often and how much."""

    look_seconds: float = 2.0
    writes_per_second: float = 0.5  # of all pods together: 30 a minute
    write_burst: int = 20
    settle_seconds: float = 1.0
    concurrency: int = 8
    shown_seconds: float = 10.0  # until the watch must have shown what was written


class DeletionCosts:
    """Costs of one cluster's pods. `replicas` tells the pods of the targets that there are."""

    def __init__(
        self,
        api: KubeApi,
        *,
        replicas: Callable[[], Mapping[TargetRef, Sequence[Replica]]],
        may_write: Callable[[], bool],
        clock: Callable[[], float],
        pace: CostPace | None = None,
    ) -> None:
        self._api = api
        self._replicas = replicas
        self._may_write = may_write
        self._clock = clock
        self._pace = pace or CostPace()
        self._budget = TokenBucket(per_second=self._pace.writes_per_second, burst=self._pace.write_burst)
        self._work: dict[tuple[str, str], victims.Work] = {}
        self._written: dict[tuple[str, str], tuple[float, int]] = {}
        self._counts: Counter[str] = Counter()
        self._refused = ""

    async def run(self) -> None:
        """Follows for ever."""
        while True:
            await asyncio.sleep(self._pace.look_seconds)
            await self.look()

    async def look(self) -> None:
        """Note what there is to do, and write what differs enough, within the budget."""
        if not self._may_write():
            self._work.clear()
            self._written.clear()
            return
        now = self._clock()
        due = []
        seen = set()
        for replica in self._chosen_from():
            place = (replica.namespace, replica.name)
            seen.add(place)
            if replica.tokens is None:
                continue
            work = self._work.setdefault(place, victims.Work(now))
            work.observe(now, replica.tokens)
            found = victims.cost(work.busy, work.warm)
            if victims.differs(self._standing(replica, now), found):
                due.append((replica, found))
        for gone in self._work.keys() - seen:
            del self._work[gone]
            self._written.pop(gone, None)
        for replica, found in due:
            if self._budget.take(self._clock()) > 0:
                self._counts["put_off"] += 1
                break
            await self._write(replica, found)

    def _chosen_from(self) -> list[Replica]:
        return [replica for ref, replicas in self._replicas().items() if ref.kind != _ORDERED for replica in replicas]

    async def settle(self, ref: TargetRef) -> None:
        """Before replicas of a target are taken away: let its costs be those of this moment."""
        if ref.kind == _ORDERED:
            return
        now = self._clock()
        due = []
        for replica in self._replicas().get(ref, ()):
            if replica.tokens is None:
                continue
            work = self._work.get((replica.namespace, replica.name))
            found = victims.cost(replica.tokens, work.warm if work is not None else 0.0)
            if victims.misleads(self._standing(replica, now), found):
                due.append((found, replica))
        room = asyncio.Semaphore(self._pace.concurrency)

        async def one(replica: Replica, found: int) -> None:
            async with room:
                await self._write(replica, found)

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._pace.settle_seconds):
                await asyncio.gather(*(one(replica, found) for found, replica in sorted(due, key=lambda each: each[0])))

    def _standing(self, replica: Replica, now: float) -> int:
        at, written = self._written.get((replica.namespace, replica.name), (float("-inf"), 0))
        return written if now - at < self._pace.shown_seconds else replica.standing

    async def _write(self, replica: Replica, found: int) -> None:
        path = f"/api/v1/namespaces/{replica.namespace}/pods/{replica.name}/status"
        body = {"metadata": {"annotations": {victims.ANNOTATION: str(found)}}}
        try:
            await self._api.request("PATCH", path, body, params={"fieldManager": FIELD_MANAGER}, content_type=MERGE_PATCH)
        except KubeError as error:
            self._counts["failed"] += 1
            if isinstance(error, ApiError) and error.status == 403 and not self._refused:
                self._refused = str(error)
                _log.warning("deletion cost: which pods go first is left to chance: %s", error)
            return
        self._counts["written"] += 1
        self._refused = ""
        self._written[replica.namespace, replica.name] = (self._clock(), found)

    def info(self) -> dict[str, Any]:
        """Pods that are followed, and counts."""
        return {"pods": len(self._work), "refused": self._refused, "counts": dict(self._counts)}
