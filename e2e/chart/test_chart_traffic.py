"""Traffic through the gateway while everything under it is replaced, taken away or killed: no request fails.

Each request is sent once, in its turn, whatever became of those before it, and every one is accounted for.
"""

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest
from e2e.chart.conftest import Installed
from e2e.cluster import api, lifecycle
from e2e.kubectl import Kubectl, eventually

GATEWAY, OPERATOR, ENGINE = "deployment/spillway-gateway", "deployment/spillway-operator", "deployment/engine"
AWAY_SECONDS = 60.0
RECOVERED_WITHIN_SECONDS = 5.0


@pytest.fixture(autouse=True)
def as_it_was(installed: Installed, steady: Kubectl) -> None:
    """What the test before did is over."""
    settled(installed, steady)


def settled(installed: Installed, steady: Kubectl) -> None:
    steady("rollout", "status", ENGINE, "--timeout=55s")
    for name in (OPERATOR, GATEWAY):
        installed.system("rollout", "status", name, "--timeout=55s")


@pytest.mark.timeout(600)
def test_everything_is_restarted_under_load_and_no_request_fails(installed: Installed, steady: Kubectl) -> None:
    """Engines, gateways and operator by turns and all at once, again and again, for 30,000 requests."""
    enough = 30_000
    with installed.under_load(150.0, enough) as traffic:
        rounds = 0
        while traffic.goes_on:
            together = rounds % 2 == 1
            for kubectl, name in ((installed.system, OPERATOR), (steady, ENGINE), (installed.system, GATEWAY)):
                kubectl("rollout", "restart", name)
                if not together:
                    kubectl("rollout", "status", name, "--timeout=55s")
            settled(installed, steady)
            rounds += 1
    assert traffic.lost == 0, traffic
    assert traffic.sent == enough
    assert rounds >= 2


@pytest.mark.timeout(300)
def test_operator_and_api_server_away_for_a_minute_and_no_request_fails(
    installed: Installed, steady: Kubectl, request: pytest.FixtureRequest
) -> None:
    """The operators are killed while there is no API server to read from; kubelet starts them again, and they wait for it."""
    request.addfinalizer(lambda: controllers_begin_anew(installed))
    before = installed.restarts()
    before_outage = steady.get("mroute", "steady")["metadata"]["generation"]
    with installed.under_load(100.0) as traffic:
        time.sleep(2.0)
        lifecycle.stop(installed.cluster, "kube-apiserver")
        eventually(lambda: not api.ready(installed.cluster.layout), seconds=10)
        kill_operators()
        time.sleep(AWAY_SECONDS)
        lifecycle.start(installed.cluster, "kube-apiserver")
        eventually(lambda: api.ready(installed.cluster.layout), seconds=30, every=0.05)
        back = time.monotonic()
        patch = '{"spec": {"timeouts": {"request": "9m"}}}'
        generation = before_outage + 1
        eventually(lambda: steady("patch", "mroute/steady", "--type=merge", f"--patch={patch}"), seconds=5, every=0.05)
        eventually(lambda: programmed(steady, generation), seconds=30, every=0.05)
        recovered = time.monotonic() - back
        time.sleep(15.0)  # for what the control plane makes of pods that it has not heard of for a minute
    print(f"a change was in force in every proxy {recovered:.1f} s after the API server was back")
    assert traffic.lost == 0, traffic
    assert recovered < RECOVERED_WITHIN_SECONDS
    again = {name: count - before.get(name, 0) for name, count in installed.restarts().items() if count > before.get(name, 0)}
    print(f"started again: {again}")
    assert all("operator" in name and count == 1 for name, count in again.items()), again


@pytest.mark.timeout(300)
def test_a_node_is_drained_under_load_and_no_request_fails(installed: Installed, steady: Kubectl) -> None:
    deployments = ((steady, ENGINE), (installed.system, GATEWAY), (installed.system, OPERATOR))
    second = lifecycle.add_node(installed.cluster)
    installed.system("cordon", "node-1")
    for kubectl, name in deployments:
        kubectl("scale", name, "--replicas=3")
    try:
        settled(installed, steady)
        installed.system("uncordon", "node-1")
        everywhere = [
            *installed.pods(steady),
            *installed.pods(installed.system, "app.kubernetes.io/component in (gateway,operator)"),
        ]
        assert sum(pod["spec"]["nodeName"] == second for pod in everywhere) == 3
        with installed.under_load(100.0) as traffic:
            time.sleep(2.0)
            installed.system("drain", second, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=55s")
            settled(installed, steady)
            time.sleep(5.0)
        assert traffic.lost == 0, traffic
        assert traffic.sent > 1000
    finally:
        for kubectl, name in deployments:
            kubectl("scale", name, "--replicas=2")
        installed.system("uncordon", "node-1")
        installed.system("delete", "node", second)
        lifecycle.stop(installed.cluster, second)


def programmed(kubectl: Kubectl, generation: int) -> bool:
    """Whether every proxy is known to run this generation of the route."""
    return any(
        one["type"] == "Programmed" and one["status"] == "True" and one["observedGeneration"] == generation
        for one in kubectl.get("mroute", "steady")["status"]["conditions"]
    )


def controllers_begin_anew(installed: Installed) -> None:
    """As where they elect a leader, and the loss of their lease ends them.

    Those that live on look for the server again later and later, each of their watches by itself: half a minute after an outage the scheduler
    may not know yet that a node is cordoned.
    """
    for program in ("kube-controller-manager", "kube-scheduler"):
        lifecycle.restart(installed.cluster, program)


def kill_operators() -> None:
    """As the kernel does when memory is short: no signal that could be handled."""
    killed = 0
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = entry.read_text().split("\0")
            if "spillway_operator" in words and "--tls-cert-file=/var/run/spillway/tls/tls.crt" in words:
                os.kill(int(entry.parent.name), signal.SIGKILL)
                killed += 1
    assert killed == 2
