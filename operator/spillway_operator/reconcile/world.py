"""What the reconciler works on: the store and the loads it reads, the drafts and decisions it holds.

Everything here can be made again from the store, the stream and time: a restarted operator comes to the same picture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from spillway_operator.api import ModelBackend, ModelRoute, ObjectKey
from spillway_operator.balancing.weights import Course
from spillway_operator.loads.store import LoadStore
from spillway_operator.policies.facts import Conflict, ScalingFacts
from spillway_operator.policies.hosts import AllowList
from spillway_operator.scaling.cost import Spending
from spillway_operator.scaling.needs import Need, Observed
from spillway_operator.scaling.throughput import Throughput
from spillway_operator.snapshot.builder import draft
from spillway_operator.snapshot.ports import NodeSync, SnapshotPublisher
from spillway_operator.snapshot.state import EncodedResource, SnapshotState
from spillway_operator.snapshot.translate import wire_name
from spillway_operator.store import BACKEND, Store
from spillway_wire.snapshot import Endpoints, Resource, ResourceKey, Weights

RuleKey = tuple[str, str]  # (route, rule), the route as `namespace/name`


@dataclass(frozen=True, slots=True)
class Scaled:
    """Where the scaling of one backend stands: what statuses, metrics and other autoscalers are told."""

    facts: ScalingFacts
    current: int = 0
    desired: int = 0
    need: Need = Need()  # noqa: RUF009 - frozen
    observed: Observed = Observed(ready=0)  # noqa: RUF009 - frozen
    valid: bool = False  # it was measured
    schedule: str = ""  # that is open, or whose replicas are asked for ahead


@dataclass(slots=True)
class World:
    """Shared by the modules of this package; one event loop."""

    store: Store
    loads: LoadStore
    publisher: SnapshotPublisher
    allowed_hosts: AllowList
    state: SnapshotState
    wall_clock: Callable[[], datetime]  # for schedules; aware
    drafts: dict[ResourceKey, EncodedResource] = field(default_factory=dict)
    dirty: bool = True  # drafts changed since `state`
    conflicts: dict[str, dict[str, tuple[Conflict, ...]]] = field(default_factory=dict)  # by namespace and route
    failures: dict[ObjectKey, str] = field(default_factory=dict)  # why the last look at an object failed
    nodes: dict[str, NodeSync] = field(default_factory=dict)  # connected proxies by id
    draining: dict[str, str] = field(default_factory=dict)  # node id -> boot id of the process that said it leaves
    pressures: dict[str, float | None] = field(default_factory=dict)  # by cluster, smoothed
    courses: dict[RuleKey, dict[str, Course]] = field(default_factory=dict)  # by cluster, with what the next step must know
    factors: dict[RuleKey, dict[str, float]] = field(default_factory=dict)  # by cluster, as computed
    published_factors: dict[RuleKey, dict[str, float]] = field(default_factory=dict)  # ... as proxies have them
    open_schedules: dict[ObjectKey, str] = field(default_factory=dict)  # of routes, as they stand
    scaled: dict[str, Scaled] = field(default_factory=dict)  # by cluster, of those that declare scaling
    throughputs: dict[str, Throughput] = field(default_factory=dict)  # by cluster: what one replica does
    spending: dict[str, Spending] = field(default_factory=dict)  # by cluster, of those that declare a cost
    published_costs: dict[str, float] = field(
        default_factory=dict
    )  # by cluster: of a million tokens, as measured, as proxies have it

    def set_draft(self, resource: Resource) -> None:
        """Keep a resource for the next state. Raises `UndecodableResourceError`."""
        encoded = draft(resource, self.drafts)
        if self.drafts.get(encoded.key) is not encoded:
            self.drafts[encoded.key] = encoded
            self.dirty = True

    def drop_draft(self, key: ResourceKey) -> None:
        """Leave a resource out of the next state."""
        if self.drafts.pop(key, None) is not None:
            self.dirty = True

    def backend(self, cluster: str) -> ModelBackend | None:
        """The last good version of a backend by its wire name."""
        namespace, _, name = cluster.partition("/")
        entry = self.store.get(ObjectKey(BACKEND, namespace, name))
        return entry.object if entry is not None and isinstance(entry.object, ModelBackend) else None

    def endpoints(self, cluster: str) -> Endpoints | None:
        """The endpoints of a cluster as the next state will have them."""
        encoded = self.drafts.get(("endpoints", cluster))
        return encoded.resource if encoded is not None and isinstance(encoded.resource, Endpoints) else None

    def clusters(self) -> Iterator[str]:
        """Names of the clusters that are in the drafts."""
        for kind, name in self.drafts:
            if kind == "cluster":
                yield name

    def in_force(self, kind: str, name: str) -> bool:
        """Whether a resource is in the current state."""
        return (kind, name) in self.state.resources

    def weights(self, route: ModelRoute) -> Weights | None:
        """The weights resource of a route in the current state."""
        encoded = self.state.resources.get(("weights", wire_name(route.key)))
        return encoded.resource if encoded is not None and isinstance(encoded.resource, Weights) else None

    def info(self) -> dict[str, Any]:
        """Sizes, and what stands out."""
        return {
            "snapshot": self.state.info(),
            "drafts": len(self.drafts),
            "conflicts": {
                f"{namespace}/{name}": [conflict.model for conflict in lost]
                for namespace, losers in self.conflicts.items()
                for name, lost in losers.items()
            },
            "failures": {str(key): message for key, message in self.failures.items()},
            "nodes": len(self.nodes),
            "draining": sorted(self.draining),
            "pressures": {name: level if level is None else round(level, 3) for name, level in sorted(self.pressures.items())},
            "factors": {
                f"{route}/{rule}": {name: round(factor, 3) for name, factor in factors.items()}
                for (route, rule), factors in sorted(self.factors.items())
                if any(factor != 1.0 for factor in factors.values())
            },
        }
