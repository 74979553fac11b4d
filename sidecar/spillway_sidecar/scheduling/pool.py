"""The endpoints of one cluster, as a router chooses among them."""

from __future__ import annotations

from typing import Generic, TypeVar

from spillway_sidecar.scheduling.arrivals import Arrivals
from spillway_sidecar.scheduling.health import Peers
from spillway_sidecar.scheduling.homes import Homes
from spillway_sidecar.scheduling.recurrence import Recurrence
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState

E = TypeVar("E", bound=EndpointState)


class Pool(Generic[E]):
    """`targets` are all endpoints of the cluster `name`; `speed` is their mean; by `peers` they know of each other.

    A pool is made anew at each swap of a snapshot; `speed`, `peers`, `prefixes` and `arrivals` live on as long as the cluster does. `cost` is
    what a million input and output tokens cost, where that is declared. `hold_seconds` and `arrivals`: of a cluster that scales, how long
    a request waits for its first endpoint, and what is asked of it.
    """

    __slots__ = ("arrivals", "cost", "hold_seconds", "homes", "name", "peers", "prefixes", "speed", "targets", "turn")

    def __init__(
        self,
        name: str,
        targets: list[E],
        speed: ClusterSpeed,
        peers: Peers | None = None,
        prefixes: Recurrence | None = None,
        cost: tuple[float, float] | None = None,
        hold_seconds: float = 0.0,
        arrivals: Arrivals | None = None,
    ) -> None:
        self.name = name
        self.targets = targets
        self.speed = speed
        self.peers = peers or Peers()
        self.prefixes = prefixes or Recurrence()
        self.cost = cost
        self.hold_seconds = hold_seconds
        self.arrivals = arrivals
        self.turn = 0  # of round robin
        self.homes = Homes(targets)
        self.peers.endpoints = targets
        for target in targets:
            target.peers = self.peers
