"""What is gathered before conditions are decided: plain values, no models, no clock."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from spillway_wire.messages import Fault
from spillway_wire.names import DiversionCause


@dataclass(frozen=True, slots=True)
class EndpointFacts:
    """One endpoint of a backend."""

    id: str
    inbound: bool  # a sidecar stands before it
    connected: bool = False  # ... and that sidecar is on the stream
    engine_up: bool | None = None  # as it last said; None: it has not reported, or long ago
    draining: bool = False


@dataclass(frozen=True, slots=True)
class Complaint:
    """Why one proxy can send nothing to a backend."""

    node: str
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class ScalingFacts:
    """Where the scaling of a backend stands."""

    reason: str
    active: bool = True  # its replicas are set here
    desired: int = 0
    note: str = ""  # what the other side says of it, or who it is


@dataclass(frozen=True, slots=True)
class BackendFacts:
    """Everything the backend's conditions are decided from."""

    in_force: bool = True  # it is in the current snapshot
    in_pods: bool = False  # its endpoints are pods, which should have sidecars
    endpoints: tuple[EndpointFacts, ...] = ()
    invalid: str | None = None  # what is wrong with the latest document
    refused_host: str | None = None  # why the external URL is not allowed
    failure: str | None = None  # the exception of the last attempt to reconcile it
    complaints: tuple[Complaint, ...] = ()
    proxies: int = 0  # that are connected and told of the backend, complaining or not
    pressure: float | None = None
    was_saturated: bool = False
    low_pressure: float = 0.7  # where saturation ends
    recent_requests: int = 0
    error_ratio: float = 0.0
    scaling: ScalingFacts | None = None  # where it declares scaling, and this replica scales


class RefState(enum.StrEnum):
    """How a backend reference resolves."""

    RESOLVED = "resolved"
    NOT_FOUND = "not found"
    NOT_ACCEPTED = "not accepted"


@dataclass(frozen=True, slots=True)
class RefFacts:
    """One backend reference of a rule."""

    backend: str  # its name, without the namespace
    state: RefState
    ready: bool = False
    priority: int = 0
    weight: float = 1.0  # effective
    currency: str | None = None  # of its declared cost


@dataclass(frozen=True, slots=True)
class Passed:
    """A priority of a rule that proxies send requests past: all of them by a fallback, the excess by a spill."""

    priority: int
    cause: str  # a `DiversionCause`
    message: str
    nodes: int  # how many proxies

    @property
    def spilled(self) -> bool:
        """Whether it is the excess only."""
        return self.cause == DiversionCause.WAIT.value


@dataclass(frozen=True, slots=True)
class RuleFacts:
    """One rule."""

    name: str
    refs: tuple[RefFacts, ...]
    falls_back: bool = False  # it declares `fallback`
    spills: bool = False  # it declares `spill`
    by_cost: bool = False
    passed: tuple[Passed, ...] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """A model that an older route of the namespace holds."""

    model: str
    holder: str


@dataclass(frozen=True, slots=True)
class NodeRefusal:
    """A proxy that refuses this route's content, and the fault it names."""

    node: str
    fault: Fault


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """Everything the route's conditions are decided from."""

    in_force: bool = True  # it is in the current snapshot
    rules: tuple[RuleFacts, ...] = ()
    invalid: str | None = None
    failure: str | None = None
    conflicts: tuple[Conflict, ...] = ()
    synced: tuple[str, ...] = ()  # connected proxies that run the current content
    lagging: tuple[str, ...] = ()
    refusals: tuple[NodeRefusal, ...] = ()
    was_ready: bool = False
