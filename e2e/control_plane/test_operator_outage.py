"""The API server itself goes away and comes back: traffic notices nothing, and the operator goes on where it was."""

import json
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from e2e.cluster import lifecycle
from e2e.cluster.keeper import PROGRAMS
from e2e.cluster.layout import Tier
from e2e.control_plane.processes import Bench, Operator, Proxy, bench, route, soon
from e2e.control_plane.traffic import untouched
from e2e.kubectl import Kubectl

CRDS = Path(__file__).resolve().parents[2] / "crds"
SERVER = "kube-apiserver"
BACK_SECONDS = 10.0  # 5 on a machine with nothing else to do


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lifecycle.Cluster]:
    """A cluster that may be broken."""
    with lifecycle.held(tmp_path_factory.mktemp("outage") / "state", Tier.CONTROL_PLANE) as cluster:
        kubectl = Kubectl(cluster.environment())
        kubectl("apply", "--server-side", f"--filename={CRDS}")
        kubectl("wait", "--for=condition=Established", "--timeout=30s", f"--filename={CRDS}")
        yield cluster


@dataclass(slots=True)
class Scene:
    """An operator, a gateway and engines, and a route that is programmed."""

    cluster: lifecycle.Cluster
    parts: Bench
    operator: Operator
    gateway: Proxy

    def server(self, number: signal.Signals) -> None:
        os.kill(json.loads((self.cluster.layout.state / PROGRAMS).read_text())[SERVER]["pid"], number)

    def answers(self) -> bool:
        return self.parts.kubectl.said("get", "--raw=/readyz", "--request-timeout=1s").code == 0

    def away(self, seconds: float, what: str, go: Callable[[], None], come: Callable[[], None]) -> None:
        """The server goes, and comes after so many seconds; then an edit arrives."""
        namespace, kubectl = self.parts.kubectl.namespace, self.parts.kubectl
        epoch, starts = self.operator.epoch, self.starts
        with untouched(self.gateway.port, what=f"{what} for {seconds:.0f} s"):
            go()
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                assert self.operator.get("/healthz")[0] == 200
                assert ("route", f"{namespace}/chat") in self.gateway.config
                time.sleep(0.5)
            come()
            soon(self.answers, seconds=60)
            back_at = time.monotonic()
            soon(lambda: self.operator.leads, seconds=BACK_SECONDS)
            led_at = time.monotonic()
            kubectl.apply(route("second"))
            soon(lambda: ("route", f"{namespace}/second") in self.gateway.config, seconds=BACK_SECONDS)
            there_at = time.monotonic()
            print(f"; led {led_at - back_at:.1f} s and an edit was there {there_at - back_at:.1f} s after its return", end="")
        kubectl("wait", "--for=condition=Programmed", "mroute/chat", "mroute/second", "--timeout=20s")
        assert self.operator.epoch >= epoch
        assert self.starts - starts <= 3

    @property
    def starts(self) -> int:
        return int(self.operator.json("/info")["source"]["kopf"]["starts"])


@pytest.fixture
def scene(own: lifecycle.Cluster, tmp_path: Path) -> Iterator[Scene]:
    namespace = f"outage-{secrets.token_hex(4)}"
    kubectl = Kubectl(own.environment(), namespace)
    kubectl("create", "namespace", namespace)
    kubectl.said("create", "serviceaccount", "default")  # its maker may still be broken from the test before, and pods need it
    soon(lambda: kubectl.said("get", "serviceaccount", "default").code == 0)
    with bench(kubectl, tmp_path) as parts:
        operator, gateway = parts.operator(), parts.gateway()
        parts.engines(2)
        kubectl.apply(route())
        kubectl("wait", "--for=condition=Programmed", "mroute/chat", "--timeout=30s")
        soon(lambda: len(gateway.config.get(("endpoints", f"{namespace}/fast"), {}).get("endpoints", [])) == 2)
        yield Scene(own, parts, operator, gateway)


@pytest.mark.parametrize("seconds", [2.0, 60.0])
def test_an_api_server_that_is_stopped(scene: Scene, seconds: float) -> None:
    cluster = scene.cluster
    scene.away(seconds, "API server gone", lambda: lifecycle.stop(cluster, SERVER), lambda: lifecycle.start(cluster, SERVER))


def test_an_api_server_that_hangs(scene: Scene) -> None:
    """Connections stay open, and new ones are taken by the kernel: nothing is answered, and nothing refused."""
    scene.away(15.0, "API server hung", lambda: scene.server(signal.SIGSTOP), lambda: scene.server(signal.SIGCONT))


def test_a_store_that_is_away(scene: Scene) -> None:
    """The API server answers, with errors."""
    cluster = scene.cluster
    scene.away(10.0, "etcd gone", lambda: lifecycle.stop(cluster, "etcd"), lambda: lifecycle.start(cluster, "etcd"))
