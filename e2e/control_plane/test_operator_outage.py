"""The API server goes away and comes back: proxies notice nothing, and the operator goes on where it was."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e.cluster import lifecycle
from e2e.cluster.__main__ import main as cluster_command
from e2e.cluster.layout import Tier
from e2e.control_plane.processes import Bench, backend, bench, route, soon
from e2e.kubectl import Kubectl

CRDS = Path(__file__).resolve().parents[2] / "crds"
AWAY_SECONDS = 20.0


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Kubectl]]:
    """A cluster that may be broken."""
    state = tmp_path_factory.mktemp("outage") / "state"
    with lifecycle.held(state, Tier.CONTROL_PLANE) as cluster:
        kubectl = Kubectl(cluster.environment())
        kubectl("apply", "--server-side", f"--filename={CRDS}")
        kubectl("wait", "--for=condition=Established", "--timeout=30s", f"--filename={CRDS}")
        kubectl("create", "namespace", "outage")
        yield state, kubectl.within("outage")


@pytest.fixture
def parts(own: tuple[Path, Kubectl], tmp_path: Path) -> Iterator[Bench]:
    with bench(own[1], tmp_path) as made:
        yield made


def test_an_api_server_that_is_away_costs_proxies_nothing(parts: Bench, own: tuple[Path, Kubectl]) -> None:
    state, kubectl = own
    operator, gateway = parts.operator(), parts.gateway()
    kubectl.apply(backend(), route())
    kubectl("wait", "--for=condition=Programmed", "mroute/chat", "--timeout=20s")
    epoch, opened = operator.epoch, operator.json("/info")["discovery"]["opened_total"]
    cluster_command(["stop", "kube-apiserver", "--state", str(state)])
    end = time.monotonic() + AWAY_SECONDS
    soon(lambda: not operator.leads)
    while time.monotonic() < end:
        assert gateway.connected
        assert gateway.config
        assert operator.get("/healthz")[0] == 200
        time.sleep(0.5)
    cluster_command(["start", "kube-apiserver", "--state", str(state)])
    soon(lambda: kubectl.said("get", "--raw=/readyz").code == 0, seconds=30)
    back_at = time.monotonic()
    soon(lambda: operator.leads, seconds=5)
    kubectl.apply(route("second"))
    soon(lambda: ("route", "outage/second") in gateway.config, seconds=5)
    print(f"a new route was there {time.monotonic() - back_at:.1f} s after the API server was")
    info = operator.json("/info")
    assert operator.epoch > epoch
    assert info["discovery"]["opened_total"] == opened  # the proxy's stream was never cut
    assert info["source"]["kopf"]["starts"] <= 2
