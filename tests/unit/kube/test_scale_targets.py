"""Replicas through the scale subresource: what is read and how often, one writer, no decision carried out on what has changed since."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from spillway_operator.kube.api import ApiError, UnreachableError
from spillway_operator.kube.autoscalers import targets_of
from spillway_operator.kube.scale import KubeScaleTargets, ScalePace, scalable
from spillway_operator.scaling.ports import TargetRef, TargetState

REF = TargetRef("ml", "llama")
APPS = {
    "resources": [
        {"name": "deployments", "kind": "Deployment"},
        {"name": "deployments/scale", "kind": "Scale"},
        {"name": "daemonsets", "kind": "DaemonSet"},
    ]
}
DEPLOYMENT = "/apis/apps/v1/namespaces/ml/deployments/llama/scale"
HPAS = "/apis/autoscaling/v2/namespaces/ml/horizontalpodautoscalers"
SCALED_OBJECTS = "/apis/keda.sh/v1alpha1/namespaces/ml/scaledobjects"


class Server:
    """One Deployment with a scale, autoscalers, and errors by path on demand."""

    def __init__(self) -> None:
        self.replicas, self.version = 2, 7
        self.pages: dict[str, Any] = {"/apis/apps/v1": APPS, HPAS: {"items": []}}
        self.errors: dict[tuple[str, str], ApiError | UnreachableError] = {}
        self.asked: Counter[str] = Counter()
        self.patches: list[Any] = []
        self.before_patch: Callable[[], None] = lambda: None

    def set(self, replicas: int) -> None:
        self.replicas, self.version = replicas, self.version + 1

    @property
    def scale(self) -> dict[str, Any]:
        # As the API server writes it: no replicas where there are none.
        spec = {"replicas": self.replicas} if self.replicas else {}
        return {"metadata": {"name": "llama", "resourceVersion": str(self.version)}, "spec": spec}

    async def request(self, method: str, path: str, body: Any = None, **_: Any) -> Any:
        await asyncio.sleep(0)
        self.asked[f"{method} {path}"] += 1
        if (error := self.errors.get((method, path))) is not None:
            raise error
        if path in self.pages:
            return self.pages[path]
        if path != DEPLOYMENT:
            raise ApiError(404, "NotFound", f"{path} is not there")
        if method == "PATCH":
            self.before_patch()
            self.patches.append(body)
            if body["metadata"]["resourceVersion"] != str(self.version):
                raise ApiError(409, "Conflict", "it was changed")
            self.set(body["spec"]["replicas"])
        return self.scale


class Bench:
    def __init__(self, before_fewer: Callable[[TargetRef], Awaitable[None]] | None = None, **pace: Any) -> None:
        self.server = Server()
        self.leads = True
        self.now = 1000.0
        quick = {"retry_base_seconds": 0.001, "retry_max_seconds": 0.001, "writes_per_second": 1e6}
        self.targets = KubeScaleTargets(
            self.server,  # type: ignore[arg-type]
            may_write=lambda: self.leads,
            clock=lambda: self.now,
            wall_clock=lambda: datetime(2026, 1, 31, tzinfo=UTC),
            rng=random.Random(1),
            before_fewer=before_fewer,
            pace=ScalePace(**{**quick, **pace}),
        )
        self.task = asyncio.create_task(self.targets.run())

    @property
    def state(self) -> TargetState | None:
        return self.targets.state(REF)

    async def known(self, ref: TargetRef = REF) -> TargetState:
        self.targets.retain([ref])
        await until(lambda: self.targets.state(ref) is not None)
        found = self.targets.state(ref)
        assert found is not None
        return found

    async def later(self, seconds: float = 5.0) -> None:
        """The next time that targets are read."""
        self.now += seconds
        self.targets.begin_term()
        await settled()


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(5):
        while True:
            if check():
                return
            await asyncio.sleep(0)


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    made.task.cancel()
    await asyncio.wait({made.task})


async def test_a_target_is_known_once_it_and_its_autoscalers_are_read(bench: Bench):
    assert bench.state is None
    assert await bench.known() == TargetState(replicas=2)


async def test_at_rest_a_target_is_one_request_in_five_seconds(bench: Bench):
    await bench.known()
    await settled()
    for _ in range(10):
        await bench.later(1.0)
    assert bench.server.asked[f"GET {DEPLOYMENT}"] == 3
    assert bench.server.asked[f"GET {HPAS}"] == 3
    assert bench.server.asked["GET /apis/apps/v1"] == 1
    assert bench.server.asked[f"GET {SCALED_OBJECTS}"] == 1, "which is not installed"


async def test_without_targets_nothing_is_asked(bench: Bench):
    await bench.later()
    assert not bench.server.asked
    await bench.known()
    bench.targets.retain([])
    before = bench.server.asked.total()
    await bench.later()
    assert bench.server.asked.total() == before
    assert bench.state is None


async def test_who_does_not_lead_asks_and_sets_nothing(bench: Bench):
    bench.leads = False
    bench.targets.retain([REF])
    await bench.later()
    assert not bench.server.asked
    bench.leads = True
    bench.targets.begin_term()
    await bench.known()
    bench.leads = False
    bench.targets.scale(REF, 5)
    await settled()
    assert bench.server.patches == []


async def test_replicas_are_set_at_once_and_by_the_version_that_was_read(bench: Bench):
    await bench.known()
    bench.targets.scale(REF, 5)
    await until(lambda: bench.state == TargetState(replicas=5))
    assert bench.server.patches == [{"metadata": {"resourceVersion": "7"}, "spec": {"replicas": 5}}]
    assert bench.targets.info()["targets"]["ml/Deployment/llama"]["set_at"] == datetime(2026, 1, 31, tzinfo=UTC).timestamp()


async def test_none_is_a_number_too(bench: Bench):
    await bench.known()
    bench.targets.scale(REF, 0)
    await until(lambda: bench.state == TargetState(replicas=0))
    bench.targets.scale(REF, 1)
    await until(lambda: bench.state == TargetState(replicas=1))


async def test_a_change_of_something_else_in_the_object_costs_another_request(bench: Bench):
    await bench.known()
    bench.server.set(2)
    bench.targets.scale(REF, 3)
    await until(lambda: bench.state == TargetState(replicas=3))
    assert [patch["metadata"]["resourceVersion"] for patch in bench.server.patches] == ["7", "8"]


async def test_a_decision_is_void_where_somebody_has_set_another_number(bench: Bench):
    await bench.known()
    bench.server.set(6)
    bench.targets.scale(REF, 3)
    await until(lambda: bench.state == TargetState(replicas=6))
    await settled()
    assert bench.server.replicas == 6
    assert len(bench.server.patches) == 1
    assert bench.targets.info()["counts"]["void"] == 1


async def test_the_latest_wish_counts(bench: Bench):
    await bench.known()
    for wanted in range(3, 10):
        bench.targets.scale(REF, wanted)
    await until(lambda: bench.server.replicas == 9)
    assert [patch["spec"]["replicas"] for patch in bench.server.patches] == [9]


async def test_what_fails_is_tried_again_and_told_of(bench: Bench):
    await bench.known()
    bench.server.errors["PATCH", DEPLOYMENT] = UnreachableError("no answer in 5 s")
    bench.targets.scale(REF, 3)
    await until(lambda: bench.state == TargetState(replicas=2, problem="ScaleFailed", message="no answer in 5 s"))
    del bench.server.errors["PATCH", DEPLOYMENT]
    await until(lambda: bench.state == TargetState(replicas=3))


async def test_an_old_wish_is_not_carried_out(bench: Bench):
    await bench.known()
    bench.server.errors["PATCH", DEPLOYMENT] = ApiError(503, "ServiceUnavailable", "later")
    bench.targets.scale(REF, 3)
    await until(lambda: bench.state is not None and bench.state.problem)
    bench.now += 7.0
    await until(lambda: not bench.targets._targets[REF].task)
    bench.server.errors.clear()
    await bench.later()
    assert bench.state == TargetState(replicas=2)


async def test_what_is_not_there_may_not_be_read_or_has_no_scale_is_a_problem_with_a_name(bench: Bench):
    bench.server.errors["GET", DEPLOYMENT] = ApiError(404, "NotFound", "no llama")
    assert await bench.known() == TargetState(problem="TargetNotFound", message="404 NotFound: no llama")
    bench.server.errors["GET", DEPLOYMENT] = ApiError(403, "Forbidden", "not you")
    await bench.later()
    assert bench.state == TargetState(problem="TargetForbidden", message="403 Forbidden: not you")
    bench.server.errors.clear()
    await bench.later()
    assert bench.state == TargetState(replicas=2)
    found = await bench.known(TargetRef("ml", "llama", kind="DaemonSet"))
    assert found.problem == "TargetNotFound"
    assert found.message == "404 NotFound: apps/v1 has no kind DaemonSet with a scale subresource"
    found = await bench.known(TargetRef("ml", "llama", api_version="example.com/v1", kind="Fleet"))
    assert found.problem == "TargetNotFound"


async def test_what_is_known_stays_while_nobody_answers(bench: Bench):
    await bench.known()
    for path in (DEPLOYMENT, HPAS):
        bench.server.errors["GET", path] = UnreachableError("no answer")
    for _ in range(3):
        await bench.later()
    assert bench.state == TargetState(replicas=2)


def hpa(name: str, /, **reference: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"scaleTargetRef": reference}}


async def test_an_autoscaler_of_the_same_target_is_named(bench: Bench):
    others = [hpa("other", apiVersion="apps/v1", kind="Deployment", name="mistral"), hpa("set", kind="StatefulSet", name="llama")]
    bench.server.pages[HPAS] = {"items": others}
    assert (await bench.known()).other_writer == ""
    bench.server.pages[HPAS] = {"items": [*others, hpa("one", apiVersion="apps/v1beta2", kind="Deployment", name="llama")]}
    await bench.later()
    assert bench.state == TargetState(replicas=2, other_writer="HorizontalPodAutoscaler/one")
    bench.server.pages[SCALED_OBJECTS] = {"items": [hpa("two", name="llama")]}
    await bench.later(30.0)
    assert bench.state == TargetState(replicas=2, other_writer="ScaledObject/two")
    bench.server.pages |= {HPAS: {"items": []}, SCALED_OBJECTS: {}}
    await bench.later()
    assert bench.state == TargetState(replicas=2)


async def test_where_autoscalers_may_not_be_read_nobody_can_say_that_we_are_the_only_writer(bench: Bench):
    bench.server.errors["GET", HPAS] = ApiError(403, "Forbidden", "not you")
    bench.server.pages["/apis/autoscaling/v2"] = {"resources": []}
    assert (await bench.known()).problem == "TargetForbidden"


async def test_without_rights_to_what_is_not_installed_there_is_nothing_amiss(bench: Bench):
    """Who lacks the right is refused before anybody looks whether there is such a kind."""
    bench.server.errors["GET", SCALED_OBJECTS] = ApiError(403, "Forbidden", "not you")
    assert await bench.known() == TargetState(replicas=2)
    bench.server.pages["/apis/keda.sh/v1alpha1"] = {"resources": []}
    await bench.later(30.0)
    found = bench.state
    assert found is not None
    assert found.problem == "TargetForbidden"


async def test_a_term_begins_with_nothing_known(bench: Bench):
    await bench.known()
    bench.leads = False
    bench.targets.clear()
    assert bench.state is None
    bench.server.set(4)
    bench.leads = True
    bench.targets.begin_term()
    await until(lambda: bench.state == TargetState(replicas=4))


async def test_before_replicas_are_taken_away_something_is_awaited():
    went: list[TargetRef] = []
    gate = asyncio.Event()

    async def before(ref: TargetRef) -> None:
        went.append(ref)
        await gate.wait()

    bench = Bench(before)
    await bench.known()
    bench.targets.scale(REF, 3)
    await until(lambda: bench.server.replicas == 3)
    assert went == []
    bench.targets.scale(REF, 1)
    await settled()
    assert (went, bench.server.replicas) == ([REF], 3)
    gate.set()
    await until(lambda: bench.server.replicas == 1)
    bench.task.cancel()
    await asyncio.wait({bench.task})


def test_strange_shapes_raise_nothing():
    assert list(targets_of("HorizontalPodAutoscaler", None)) == []
    assert list(targets_of("ScaledObject", {"items": [{}]})) == [(("apps", "Deployment", ""), "ScaledObject/")]
    assert scalable(None, "Deployment") is None
    assert scalable({"resources": [{"name": "deployments/status", "kind": "Deployment"}]}, "Deployment") is None
