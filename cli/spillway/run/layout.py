"""Which processes a standalone run is made of, as plain data.

`children` turns what the standalone files say into the commands that should run, each with its log's name and the step in
which it is stopped: gateway and sidecars first, so that requests end while their engines still answer. A replica is an
engine and the sidecar before it; its ports come from a port source that remembers them, so a child that is started
again keeps its place and nobody notices a new address.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from spillway.run.standalone import DEFAULT_NAMESPACE, Simulation, Standalone

LOOPBACK = "127.0.0.1"
PortSource = Callable[[str], int]  # a stable port for a purpose


@dataclass(frozen=True, slots=True)
class Site:
    """Where a run lives: what it reads, its folder, its public ports."""

    paths: tuple[str, ...]
    state_dir: Path
    port: int
    admin_port: int
    gateway_admin_port: int
    discovery_port: int
    secrets_dir: Path | None = None
    ca_file: Path | None = None

    @property
    def endpoints_file(self) -> Path:
        """What the operator reads endpoints from."""
        return self.state_dir / "endpoints.json"

    @property
    def targets_file(self) -> Path:
        """Where the operator reads how many engines there are."""
        return self.state_dir / "targets.json"

    @property
    def scale_file(self) -> Path:
        """Where it writes how many there should be."""
        return self.state_dir / "scale.json"

    @property
    def operator_url(self) -> str:
        """The operator's admin address."""
        return f"http://{LOOPBACK}:{self.admin_port}"

    @property
    def discovery_url(self) -> str:
        """Where proxies get their snapshots."""
        return f"http://{LOOPBACK}:{self.discovery_port}"


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One process: `stop_step` orders the end of a run, lowest first."""

    name: str
    command: tuple[str, ...]
    stop_step: int
    secrets: bool = False  # whether the environment's secrets are for it: proxies look keys up, nobody else does

    @property
    def log_name(self) -> str:
        """Name of its log file."""
        return self.name.replace(" ", "-").replace("/", "-") + ".log"


@dataclass(frozen=True, slots=True)
class Replica:
    """One simulated endpoint: an engine and its sidecar. `id` is the endpoint's name and the sidecar's node id."""

    cluster: str
    id: str
    inbound_port: int
    admin_port: int  # of the sidecar
    engine: ChildSpec
    sidecar: ChildSpec
    cold_start_seconds: float = 0.0

    @property
    def children(self) -> tuple[ChildSpec, ChildSpec]:
        """Both processes."""
        return self.engine, self.sidecar


def fixed_children(site: Site, allow_hosts: Sequence[str]) -> list[ChildSpec]:
    """Operator core and gateway."""
    operator = [
        *_module("spillway_operator"),
        *("--source", "files"),
        *(part for path in site.paths for part in ("--path", path)),
        *("--endpoints-file", str(site.endpoints_file)),
        *("--targets-file", str(site.targets_file)),
        *("--scale-file", str(site.scale_file)),
        *("--admin-port", str(site.admin_port)),
        *("--discovery-port", str(site.discovery_port)),
        *(part for host in allow_hosts for part in ("--allow-host", host)),
    ]
    gateway = [
        *_module("spillway_sidecar"),
        *("--role", "gateway"),
        *("--node-id", "gateway-0"),
        *("--operator", site.discovery_url),
        *("--port", str(site.port)),
        *("--admin-port", str(site.gateway_admin_port)),
        *("--state-dir", str(site.state_dir / "gateway-0")),
        *_external(site),
    ]
    return [ChildSpec("operator", tuple(operator), 2), ChildSpec("gateway", tuple(gateway), 0, secrets=True)]


def replicas(site: Site, standalone: Standalone, port_of: PortSource) -> list[Replica]:
    """The simulated endpoints of all backends."""
    return [
        _replica(site, cluster, index, simulation, port_of)
        for cluster, simulation in standalone.simulate.items()
        for index in range(simulation.replicas)
    ]


def _replica(site: Site, cluster: str, index: int, simulation: Simulation, port_of: PortSource) -> Replica:
    namespace, _, name = cluster.partition("/")
    identity = f"{name}-{index}" if namespace == DEFAULT_NAMESPACE else f"{namespace}/{name}-{index}"
    engine_port, inbound_port = port_of(f"{identity} engine"), port_of(f"{identity} inbound")
    admin_port = port_of(f"{identity} admin")
    engine = [
        *_module("spillway"),
        "sim-engine",
        *("--host", LOOPBACK),
        *("--port", str(engine_port)),
        *("--model", name),
        *simulation.flags(),
    ]
    sidecar = [
        *_module("spillway_sidecar"),
        *("--role", "sidecar"),
        *("--node-id", identity),
        *("--operator", site.discovery_url),
        *("--port", str(port_of(f"{identity} route"))),
        *("--inbound-port", str(inbound_port)),
        *("--engine", f"http://{LOOPBACK}:{engine_port}"),
        *("--engine-health", "/health"),
        *("--admin-port", str(admin_port)),
        *("--state-dir", str(site.state_dir / identity.replace("/", "-"))),
        *_external(site),
    ]
    return Replica(
        cluster,
        identity,
        inbound_port,
        admin_port,
        ChildSpec(f"engine {identity}", tuple(engine), 1),
        ChildSpec(f"sidecar {identity}", tuple(sidecar), 0, secrets=True),
        simulation.cold_start_seconds or 0.0,
    )


def _external(site: Site) -> Iterator[str]:
    """What a proxy needs for servers outside. Sidecars route as well."""
    if site.secrets_dir is not None:
        yield from ("--secrets-dir", str(site.secrets_dir))
    if site.ca_file is not None:
        yield from ("--ca-file", str(site.ca_file))


def endpoints_document(listening: Sequence[Replica], standalone: Standalone) -> str:
    """The endpoints file: every simulated backend, with the endpoints whose sidecars listen."""
    clusters: dict[str, list[dict[str, object]]] = {cluster: [] for cluster in standalone.simulate}
    for replica in listening:
        entry = {"id": replica.id, "host": LOOPBACK, "port": replica.inbound_port, "inbound": True}
        clusters.setdefault(replica.cluster, []).append(entry)
    return json.dumps({"endpoints": clusters}, indent=1) + "\n"


def targets_document(standalone: Standalone) -> str:
    """The targets file: how many engines each simulated backend is to have, started or not."""
    counts = {cluster: simulation.replicas for cluster, simulation in standalone.simulate.items()}
    return json.dumps({"replicas": counts}) + "\n"


def changes(running: Sequence[ChildSpec], wanted: Sequence[ChildSpec]) -> tuple[list[ChildSpec], list[ChildSpec]]:
    """What to stop and what to start; a child whose command differs is in both."""
    have, want = set(running), set(wanted)
    return [spec for spec in running if spec not in want], [spec for spec in wanted if spec not in have]


def back_off_seconds(deaths_in_a_row: int) -> float:
    """How long to wait before the next start: 0.2 s, doubled with each early death, at most 5 s."""
    return float(min(5.0, 0.2 * 2 ** (min(max(1, deaths_in_a_row), 16) - 1)))


def _module(name: str) -> Iterator[str]:
    yield from (sys.executable, "-m", name)
