"""The endpoints of one cluster, as a router chooses among them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import EndpointState

E = TypeVar("E", bound=EndpointState)


@dataclass(slots=True)
class Pool(Generic[E]):
    """`targets` are all endpoints of the cluster `name`; `speed` is their mean."""

    name: str
    targets: list[E]
    speed: ClusterSpeed
