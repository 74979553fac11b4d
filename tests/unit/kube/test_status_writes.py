"""Statuses to the API server: the newest only, conditions first, within the budget, while we lead; and what is told as Events."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from spillway_operator.api import BackendLoad, BackendStatus, Condition, ObjectKey, ReplicaCounts, RouteStatus
from spillway_operator.kube.api import APPLY, ApiError, KubeError, UnreachableError
from spillway_operator.kube.budget import TokenBucket
from spillway_operator.kube.events import MAX_NOTE, EventRecorder, event_body
from spillway_operator.kube.status import ApplySink, WriteBudget, apply_body, stands
from spillway_operator.kube.transitions import Transition, transitions

MOMENT = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
KEY = ObjectKey("ModelBackend", "ml", "fast")


def condition(name: str, status: str = "True", reason: str = "Because", message: str = "m", generation: int = 1) -> Condition:
    return Condition(
        type=name, status=status, reason=reason, message=message, observed_generation=generation, last_transition_time=MOMENT
    )


def backend(*conditions: Condition, running: int | None = None) -> BackendStatus:
    return BackendStatus(observed_generation=1, conditions=conditions, load=BackendLoad(running=running))


def route(*conditions: Condition) -> RouteStatus:
    return RouteStatus(observed_generation=1, conditions=conditions)


class Server:
    """Takes requests; `answer` may raise or wait."""

    def __init__(self) -> None:
        self.requests: list[tuple[str, str, Any, dict[str, Any]]] = []
        self.answer: Callable[[], Awaitable[None]] | None = None
        self.errors: list[KubeError] = []

    async def request(self, method: str, path: str, body: Any = None, **fields: Any) -> Any:
        self.requests.append((method, path, body, fields))
        if self.answer is not None:
            await self.answer()
        if self.errors:
            raise self.errors.pop(0)
        return {}


class Bench:
    def __init__(self, **budget: Any) -> None:
        self.server = Server()
        self.leads = True
        self.told: list[tuple[ObjectKey, Transition]] = []
        self.shown: dict[ObjectKey, BackendStatus | RouteStatus] = {}
        self.sink = ApplySink(
            self.server,  # type: ignore[arg-type]
            uid_of=lambda key: f"uid of {key.name}",
            shown=self.shown.get,
            may_write=lambda: self.leads,
            on_transition=lambda key, transition: self.told.append((key, transition)),
            clock=asyncio.get_running_loop().time,
            rng=random.Random(1),
            budget=WriteBudget(**{"retry_base_seconds": 0.01, **budget}),
        )
        self.task = asyncio.create_task(self.sink.run())

    @property
    def paths(self) -> list[str]:
        return [path.rpartition("/status")[0].rpartition("/")[2] for _, path, _, _ in self.server.requests]

    async def until(self, check: Callable[[], object]) -> None:
        async with asyncio.timeout(5):
            while True:
                if check():
                    return
                await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.task.cancel()
    await asyncio.wait({made.task})


async def test_a_status_is_applied_as_ours(bench: Bench):
    bench.sink.write(KEY, backend(condition("Ready")))
    await bench.until(lambda: bench.sink.info()["counts"].get("applied"))
    ((method, path, body, fields),) = bench.server.requests
    assert (method, path) == ("PATCH", "/apis/spillway.dev/v1alpha1/namespaces/ml/modelbackends/fast/status")
    assert fields == {"params": {"fieldManager": "spillway", "force": "true"}, "content_type": APPLY}
    assert body == apply_body(KEY, backend(condition("Ready")), "uid of fast")
    assert body["metadata"]["uid"] == "uid of fast"
    assert "spec" not in body


async def test_only_the_newest_of_an_object_leaves(bench: Bench):
    gate = asyncio.Event()
    bench.server.answer = gate.wait  # type: ignore[assignment]
    bench.sink.write(KEY, backend(running=1))
    await bench.until(lambda: bench.server.requests)
    for running in range(2, 50):
        bench.sink.write(KEY, backend(running=running))
    gate.set()
    await bench.until(lambda: bench.sink.info()["counts"].get("applied") == 2)
    assert [body["status"]["load"]["running"] for _, _, body, _ in bench.server.requests] == [1, 49]


async def test_conditions_go_before_figures():
    bench = Bench(concurrency=1)
    keys = [ObjectKey("ModelBackend", "ml", name) for name in ("a", "b", "c")]
    for key in keys:
        bench.sink.adopt(key, backend(condition("Ready")))
    bench.sink.write(keys[0], backend(condition("Ready"), running=1))
    bench.sink.write(keys[1], backend(condition("Ready"), running=1))
    bench.sink.write(keys[2], backend(condition("Ready", "False")))
    await bench.until(lambda: len(bench.server.requests) == 3)
    bench.task.cancel()
    await asyncio.wait({bench.task})
    assert bench.paths[0] == "c"


async def test_what_fails_for_a_passing_reason_is_tried_again(bench: Bench):
    bench.server.errors = [UnreachableError("away"), ApiError(503, "Unavailable", "later"), ApiError(409, "Conflict", "now")]
    bench.sink.write(KEY, backend(condition("Ready")))
    await bench.until(lambda: bench.sink.info()["counts"].get("applied"))
    assert len(bench.server.requests) == 4


ROUTE = ObjectKey("ModelRoute", "ml", "chat")
ON_ITS_WAY = condition("Programmed", "False", "Pending")


async def test_what_proxies_take_at_once_is_told_in_one_write():
    bench = Bench(pending_seconds=5.0)
    bench.sink.write(ROUTE, route(condition("Accepted"), ON_ITS_WAY))
    bench.sink.write(ROUTE, route(condition("Accepted"), condition("Programmed", "False", "Pending", "19 of 20")))
    for _ in range(10):
        await asyncio.sleep(0)
    assert bench.server.requests == []
    bench.sink.write(ROUTE, route(condition("Accepted"), condition("Programmed", "True", "Programmed")))
    await bench.until(lambda: bench.sink.info()["counts"].get("applied"))
    bench.task.cancel()
    await asyncio.wait({bench.task})
    ((_, _, body, _),) = bench.server.requests
    assert [each["status"] for each in body["status"]["conditions"]] == ["True", "True"]


async def test_a_proxy_that_lags_is_told_of():
    bench = Bench(pending_seconds=0.01)
    bench.sink.write(ROUTE, route(ON_ITS_WAY))
    await bench.until(lambda: bench.sink.info()["counts"].get("applied"))
    bench.task.cancel()
    await asyncio.wait({bench.task})


async def test_what_somebody_else_makes_of_a_status_is_put_right():
    bench = Bench(look_seconds=0.01)
    ours = backend(condition("Ready"))
    bench.sink.adopt(KEY, ours)
    bench.shown[KEY] = backend(condition("Ready", "False"))
    await bench.until(lambda: bench.sink.info()["counts"].get("corrected"))
    bench.shown[KEY] = ours
    await bench.until(lambda: bench.sink.info()["counts"].get("applied"))
    bench.task.cancel()
    await asyncio.wait({bench.task})
    assert bench.server.requests[-1][2] == apply_body(KEY, ours, "uid of fast")


@pytest.mark.parametrize(
    ("shown", "as_we_left_it"),
    [
        (None, False),
        (backend(condition("Ready"), condition("Reachable")), True),
        (backend(condition("Reachable"), condition("Ready"), condition("Audited")), True),  # another's is another's
        (backend(condition("Ready")), False),
        (backend(condition("Ready"), condition("Reachable", message="else")), False),
        (backend(condition("Ready"), condition("Reachable"), running=1), False),
    ],
)
def test_what_counts_as_another_status(shown: BackendStatus | None, as_we_left_it: bool):
    assert stands(backend(condition("Ready"), condition("Reachable")), shown) is as_we_left_it


@pytest.mark.parametrize(("status", "count"), [(404, "gone"), (422, "refused"), (400, "refused")])
async def test_what_will_not_change_is_not_repeated(bench: Bench, status: int, count: str):
    bench.server.errors = [ApiError(status, "x", "y")]
    bench.sink.write(KEY, backend(condition("Ready")))
    await bench.until(lambda: bench.sink.info()["counts"].get(count))
    assert bench.sink.info()["waiting"] == 0


async def test_whoever_does_not_lead_writes_nothing(bench: Bench):
    bench.leads = False
    bench.sink.write(KEY, backend(condition("Ready")))
    await bench.until(lambda: bench.sink.info()["counts"].get("not_leading"))
    assert bench.server.requests == []


async def test_a_term_that_ends_cuts_what_is_under_way(bench: Bench):
    cut = asyncio.Event()

    async def hang() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()

    bench.server.answer = hang
    bench.sink.write(KEY, backend())
    bench.sink.write(ObjectKey("ModelBackend", "ml", "other"), backend())
    await bench.until(lambda: bench.server.requests)
    bench.sink.clear()
    await bench.until(cut.is_set)
    assert bench.sink.info()["waiting"] == 0


def test_a_budget_is_a_burst_and_a_rate():
    bucket = TokenBucket(per_second=2.0, burst=3)
    assert [bucket.take(0.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert bucket.take(0.5) == 0.0
    assert bucket.take(0.5) > 0
    assert [bucket.take(1000.0) for _ in range(4)][:3] == [0.0, 0.0, 0.0]
    with pytest.raises(ValueError, match="budget"):
        TokenBucket(per_second=0, burst=1)


def replicas(desired: int, reason: str, status: str = "True") -> BackendStatus:
    counts = ReplicaCounts(current=2, desired=desired)
    return backend(condition("ScalingActive", status, reason)).model_copy(update={"replicas": counts})


PROGRAMMED = condition("Programmed", "True", "Programmed")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (None, route(PROGRAMMED), [("Normal", "Programmed")]),
        (route(PROGRAMMED), route(PROGRAMMED), []),
        (route(PROGRAMMED), route(condition("Programmed", "True", "Programmed", generation=2)), [("Normal", "Programmed")]),
        (route(PROGRAMMED), route(condition("Programmed", "False", "Pending")), []),
        (route(PROGRAMMED), route(condition("Programmed", "False", "Rejected", "route/x: bad")), [("Warning", "Rejected")]),
        (route(condition("Programmed", "False", "Rejected")), route(condition("Programmed", "False", "Rejected")), []),
        (route(condition("Accepted")), route(condition("Accepted", "False", "Conflicted")), [("Warning", "Conflicted")]),
        (None, route(condition("Accepted", "False", "Invalid")), [("Warning", "Invalid")]),
        (None, route(condition("Accepted")), []),
        (route(condition("Accepted", "False", "Conflicted")), route(condition("Accepted")), [("Normal", "Accepted")]),
        (None, route(condition("ResolvedRefs", "False", "BackendNotFound")), [("Warning", "BackendNotFound")]),
        (None, route(condition("SpillActive", "False")), []),
        (None, route(condition("SpillActive")), [("Normal", "SpillBegan")]),
        (route(condition("SpillActive")), route(condition("SpillActive", message="other")), []),
        (route(condition("SpillActive")), route(condition("SpillActive", "False")), [("Normal", "SpillOver")]),
        (route(condition("FallbackActive", "False")), route(condition("FallbackActive")), [("Warning", "FellBack")]),
        (route(condition("FallbackActive")), route(condition("FallbackActive", "False")), [("Normal", "FallbackOver")]),
        (route(condition("FallbackActive")), route(), []),
        (None, backend(condition("Ready")), [("Normal", "BackendReady")]),
        (None, backend(condition("Ready", "False")), []),
        (backend(condition("Ready")), backend(condition("Ready", "False", "NoEndpoints")), [("Warning", "BackendLost")]),
        (backend(condition("Ready")), backend(condition("Ready", message="other")), []),
        (backend(), backend(condition("Injected", "False", "SidecarMissing")), [("Warning", "SidecarMissing")]),
        (replicas(2, "Steady"), replicas(4, "Raised"), [("Normal", "Scaled")]),
        (replicas(4, "Raised"), replicas(4, "Steady"), []),
        (backend(), replicas(4, "Steady"), []),
        (replicas(2, "Steady"), replicas(4, "ConflictingAutoscaler", "False"), [("Warning", "ConflictingAutoscaler")]),
        (replicas(2, "ConflictingAutoscaler", "False"), replicas(4, "ConflictingAutoscaler", "False"), []),
        (None, replicas(0, "TargetUnknown", "False"), []),
    ],
)
def test_turns_are_told(before: Any, after: Any, told: list[tuple[str, str]]):
    assert [(each.type, each.reason) for each in transitions(before, after)] == told


class Recorder:
    def __init__(self, **fields: Any) -> None:
        self.server = Server()
        self.now = 0.0
        self.recorder = EventRecorder(
            self.server,  # type: ignore[arg-type]
            identity="one",
            uid_of=lambda _: "u",
            may_write=lambda: True,
            clock=lambda: self.now,
            wall_clock=lambda: MOMENT,
            **fields,
        )

    async def run(self) -> None:
        task = asyncio.create_task(self.recorder.run())
        for _ in range(100):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})


TURN = Transition("Normal", "Programmed", "Program", "it runs")


async def test_an_event_is_told_once_in_a_while():
    bench = Recorder(quiet_seconds=600)
    for _ in range(5):
        bench.recorder.record(KEY, TURN)
    await bench.run()
    assert len(bench.server.requests) == 1
    bench.now = 601
    bench.recorder.record(KEY, TURN)
    await bench.run()
    assert len(bench.server.requests) == 2


async def test_a_flood_of_events_is_bounded():
    bench = Recorder(queue_length=10, per_second=0.001, burst=3)
    for number in range(100):
        bench.recorder.record(KEY, Transition("Normal", "X", "Y", str(number)))
    await bench.run()
    info = bench.recorder.info()
    assert (info["posted"], info["queued"], info["dropped"]) == (3, 7, 90)


def test_an_event_is_as_the_api_takes_it():
    body = event_body(KEY, Transition("Warning", "R", "A", "n" * 5000), MOMENT, uid="u", identity="one", suffix="s")
    assert body["eventTime"] == "2026-01-31T12:00:00.000000Z"
    assert len(body["note"]) == MAX_NOTE
    assert body["regarding"]["uid"] == "u"
    assert body["metadata"]["name"] == "fast.s"
