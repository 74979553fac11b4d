"""A core without sockets or files: a store, a publisher that remembers, clocks that stand still, and objects in one line."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry

from spillway_operator.api import ModelBackend, ModelRoute, ObjectKey
from spillway_operator.balancing.pressure import PressureBounds
from spillway_operator.balancing.weights import WeightPolicy
from spillway_operator.loads.store import LoadStore
from spillway_operator.policies.hosts import LOOPBACK, AllowList
from spillway_operator.reconcile.core import Core, Pace
from spillway_operator.reconcile.metrics import Metrics
from spillway_operator.reconcile.scaling import ScalingLoop
from spillway_operator.reconcile.status import StatusPass, StoreSink
from spillway_operator.reconcile.world import World
from spillway_operator.scaling.ports import TargetRef, TargetState
from spillway_operator.snapshot.ports import NodeSync, Refusal, StreamListener, Synced
from spillway_operator.snapshot.state import EncodedResource, SnapshotState, differing
from spillway_operator.store import Entry, Store
from spillway_wire.loads import Load
from spillway_wire.messages import Fault, Node, Report
from spillway_wire.names import Role
from spillway_wire.snapshot import Endpoint, ResourceKey

MOMENT = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)


def backend(name: str = "fast", *, generation: int = 1, namespace: str = "default", **spec: Any) -> ModelBackend:
    """A backend in pods, or wherever `spec` says."""
    if not {"pods", "service", "external"} & spec.keys():
        spec["pods"] = {"selector": {"matchLabels": {"app": name}}, "port": 8000}
    spec.setdefault("provider", "OpenAICompatible" if "external" in spec else "VLLM")
    spec.setdefault("model", f"models/{name}")
    return ModelBackend.model_validate({"metadata": {"name": name, "namespace": namespace, "generation": generation}, "spec": spec})


def route(
    name: str = "chat",
    *,
    refs: Iterable[Mapping[str, Any]] = ({"name": "fast"},),
    models: Iterable[str] = ("chat",),
    generation: int = 1,
    namespace: str = "default",
    **spec: Any,
) -> ModelRoute:
    """A route of one rule, or of the `rules` in `spec`."""
    spec.setdefault("rules", [{"name": "all", "backendRefs": list(refs)}])
    return ModelRoute.model_validate(
        {
            "metadata": {"name": name, "namespace": namespace, "generation": generation},
            "spec": {"models": list(models), **spec},
        }
    )


def entry(model: ModelBackend | ModelRoute, *, line: int = 1, file: str = "a.yaml", **fields: Any) -> Entry:
    """The entry of a good object."""
    return Entry(key=model.key, object=model, age=("", file, line), origin=f"{file}:{line}", **fields)


def endpoint(name: str, *, port: int = 9000, inbound: bool = True) -> Endpoint:
    """An endpoint on this machine."""
    return Endpoint(id=name, host="127.0.0.1", port=port, inbound=inbound)


def node(name: str, *, boot: str = "b1", role: Role = Role.SIDECAR) -> Node:
    """A proxy."""
    return Node(id=name, role=role, boot_id=boot)


def report(sequence: int = 1, *, boot: str = "b1", load: Load | None = None, **fields: Any) -> Report:
    """A report of that boot."""
    return Report(boot_id=boot, sequence=sequence, load=load, **fields)


class FakePublisher:
    """Remembers states; proxies take them when the test says so."""

    def __init__(self) -> None:
        self.states: list[SnapshotState] = []
        self.listener: StreamListener | None = None
        self.held: dict[str, Mapping[ResourceKey, EncodedResource]] = {}
        self.syncs: dict[str, NodeSync] = {}

    @property
    def current(self) -> SnapshotState:
        return self.states[-1]

    def attach(self, listener: StreamListener) -> None:
        self.listener = listener

    def publish(self, state: SnapshotState) -> None:
        self.states.append(state)

    def nodes(self) -> tuple[NodeSync, ...]:
        return tuple(self.syncs.values())

    def synced(self, keys: Iterable[ResourceKey]) -> Synced:
        wanted = list(keys)
        lagging = {name for name in self.syncs if differing(wanted, self.held.get(name, {}), self.current)}
        return Synced(synced=tuple(sorted(self.syncs.keys() - lagging)), lagging=tuple(sorted(lagging)))

    def connect(self, name: str, *, boot: str = "b1", role: Role = Role.SIDECAR, draining: bool = False) -> Node:
        """A proxy says hello (or says that it drains)."""
        speaker = node(name, boot=boot, role=role)
        self.syncs[name] = NodeSync(node=speaker, connected_since=0.0, draining=draining)
        self._tell()
        return speaker

    def disconnect(self, name: str) -> None:
        """A proxy is gone."""
        self.syncs.pop(name)
        self.held.pop(name, None)
        self._tell()

    def ack(self, *names: str) -> None:
        """These proxies, or all, run the current state."""
        for name in names or tuple(self.syncs):
            self.held[name] = self.current.resources
            self.syncs[name] = NodeSync(node=self.syncs[name].node, connected_since=0.0, acked_version=self.current.version)
        self._tell()

    def nack(self, name: str, *faults: Fault, keeps: str | None = None) -> None:
        """A proxy refuses the current state."""
        refusal = Refusal(version=self.current.version, errors=faults, at=0.0, keeps=keeps)
        self.syncs[name] = NodeSync(node=self.syncs[name].node, connected_since=0.0, refusal=refusal)
        self._tell()

    def _tell(self) -> None:
        if self.listener is not None:
            self.listener.on_node_change()


class FakeTargets:
    """Targets that are what they are set to be."""

    def __init__(self, **replicas: int) -> None:
        self.states: dict[str, TargetState | None] = {name: TargetState(count) for name, count in replicas.items()}
        self.asked: list[tuple[str, int]] = []
        self.retained: set[str] = set()

    def state(self, ref: TargetRef) -> TargetState | None:
        return self.states.get(ref.name, TargetState(problem="TargetNotFound", message=f"no {ref}"))

    def scale(self, ref: TargetRef, replicas: int) -> None:
        self.asked.append((ref.name, replicas))
        before = self.states[ref.name]
        assert before is not None
        self.states[ref.name] = replace(before, replicas=replicas)

    def retain(self, refs: Mapping[TargetRef, str]) -> None:
        self.retained = {ref.name for ref in refs}


class Bench:
    """A core on a bench: `step` moves time on and does what is due."""

    def __init__(
        self,
        *,
        pace: Pace | None = None,
        figures_interval_seconds: float = 1.0,
        alone: bool = False,
        targets: FakeTargets | None = None,
    ) -> None:
        self.now = 100.0
        self.moment = MOMENT
        self.store = Store()
        self.publisher = FakePublisher()
        self.registry = CollectorRegistry()
        self.metrics = Metrics(self.registry)
        self.loads = LoadStore(on_outcome=self.metrics.count_report)
        self.world = World(
            store=self.store,
            loads=self.loads,
            publisher=self.publisher,
            allowed_hosts=AllowList.of(LOOPBACK),
            state=SnapshotState(version="7.0", epoch=7),
            wall_clock=lambda: self.moment,
        )
        self.status_pass = StatusPass(
            sink=StoreSink(self.store),
            wall_clock=lambda: self.moment,
            figures_interval_seconds=figures_interval_seconds,
            low_pressure=WeightPolicy().low,
        )
        self.leads = True
        self.scaling = ScalingLoop(
            self.world,
            targets or FakeTargets(),
            leads=lambda: self.leads,
            on_change=self.metrics.count_scaling,
        )
        self.core = Core(
            world=self.world,
            scaling=self.scaling,
            status=self.status_pass,
            metrics=self.metrics,
            clock=lambda: self.now,
            rng=random.Random(1),
            pace=pace or Pace(),
            policy=WeightPolicy(),
            bounds=PressureBounds(),
            alone=alone,
        )
        self.store.watch(self.core.on_change)
        self.publisher.attach(self.core)
        self._sequences: dict[str, int] = {}

    def put(self, *models: ModelBackend | ModelRoute, **fields: Any) -> None:
        for line, model in enumerate(models, start=1):
            self.store.put(entry(model, line=line, **fields))

    def step(self, seconds: float = 0.1) -> None:
        self.now += seconds
        self.core.step(self.now)

    def report(self, name: str, load: Load | None = None, **fields: Any) -> None:
        """The next report of a connected proxy, at this moment."""
        speaker = self.publisher.syncs[name].node
        self._sequences[name] = self._sequences.get(name, 0) + 1
        sent = report(self._sequences[name], boot=speaker.boot_id, load=load, **fields)
        self.core.on_report(speaker, sent, self.now)

    def condition(self, model: ModelBackend | ModelRoute | ObjectKey, name: str) -> tuple[str, str]:
        """(status, reason) of a condition."""
        found = self._condition(model, name)
        return found.status, found.reason

    def message(self, model: ModelBackend | ModelRoute | ObjectKey, name: str) -> str:
        return str(self._condition(model, name).message)

    def _condition(self, model: ModelBackend | ModelRoute | ObjectKey, name: str) -> Any:
        key = model if isinstance(model, ObjectKey) else model.key
        status = self.store.status(key)
        assert status is not None, f"{key} has no status"
        return next(condition for condition in status.conditions if condition.type == name)
