"""The scaling loop over a core: what is asked of targets, when, and what is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from tests.fakes.operator_core import Bench, FakeTargets, backend, endpoint, route

from spillway_operator.api import BackendStatus, ModelBackend, ReplicaCounts
from spillway_operator.policies import reasons
from spillway_operator.reconcile.scaled_backend import policy_of
from spillway_operator.scaling.decider import Reason
from spillway_operator.scaling.ports import TargetState
from spillway_operator.scaling.rates import Rate, Rates, Select
from spillway_wire.loads import BackendTraffic, Demand, Load
from spillway_wire.names import Role
from spillway_wire.snapshot import Cluster

TICK_SECONDS = 2.0
EACH = 1000  # tokens a second of a busy replica


def scaled(name: str = "fast", *, spec: dict[str, Any] | None = None, **scaling: Any) -> ModelBackend:
    return backend(name, scaling={"targetRef": {"name": name}, "maxReplicas": 8, **scaling}, **(spec or {}))


class Plant:
    """Backends whose replicas are ready as soon as they are asked for, and a gateway before them."""

    def __init__(self, *models: ModelBackend, **replicas: int) -> None:
        self.targets = FakeTargets(**replicas)
        self.bench = Bench(targets=self.targets)
        self.bench.put(*models)
        self.names = [model.metadata.name for model in models]
        self.bench.publisher.connect("gateway", role=Role.GATEWAY)
        self.silent = False  # no report comes
        self.up: set[str] = set()

    def there(self, name: str) -> int:
        state = self.targets.states.get(name)
        return 0 if state is None else state.replicas

    def _replicas(self, name: str) -> list[str]:
        return [f"{name}-{index}" for index in range(self.there(name))]

    def _follow(self) -> None:
        self.bench.store.set_endpoints(
            {f"default/{name}": [endpoint(each) for each in self._replicas(name)] for name in self.names}
        )
        present = {each for name in self.names for each in self._replicas(name)}
        for gone in self.up - present:
            self.bench.publisher.disconnect(gone)
        for come in sorted(present - self.up):
            self.bench.publisher.connect(come)
        self.up = present

    def tick(self, tokens_per_second: dict[str, float] | float = 0.0, *, held: dict[str, int] | None = None) -> None:
        """Two seconds of so much demand, of which each replica serves what it can."""
        asked = tokens_per_second if isinstance(tokens_per_second, dict) else {self.names[0]: tokens_per_second}
        self._follow()
        if not self.silent:
            self._report(asked, held or {})
        self.bench.step(TICK_SECONDS)

    def _report(self, asked: dict[str, float], held: dict[str, int]) -> None:
        traffic, demand = [], []
        for name in self.names:
            rate, replicas = asked.get(name, 0.0), self._replicas(name)
            busy = rate > EACH * len(replicas)
            for each in replicas:
                load = Load(in_flight=min(8, int(rate)), engine_waiting=4 if busy else 0, max_concurrency=64, gpu_ratio=0.5)
                self.bench.report(each, load)
            served = int(TICK_SECONDS * min(rate, EACH * len(replicas)))
            if served:
                traffic.append(BackendTraffic("default/chat", "all", f"default/{name}", requests=5, output_tokens=served))
            if rate or name in held:
                demand.append(
                    Demand(
                        f"default/{name}",
                        in_flight=int(bool(rate)),
                        held=held.get(name, 0),
                        arrived_tokens=int(TICK_SECONDS * rate),
                    )
                )
        self.bench.report("gateway", traffic=tuple(traffic), demand=tuple(demand))

    def run(self, seconds: float, tokens_per_second: dict[str, float] | float = 0.0) -> Plant:
        for _ in range(int(seconds / TICK_SECONDS)):
            self.tick(tokens_per_second)
        return self

    def status(self, name: str = "fast") -> BackendStatus:
        found = self.bench.store.status(backend(name).key)
        assert isinstance(found, BackendStatus)
        return found

    def condition(self, name: str = "fast") -> tuple[str, str]:
        return self.bench.condition(backend(name), reasons.SCALING_ACTIVE)


def test_replicas_follow_the_load_up_at_once_and_down_late():
    plant = Plant(scaled(), fast=1).run(60, 900.0)
    assert plant.there("fast") == 1, "nothing is known of what a replica does at its limit, and it is not there"
    plant.run(60, 5000.0)
    assert plant.there("fast") == 7  # 5000 a second, at four fifths of what each does
    assert plant.status().summary.replicas == "7/7"
    replicas = plant.status().replicas
    assert replicas is not None
    assert replicas.tokens_per_second == pytest.approx(EACH, rel=0.15)
    assert plant.condition()[0] == "True"
    plant.run(240, 500.0)
    assert plant.there("fast") == 7
    assert plant.condition() == ("True", reasons.DELAYED)
    plant.run(300, 500.0)
    assert plant.there("fast") == 1
    plant.run(90, 0.0)
    assert plant.condition() == ("True", reasons.AT_LEAST)
    ups = plant.bench.metrics.scalings.labels(backend="default/fast", direction="up")._value.get()
    assert ups <= 4


def test_what_a_replica_does_is_taken_over_from_the_status_and_the_number_from_the_target():
    plant = Plant(scaled(), fast=3)
    plant.bench.store.set_status(scaled().key, BackendStatus(replicas=ReplicaCounts(current=9, desired=9, tokens_per_second=2000)))
    plant.run(90, 900.0)
    assert plant.status().replicas == ReplicaCounts(current=3, desired=3, tokens_per_second=2000)
    plant.bench.core.begin_term(8)
    plant.targets.states["fast"] = TargetState(5)
    plant.run(20, 900.0)
    assert plant.status().summary.replicas == "5/5"
    assert plant.condition() == ("True", reasons.PANIC), "who has just begun takes nothing away"


def test_a_new_leader_leaves_the_status_as_it_stands_until_it_knows_the_target():
    plant = Plant(scaled(replicas=3), fast=3).run(20, 900.0)
    known = plant.targets.states["fast"]
    before = plant.status()
    plant.targets.states["fast"] = None
    plant.bench.core.begin_term(8)
    plant.bench.step(1.0)
    assert plant.bench.world.scaled["default/fast"].facts.reason == reasons.TARGET_UNKNOWN
    assert (plant.condition(), plant.status().replicas) == (("True", reasons.PINNED), before.replicas)
    plant.targets.states["fast"] = known
    plant.run(4, 900.0)
    assert plant.condition() == ("True", reasons.PINNED)


def test_a_standby_asks_nothing():
    plant = Plant(scaled(minReplicas=2), fast=1)
    plant.bench.leads = False
    plant.run(10)
    assert plant.targets.asked == []
    plant.bench.leads = True
    plant.run(10)
    assert plant.targets.asked == [("fast", 2)]


def test_without_reports_what_there_is_stays():
    plant = Plant(scaled(), fast=1).run(120, 5000.0)
    plant.silent = True
    plant.run(1200)
    assert plant.there("fast") == 7
    assert plant.condition() == ("False", reasons.NO_DATA)
    plant.silent = False
    plant.run(20, 5000.0)
    assert plant.condition()[0] == "True"


def test_under_half_of_the_sidecars_is_no_measurement():
    plant = Plant(scaled(), fast=1).run(120, 5000.0)
    report = plant.bench.report
    heard = 4

    def some(name: str, *args: Any, **fields: Any) -> None:
        if not name.startswith("fast-") or int(name[5:]) < heard:
            report(name, *args, **fields)

    plant.bench.report = some  # type: ignore[method-assign]
    plant.run(20, 0.0)
    assert plant.bench.world.scaled["default/fast"].valid
    heard = 3
    plant.run(20, 0.0)
    assert not plant.bench.world.scaled["default/fast"].valid
    plant.run(900, 0.0)
    assert plant.there("fast") == 7


def test_who_may_not_go_down_does_not_go_to_zero():
    plant = Plant(scaled(minReplicas=0, idleAfter="10s", behavior={"scaleDown": {"selectPolicy": "Disabled"}}), fast=1)
    assert plant.run(600).there("fast") == 1


def test_from_zero_at_the_first_held_request_and_without_waiting_for_a_tick():
    plant = Plant(scaled(minReplicas=0), fast=0).run(20)
    assert plant.status().summary.replicas == "0/0"
    gateway = plant.bench.publisher.syncs["gateway"].node
    plant.bench.report("gateway", demand=(Demand("default/fast", held=1),))
    assert plant.bench.core._wake.is_set()
    plant.bench.step(0.001)
    assert plant.targets.asked == [("fast", 1)]
    plant.bench.step(0.1)
    assert plant.condition() == ("True", reasons.FROM_ZERO)
    assert gateway.role is Role.GATEWAY
    for _ in range(5):
        plant.tick(held={"fast": 200})
    assert plant.targets.asked == [("fast", 1)], "what is held is for the one that starts"


def test_to_zero_after_the_idle_delay_and_no_sooner():
    plant = Plant(scaled(minReplicas=0, idleAfter="2m"), fast=1).run(60, 500.0)
    plant.run(110)
    assert plant.there("fast") == 1
    plant.silent = True
    plant.run(60)
    plant.silent = False
    plant.run(100)
    assert plant.there("fast") == 1, "what was not known was no silence"
    plant.run(60)
    assert plant.there("fast") == 0
    plant.run(20)
    assert plant.condition() == ("True", reasons.IDLE)
    assert plant.bench.condition(scaled(), reasons.READY) == ("True", reasons.SCALED_TO_ZERO)


def test_a_pin_counts_until_it_is_removed():
    plant = Plant(scaled(replicas=4), fast=1).run(10, 500.0)
    assert plant.there("fast") == 4
    assert plant.condition() == ("True", reasons.PINNED)
    plant.bench.put(scaled())
    plant.run(900, 500.0)
    assert plant.there("fast") < 4, "half of the places in use are few"


def test_another_writer_is_left_alone_and_named():
    plant = Plant(scaled(), fast=1)
    plant.targets.states["fast"] = TargetState(1, other_writer="HorizontalPodAutoscaler/llama")
    plant.run(120, 5000.0)
    assert plant.targets.asked == []
    assert plant.condition() == ("False", reasons.CONFLICTING_AUTOSCALER)
    assert "HorizontalPodAutoscaler/llama" in plant.bench.message(scaled(), reasons.SCALING_ACTIVE)
    assert plant.status().summary.replicas == "1/7", "what we would have is published"
    plant.targets.states["fast"] = TargetState(1)
    plant.run(20, 5000.0)
    assert plant.there("fast") == 7


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (None, reasons.TARGET_UNKNOWN),
        (TargetState(problem=reasons.TARGET_NOT_FOUND), reasons.TARGET_NOT_FOUND),
        (TargetState(problem=reasons.TARGET_FORBIDDEN, message="may not"), reasons.TARGET_FORBIDDEN),
        (TargetState(2, problem=reasons.SCALE_FAILED, message="quota"), reasons.SCALE_FAILED),
    ],
)
def test_what_is_wrong_with_a_target_is_shown(state: TargetState | None, reason: str):
    plant = Plant(scaled(), fast=1)
    plant.targets.states["fast"] = state
    plant.run(10, 500.0)
    assert plant.condition() == ("False", reason)


def test_of_two_backends_with_one_target_the_older_scales_it():
    younger = backend("slow", scaling={"targetRef": {"name": "fast"}, "minReplicas": 5, "maxReplicas": 8})
    plant = Plant(scaled(), younger, fast=1).run(20, 500.0)
    assert plant.targets.asked == []
    assert plant.condition("slow") == ("False", reasons.TARGET_TAKEN)
    assert plant.condition("fast")[0] == "True"


def test_a_backend_that_makes_trouble_stands_still_and_the_other_goes_on():
    plant = Plant(scaled("fast"), scaled("slow", minReplicas=2), fast=1, slow=1)
    state = plant.targets.state
    plant.targets.state = lambda ref: 1 / 0 if ref.name == "fast" else state(ref)  # type: ignore[method-assign]
    plant.run(10)
    assert plant.targets.asked == [("slow", 2)]
    assert "ZeroDivisionError" in plant.bench.scaling.failures["default/fast"]


def test_a_target_that_is_slow_to_say_so_is_asked_for_the_same_and_not_for_more():
    plant = Plant(scaled(), fast=1)
    plant.run(60, 900.0)
    asked: list[int] = []
    plant.targets.scale = lambda ref, replicas: asked.append(replicas)  # type: ignore[method-assign]
    plant.run(40, 5000.0)
    assert asked == sorted(asked)
    assert max(asked) <= 7
    assert plant.bench.metrics.scalings.labels(backend="default/fast", direction="up")._value.get() <= 3


def test_targets_are_let_go_with_their_backends():
    plant = Plant(scaled(), fast=1).run(10)
    assert plant.targets.retained == {"fast"}
    plant.bench.put(backend("fast"))
    plant.run(4)
    assert plant.targets.retained == set()
    assert plant.status().replicas is None
    assert "scaling" in plant.bench.core.info()


def test_declared_targets_count_beside_the_tokens():
    plant = Plant(scaled(target={"gpuUtilizationPercent": 25}), fast=2).run(150, 500.0)
    assert plant.there("fast") == 8  # at 50 % each, twice as many, and again as often as there are more
    assert plant.condition() == ("True", reasons.AT_MOST)


def costly(name: str, hourly: str, **scaling: Any) -> ModelBackend:
    return scaled(name, spec={"cost": {"gpuHourly": hourly}}, **scaling)


def cluster_cost(bench: Bench, name: str) -> float | None:
    resource = bench.world.drafts["cluster", f"default/{name}"].resource
    assert isinstance(resource, Cluster)
    return None if resource.cost is None else resource.cost.output_per_million_tokens


def test_the_cheap_hardware_of_a_model_grows_first_and_shrinks_last():
    plant = Plant(costly("dear", "7.2", minReplicas=0), costly("fast", "0.72"), dear=1, fast=1)
    plant.bench.put(route(refs=[{"name": "dear"}, {"name": "fast"}]))
    plant.run(60, {"dear": 1500.0, "fast": 1500.0})
    assert plant.there("fast") >= 3, "both asked for more, the cheap one got it"
    plant.run(420, {"dear": 1500.0, "fast": 1500.0})
    assert (plant.there("dear"), plant.there("fast")) == (1, 4)
    plant.run(120, {"dear": 0.0, "fast": 10_000.0})
    assert plant.there("fast") == 8
    assert plant.there("dear") > 1, "the cheap ones are as many as they may be"


def test_what_tokens_cost_is_measured_shown_and_told_rarely():
    plant = Plant(costly("fast", "3.6", maxReplicas=2), fast=1).run(40, 500.0)
    cluster = plant.bench.world.drafts["cluster", "default/fast"].resource
    assert isinstance(cluster, Cluster)
    assert cluster.hold_seconds == 300.0
    assert cluster_cost(plant.bench, "fast") is None, "what a replica does is not known"
    assert plant.status().cost is not None
    plant.run(200, 5000.0)
    assert cluster_cost(plant.bench, "fast") == pytest.approx(1.0, rel=0.15)
    published = plant.bench.core.published
    plant.run(200, 5000.0)
    assert plant.bench.core.published == published
    assert float(plant.status().cost.per_million_tokens) == pytest.approx(1.0, rel=0.5)  # type: ignore[union-attr]


def test_prices_by_the_token_are_shown_as_they_were_paid():
    spec = {"cost": {"inputPerMillionTokens": "1", "outputPerMillionTokens": "4"}}
    plant = Plant(backend("fast", **spec))
    plant.bench.store.set_endpoints({"default/fast": [endpoint("x", inbound=False)]})
    plant.bench.publisher.connect("gateway", role=Role.GATEWAY)
    for _ in range(30):
        traffic = BackendTraffic("default/chat", "all", "default/fast", requests=1, input_tokens=300, output_tokens=100)
        plant.bench.report("gateway", traffic=(traffic,))
        plant.bench.step(1.0)
    assert plant.status().cost is not None
    assert float(plant.status().cost.per_million_tokens) == pytest.approx(1.75, rel=0.01)  # type: ignore[union-attr]


def test_behavior_is_what_the_decider_goes_by():
    spec = scaled(
        windowSeconds=120,
        behavior={
            "scaleUp": {"stabilizationWindowSeconds": 30, "selectPolicy": "Disabled"},
            "scaleDown": {
                "policies": [
                    {"type": "Percent", "value": 10, "periodSeconds": 60},
                    {"type": "Pods", "value": 2, "periodSeconds": 5},
                ]
            },
        },
    ).spec.scaling
    assert spec is not None
    policy = policy_of(spec)
    assert (policy.stable_seconds, policy.panic_seconds, policy.up_delay_seconds, policy.down_delay_seconds) == (120, 12, 30, 300)
    assert policy.up == Rates(select=Select.DISABLED)
    assert policy.down == Rates((Rate(10, 60, percent=True), Rate(2, 5)))


def test_each_reason_of_a_decision_is_a_reason_of_the_condition():
    constants: Iterable[object] = {value for name, value in vars(reasons).items() if name.isupper()}
    assert {reason.value for reason in Reason} - {Reason.CONFIRMING.value} <= set(constants)


def test_the_state_of_a_target_is_a_value():
    assert replace(TargetState(1), replicas=2) == TargetState(2)
