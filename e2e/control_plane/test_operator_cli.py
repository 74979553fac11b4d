"""`kubectl spillway`: what a person asks of a cluster, answered by the API server and, through it, by the proxy that took a request."""

import json
import os
import socket
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.control_plane.processes import Bench, Proxy, bench, pod, route, run_pod, soon
from e2e.kubectl import Kubectl

SCRIPTS = str(Path(sys.executable).parent)  # where kubectl finds the plug-in


@pytest.fixture
def parts(ours: Kubectl, tmp_path: Path) -> Iterator[Bench]:
    path = os.pathsep.join([SCRIPTS, ours.environment.get("PATH") or os.environ["PATH"]])
    kubectl = Kubectl({**ours.environment, "PATH": path}, ours.namespace)
    with bench(kubectl, tmp_path) as made:
        yield made


def address() -> str:
    """An address of this machine that the API server may send to: not a loopback one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no route to anywhere, and so no address beside loopback: give it a network interface")
        return str(probe.getsockname()[0])


def asked(gateway: Proxy) -> str:
    """The id of a request that went through."""
    body: dict[str, Any] = {"model": "chat", "max_tokens": 2, "messages": [{"role": "user", "content": "hi"}]}
    request = urllib.request.Request(
        f"http://127.0.0.1:{gateway.port}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(answer.headers["x-request-id"])


def test_a_cluster_is_asked_with_kubectls_own_configuration(parts: Bench) -> None:
    kubectl = parts.kubectl
    parts.operator()
    host = address()
    gateway = parts.gateway("gateway-0", "--admin-host", "0.0.0.0")
    parts.engines(1)
    kubectl.apply(route())
    kubectl("wait", "--for=condition=Ready", "mroute/chat", "--timeout=30s")
    namespace = str(kubectl.namespace)

    def plugin(*arguments: str) -> Any:
        return Kubectl(kubectl.environment).said("spillway", *arguments)

    rows = [line.split() for line in plugin("get", "routes", "--namespace", namespace).out.splitlines()]
    shown = dict(zip(rows[0], rows[1], strict=False))
    assert (shown["NAMESPACE"], shown["NAME"], shown["READY"]) == (namespace, "chat", "True")
    assert json.loads(plugin("get", "backends", "--namespace", namespace, "--output", "json").out)

    labels = {"app.kubernetes.io/name": "spillway", "app.kubernetes.io/component": "gateway"}
    standing = pod("gateway-0", "gateway")
    standing["metadata"]["labels"] |= labels
    standing["spec"]["containers"][0]["ports"] = [{"name": "admin", "containerPort": gateway.admin_port}]
    kubectl.apply(standing)
    run_pod(kubectl, "gateway-0", host)
    soon(lambda: gateway.connected)
    request = asked(gateway)
    explained = soon(lambda: plugin("explain", request))
    assert explained.code == 0, explained.err
    assert f"{namespace}/chat" in explained.out
    print(explained.out)
    unknown = plugin("explain", "no-such-request")
    assert unknown.code == 1
    assert "has a record" in unknown.err
