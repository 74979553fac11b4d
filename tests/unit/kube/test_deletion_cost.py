"""Costs of pods: few writes, by what is under way; all that misleads before replicas are taken away."""

from __future__ import annotations

import asyncio
from typing import Any

from spillway_operator.kube.api import ApiError, KubeError
from spillway_operator.kube.deletion_cost import CostPace, DeletionCosts, Replica
from spillway_operator.scaling.ports import TargetRef

REF = TargetRef("ml", "llama")


class Bench:
    def __init__(self, **pace: Any) -> None:
        self.now = 1000.0
        self.leads = True
        self.tokens: dict[str, int | None] = {}
        self.shown: dict[str, int] = {}
        self.written: list[tuple[str, int]] = []
        self.error: KubeError | None = None
        self.hangs = False
        self.kind = "Deployment"
        self.costs = DeletionCosts(
            self,  # type: ignore[arg-type]
            replicas=self.replicas,
            may_write=lambda: self.leads,
            clock=lambda: self.now,
            pace=CostPace(**pace),
        )

    @property
    def ref(self) -> TargetRef:
        return TargetRef("ml", "llama", kind=self.kind)

    def replicas(self) -> dict[TargetRef, list[Replica]]:
        return {self.ref: [Replica("ml", name, tokens, self.shown.get(name, 0)) for name, tokens in self.tokens.items()]}

    async def request(self, method: str, path: str, body: Any, **fields: Any) -> None:
        assert (method, fields["content_type"]) == ("PATCH", "application/merge-patch+json")
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        start, name, end = path.rsplit("/", 2)
        assert (start, end) == ("/api/v1/namespaces/ml/pods", "status")
        ((annotation, value),) = body["metadata"]["annotations"].items()
        assert annotation == "controller.kubernetes.io/pod-deletion-cost"
        self.written.append((name, int(value)))
        self.shown[name] = int(value)

    async def run(self, seconds: float) -> None:
        for _ in range(round(seconds / 2)):
            self.now += 2.0
            await self.costs.look()


async def test_a_busy_pod_costs_and_an_idle_one_does_not():
    bench = Bench()
    bench.tokens = {"busy": 4000, "idle": 0}
    await bench.run(60)
    assert bench.shown["busy"] > 10_000
    assert "idle" not in bench.shown
    writes = len(bench.written)
    await bench.run(60)
    assert len(bench.written) - writes <= 2
    bench.tokens["busy"] = 0
    await bench.run(600)
    assert 0 < bench.shown["busy"] < 1000, "idle, with a warm cache"


async def test_steady_traffic_of_short_requests_is_not_a_stream_of_writes():
    bench = Bench()
    bench.tokens = {"one": 0}
    for turn in range(900):
        bench.tokens["one"] = 500 * (turn % 2)
        await bench.run(2)
    assert len(bench.written) < 20


async def test_all_pods_together_keep_within_a_budget():
    bench = Bench()
    for turn in range(30):
        bench.tokens = {f"pod-{number}": 100_000 * (turn % 2) for number in range(200)}
        await bench.run(2)
    assert 20 <= len(bench.written) <= 20 + 30


async def test_what_the_watch_shows_late_is_not_written_twice():
    bench = Bench()
    bench.tokens = {"one": 1000}
    await bench.costs.settle(REF)
    bench.shown.clear()
    await bench.costs.settle(REF)
    assert len(bench.written) == 1
    bench.now += 10.0
    await bench.costs.settle(REF)
    assert len(bench.written) == 2


async def test_what_somebody_else_made_of_it_is_put_right():
    bench = Bench()
    bench.tokens = {"one": 1000}
    await bench.run(60)
    bench.shown["one"] = -5
    await bench.run(12)
    assert bench.shown["one"] > 1000


async def test_what_nobody_knows_is_left_as_it_is():
    bench = Bench()
    bench.tokens, bench.shown = {"one": None}, {"one": 7000}
    await bench.run(60)
    await bench.costs.settle(REF)
    assert bench.written == []


async def test_who_does_not_lead_writes_nothing():
    bench = Bench()
    bench.tokens, bench.leads = {"one": 1000}, False
    await bench.run(60)
    assert bench.written == []


async def test_the_pods_of_a_stateful_set_are_left_alone():
    bench = Bench()
    bench.kind, bench.tokens = "StatefulSet", {"one": 1000}
    await bench.run(60)
    await bench.costs.settle(bench.ref)
    assert bench.written == []


async def test_at_the_moment_of_the_choice_all_that_misleads_is_written():
    bench = Bench()
    bench.tokens = {f"pod-{number}": 1000 for number in range(60)}
    bench.shown = dict.fromkeys(bench.tokens, 10_000)
    bench.tokens["pod-7"] = 0
    await bench.costs.settle(REF)
    assert bench.written == [("pod-7", 0)]
    bench.tokens = dict.fromkeys(bench.tokens, 10)
    await bench.costs.settle(REF)
    assert len(bench.written) == 61


async def test_nobody_waits_for_longer_than_was_said():
    bench = Bench(settle_seconds=0.01)
    bench.tokens, bench.hangs = {"one": 1000}, True
    async with asyncio.timeout(5):
        await bench.costs.settle(REF)
    assert bench.costs.info()["counts"] == {}


async def test_a_refusal_is_told_once_and_hinders_nothing():
    bench = Bench()
    bench.tokens, bench.error = {"one": 1000}, ApiError(403, "Forbidden", "not you")
    await bench.run(60)
    assert bench.costs.info()["refused"] == "403 Forbidden: not you"
    bench.error = None
    await bench.run(60)
    assert bench.costs.info()["refused"] == ""
    assert bench.shown["one"] > 1000
