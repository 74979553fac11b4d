"""The resources: what users declare and what the operator says about it.

One module a kind (`backend`, `route`), the parts they share (`meta`, `fields`, `durations`, `lists`), rules between fields
(`rules`), the CRDs made from all that (`crdgen`), the printer columns (`columns`) and documents read from text (`documents`).
"""

from spillway_operator.api.backend import (
    BackendLoad,
    BackendSpec,
    BackendStatus,
    BackendSummary,
    EndpointCounts,
    MeasuredCost,
    ModelBackend,
    ReplicaCounts,
)
from spillway_operator.api.durations import Duration
from spillway_operator.api.meta import (
    API_VERSION,
    DEFAULT_NAMESPACE,
    GROUP,
    VERSION,
    Condition,
    ObjectKey,
    ObjectMeta,
    condition_of,
)
from spillway_operator.api.route import (
    ModelRoute,
    ProxyCounts,
    RouteBackend,
    RouteRule,
    RouteSpec,
    RouteStatus,
    RouteSummary,
    Traffic,
)

__all__ = [
    "API_VERSION",
    "DEFAULT_NAMESPACE",
    "GROUP",
    "VERSION",
    "BackendLoad",
    "BackendSpec",
    "BackendStatus",
    "BackendSummary",
    "Condition",
    "Duration",
    "EndpointCounts",
    "MeasuredCost",
    "ModelBackend",
    "ModelRoute",
    "ObjectKey",
    "ObjectMeta",
    "ProxyCounts",
    "ReplicaCounts",
    "RouteBackend",
    "RouteRule",
    "RouteSpec",
    "RouteStatus",
    "RouteSummary",
    "Traffic",
    "condition_of",
]
