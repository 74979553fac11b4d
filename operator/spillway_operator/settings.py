"""Settings of the operator, by subsystem. Every default has its reason beside it; `__main__` fills them from options and environment."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from spillway_operator.balancing.pressure import PressureBounds
from spillway_operator.balancing.weights import WeightPolicy
from spillway_operator.policies.hosts import LOOPBACK
from spillway_operator.reconcile.core import Pace
from spillway_operator.sources.files import FilePace


@dataclass(frozen=True, slots=True)
class SourceSettings:
    """Where resources come from."""

    kind: str = "files"
    paths: tuple[Path, ...] = ()
    endpoints_file: Path | None = None
    targets_file: Path | None = None  # how many replicas there are, by whoever runs them
    scale_file: Path | None = None  # how many there should be
    pace: FilePace = field(default_factory=FilePace)
    allowed_hosts: tuple[str, ...] = LOOPBACK  # plain http to a model server on this machine is the laptop case


@dataclass(frozen=True, slots=True)
class ListenSettings:
    """Ports; 0 takes a free one."""

    host: str = "127.0.0.1"  # standalone is for this machine; a cluster binds to the pod's address
    admin_port: int = 8081
    discovery_port: int = 8083


@dataclass(frozen=True, slots=True)
class LoadSettings:
    """Load reports."""

    interval_seconds: float = 1.0  # how often proxies report at least
    stale_intervals: int = 3  # a report that is missed once or twice is no news
    max_series: int = 50_000  # routes x rules x backends; about 1 KB each with traffic


@dataclass(frozen=True, slots=True)
class StatusSettings:
    """Statuses."""

    figures_interval_seconds: float = 1.0  # a person watches a live table; an API server wants 10 s


@dataclass(frozen=True, slots=True)
class DiscoverySettings:
    """The stream."""

    # Files are read whole before the first publication, so full updates vouch for what they leave out from the start.
    settle_seconds: float = 0.0
    max_connections: int = 5000  # sockets; five times the fleet that the operator is measured with


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """What only matters with `--source kubernetes`."""

    kubeconfig: Path | None = None  # else the pod's service account, else where kubectl looks
    context: str | None = None
    namespaces: tuple[str, ...] = ()  # all
    pod_selector: str = ""  # all pods: those that lack a sidecar are to be found too
    lease_namespace: str = "default"
    lease_name: str = "spillway-operator"
    identity: str = ""  # made from the host's name and chance
    gateways: tuple[tuple[str, str], ...] = ()  # service accounts (namespace, name) that are told of all namespaces
    authentication: str = "token"  # or loopback, for an operator beside its proxies on one machine
    certificate: Path | None = None  # of the discovery port
    key: Path | None = None
    external_metrics_port: int | None = None  # it is offered to the cluster by an APIService, which the chart makes where asked to
    # Proxies come back within four seconds of a term's begin; before that their absence is no news.
    hold_status_seconds: float = 5.0
    figures_interval_seconds: float = 10.0  # an API server is no time series database


@dataclass(frozen=True, slots=True)
class InjectionSettings:
    """The webhook that puts sidecars into pods."""

    config_file: Path | None = None  # what sidecars are made from; without it there is no webhook
    ca_file: Path | None = None  # the authority that sidecars are to trust, where the settings do not hold it
    port: int = 9443  # the one that API servers' firewalls let through where they know webhooks


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it."""

    source: SourceSettings = field(default_factory=SourceSettings)
    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    injection: InjectionSettings = field(default_factory=InjectionSettings)
    listen: ListenSettings = field(default_factory=ListenSettings)
    loads: LoadSettings = field(default_factory=LoadSettings)
    status: StatusSettings = field(default_factory=StatusSettings)
    discovery: DiscoverySettings = field(default_factory=DiscoverySettings)
    pace: Pace = field(default_factory=Pace)
    weights: WeightPolicy = field(default_factory=WeightPolicy)
    pressure: PressureBounds = field(default_factory=PressureBounds)
    shutdown_seconds: float = 5.0  # for open admin requests and close frames; proxies go on without us
    log_level: str = "info"
