"""The endpoints of one cluster, as a router chooses among them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from spillway_sidecar.scheduling.arrivals import Arrivals
from spillway_sidecar.scheduling.health import Peers
from spillway_sidecar.scheduling.homes import Homes
from spillway_sidecar.scheduling.recurrence import Recurrence
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState

E = TypeVar("E", bound=EndpointState)


@dataclass(slots=True)
class Pool(Generic[E]):
    """`targets` are all endpoints of the cluster `name`; `speed` is their mean; by `peers` they know of each other.

    A pool is made anew at each swap of a snapshot; `speed`, `peers`, `prefixes` and `arrivals` live on as long as the cluster does. `cost` is
    what a million input and output tokens cost, where that is declared. `hold_seconds` and `arrivals`: of a cluster that scales, how long
    a request waits for its first endpoint, and what is asked of it.
    """

    name: str
    targets: list[E]
    speed: ClusterSpeed
    peers: Peers = field(default_factory=Peers)
    prefixes: Recurrence = field(default_factory=Recurrence)
    cost: tuple[float, float] | None = None
    hold_seconds: float = 0.0
    arrivals: Arrivals | None = None
    turn: int = 0  # of round robin
    homes: Homes[E] = field(init=False)

    def __post_init__(self) -> None:
        self.homes = Homes(self.targets)
        self.peers.endpoints = self.targets
        for target in self.targets:
            target.peers = self.peers
