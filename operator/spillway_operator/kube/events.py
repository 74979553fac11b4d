"""Kubernetes Events (events.k8s.io/v1), told once and within bounds.

The same transition of an object is not told again within ten minutes; a queue of bounded length is sent by one task, within a
budget; what does not fit is counted and dropped, because an Event is news, and the condition that it is about stands anyway.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from spillway_operator.api import API_VERSION, ObjectKey
from spillway_operator.kube.api import ApiError, KubeApi, KubeError
from spillway_operator.kube.budget import TokenBucket
from spillway_operator.kube.transitions import Transition

CONTROLLER: Final = "spillway.dev/operator"
MAX_NOTE: Final = 1024  # the API's own bound
_MAX_REMEMBERED: Final = 5000
_TRIES: Final = 3

_log = logging.getLogger(__name__)


class EventRecorder:
    """Takes transitions, posts Events while `may_write` says so."""

    def __init__(
        self,
        api: KubeApi,
        *,
        identity: str,
        uid_of: Callable[[ObjectKey], str],
        may_write: Callable[[], bool],
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime],
        per_second: float = 5.0,
        burst: int = 25,  # as Kubernetes' own components; statuses tell of a flood
        queue_length: int = 500,
        quiet_seconds: float = 600.0,
    ) -> None:
        self._api = api
        self._identity = identity[:128]
        self._uid_of = uid_of
        self._may_write = may_write
        self._clock = clock
        self._wall_clock = wall_clock
        self._budget = TokenBucket(per_second=per_second, burst=burst)
        self._queue: deque[tuple[ObjectKey, Transition, datetime]] = deque()
        self._queue_length = queue_length
        self._quiet_seconds = quiet_seconds
        self._told: OrderedDict[tuple[ObjectKey, str, str], float] = OrderedDict()
        self._wake = asyncio.Event()
        self._serial = 0
        self._posted = self._dropped = self._repeated = 0

    def record(self, key: ObjectKey, transition: Transition) -> None:
        """Tell of a transition. Never waits."""
        now = self._clock()
        mark = (key, transition.reason, transition.note)
        told = self._told.get(mark)
        if told is not None and now - told < self._quiet_seconds:
            self._repeated += 1
            return
        self._told[mark] = now
        self._told.move_to_end(mark)
        while len(self._told) > _MAX_REMEMBERED:
            self._told.popitem(last=False)
        if len(self._queue) >= self._queue_length:
            self._queue.popleft()
            self._dropped += 1
        self._queue.append((key, transition, self._wall_clock()))
        self._wake.set()

    def clear(self) -> None:
        """A term is over: what is not out is for the next leader to see by itself."""
        self._dropped += len(self._queue)
        self._queue.clear()

    async def run(self) -> None:
        """Posts for ever."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                wait = self._budget.take(self._clock())
                if wait > 0:
                    await asyncio.sleep(wait)
                    continue
                if not self._queue:
                    break
                key, transition, moment = self._queue.popleft()
                if not self._may_write():
                    self._dropped += 1
                    continue
                await self._post(key, transition, moment)

    async def _post(self, key: ObjectKey, transition: Transition, moment: datetime) -> None:
        self._serial += 1
        body = event_body(
            key, transition, moment, uid=self._uid_of(key), identity=self._identity, suffix=f"{int(moment.timestamp() * 1000):x}{self._serial:x}"
        )  # fmt: skip
        path = f"/apis/events.k8s.io/v1/namespaces/{key.namespace}/events"
        for attempt in range(1, _TRIES + 1):
            try:
                await self._api.request("POST", path, body)
            except KubeError as error:
                refused = isinstance(error, ApiError) and not (error.passing and error.status != 409)
                if refused or attempt == _TRIES or not self._may_write():
                    self._dropped += 1
                    _log.info("events: %s of %s is not told: %s", transition.reason, key, error)
                    return
                await asyncio.sleep(attempt)
            else:
                self._posted += 1
                return

    def info(self) -> dict[str, Any]:
        """Counts."""
        return {"queued": len(self._queue), "posted": self._posted, "dropped": self._dropped, "repeated": self._repeated}


def event_body(key: ObjectKey, transition: Transition, moment: datetime, *, uid: str, identity: str, suffix: str) -> dict[str, Any]:
    """The Event as the API takes it."""
    regarding = {"apiVersion": API_VERSION, "kind": key.kind, "namespace": key.namespace, "name": key.name}
    if uid:
        regarding["uid"] = uid
    note = transition.note if len(transition.note) <= MAX_NOTE else transition.note[: MAX_NOTE - 3] + "..."
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{key.name[:200]}.{suffix}", "namespace": key.namespace},
        "eventTime": moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
        "reportingController": CONTROLLER,
        "reportingInstance": identity,
        "type": transition.type,
        "reason": transition.reason,
        "action": transition.action,
        "note": note,
        "regarding": regarding,
    }
