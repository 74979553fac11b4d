"""Where one cluster's files lie and which addresses it uses: decided once by `up`, written down, read by everything else."""

import dataclasses
import json
import os
from enum import StrEnum
from pathlib import Path
from typing import Self

from tests.fakes.ports import free_port

PROJECT = Path(__file__).resolve().parents[2]


class Tier(StrEnum):
    """How much of a cluster runs."""

    CONTROL_PLANE = "control-plane"
    NODE = "node"


class ClusterError(Exception):
    """The cluster cannot be had; the message says what to do about it."""


@dataclasses.dataclass(frozen=True, slots=True)
class Network:
    """Addresses of a cluster. The ranges are unusual ones, so that a machine's own networks are not shadowed."""

    services: str = "10.213.0.0/16"
    kubernetes_service: str = "10.213.0.1"
    dns_service: str = "10.213.0.10"
    pods: str = "10.212.0.0/16"
    nodes: str = "10.211.0.0/16"


@dataclasses.dataclass(frozen=True, slots=True)
class Node:
    """One node: where it writes, and its addresses. It is linked to its gateway by a pair of its own."""

    name: str
    folder: Path
    address: str
    gateway: str  # the other end of the pair: for the first node the machine, for the second the first
    pods: str

    @property
    def first_process(self) -> Path:
        """A file with the id of process 1 of its namespaces, as whoever started it sees it."""
        return self.folder / "first-process.pid"


# A socket's path must be short: it lies in the node's own /run.
CONTAINERD_SOCKET = Path("/run/containerd/containerd.sock")


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """One cluster: its tier, its state folder, its ports."""

    state: Path
    tier: Tier
    api_port: int
    etcd_port: int
    etcd_peer_port: int
    controller_manager_port: int
    scheduler_port: int
    network: Network = dataclasses.field(default_factory=Network)

    @property
    def first_node(self) -> Node:
        """Where the control plane runs too."""
        return Node("node-1", self.state / "node-1", "10.211.0.2", "10.211.0.1", "10.212.0.0/24")

    @property
    def second_node(self) -> Node:
        """Away until it is started: `python -m e2e.cluster start node-2`."""
        return Node("node-2", self.state / "node-2", "10.211.1.2", "10.211.1.1", "10.212.1.0/24")

    @property
    def api_host(self) -> str:
        return self.first_node.address if self.tier is Tier.NODE else "127.0.0.1"

    @property
    def api_url(self) -> str:
        return f"https://{self.api_host}:{self.api_port}"

    @property
    def pki(self) -> Path:
        return self.state / "pki"

    @property
    def log(self) -> Path:
        return self.state / "log"

    @property
    def kubeconfig(self) -> Path:
        return self.state / "kubeconfig"

    def kubeconfig_of(self, component: str) -> Path:
        return self.state / "kubeconfigs" / component

    @property
    def images(self) -> Path:
        """Archives that every node imports when it starts."""
        return self.state / "images"

    def save(self) -> None:
        document = dataclasses.asdict(self) | {"state": str(self.state)}
        (self.state / "cluster.json").write_text(json.dumps(document, indent=1))

    @classmethod
    def load(cls, state: Path) -> Self:
        """The cluster whose state folder this is. Raises ClusterError where there is none."""
        try:
            document = json.loads((state / "cluster.json").read_text())
        except FileNotFoundError:
            raise ClusterError(f"no cluster in {state}: start one with `python -m e2e.cluster up`") from None
        return cls(**document | {"state": state, "tier": Tier(document["tier"]), "network": Network(**document["network"])})

    @classmethod
    def fresh(cls, state: Path, tier: Tier) -> Self:
        """A cluster with free ports. The node tier has a network of its own, in which every port is free."""
        if tier is Tier.NODE:
            return cls(state, tier, 6443, 2379, 2380, 10257, 10259)
        return cls(state, tier, free_port(), free_port(), free_port(), free_port(), free_port())


def default_state(tier: Tier) -> Path:
    """In the checkout, where `.gitignore` and `make clean` know it."""
    return PROJECT / ".spillway" / f"e2e-{tier}"


def cache_folder() -> Path:
    """Where built programs are kept, for every checkout of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "spillway" / "e2e"
