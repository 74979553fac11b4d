"""The node tier is a cluster as a user has one: our images run in it, names resolve, Services lead to pods."""

import http.client
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from e2e.cluster import lifecycle
from e2e.kubectl import Kubectl, eventually

from spillway_wire import VERSION

pytestmark = pytest.mark.usefixtures("project_images")


def engine(*, node_name: str | None = None) -> list[dict[str, Any]]:
    """A simulated engine and its Service; on one node, if that is named."""
    container: dict[str, Any] = {
        "name": "engine",
        "image": f"spillway/cli:{VERSION}",
        "imagePullPolicy": "Never",
        "args": ["sim-engine", "--host=0.0.0.0", "--port=8000", "--decode-rate=1000"],
        "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8000}, "periodSeconds": 1},
    }
    restricted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "engine", "labels": {"app": "engine"}},
        "spec": {"containers": [container], "securityContext": restricted, "terminationGracePeriodSeconds": 1},
    }
    if node_name is not None:
        pod["spec"]["nodeSelector"] = {"kubernetes.io/hostname": node_name}
    spec = {"selector": {"app": "engine"}, "ports": [{"port": 80, "targetPort": 8000}]}
    return [pod, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "engine"}, "spec": spec}]


def test_a_pod_of_our_image_serves_under_the_restricted_standard(on_node: Kubectl) -> None:
    on_node("label", "namespace", str(on_node.namespace), "pod-security.kubernetes.io/enforce=restricted")
    on_node.apply(*engine())
    on_node("wait", "--for=condition=Ready", "pod/engine", "--timeout=60s")

    # From the machine, by the address of the Service.
    address = on_node.get("service", "engine")["spec"]["clusterIP"]
    question = {"model": "sim", "messages": [{"role": "user", "content": "Where does the excess go?"}], "max_tokens": 3}
    with closing(http.client.HTTPConnection(address, timeout=10)) as machine:
        machine.request("POST", "/v1/chat/completions", json.dumps(question), {"content-type": "application/json"})
        answer = machine.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["usage"]["completion_tokens"] == 3

    # From a pod, by its name; and exec, logs and events do as in any cluster.
    ask = f"import urllib.request as u; print(u.urlopen('http://engine.{on_node.namespace}.svc/v1/models').status)"
    assert on_node("exec", "engine", "--", "python", "-c", ask).strip() == "200"
    assert "engine sim at" in on_node("logs", "engine")
    reasons = {event["reason"] for event in on_node.get("events")["items"]}
    assert {"Scheduled", "Started"} <= reasons


def test_the_cluster_lives_in_namespaces_of_its_own(node_cluster: lifecycle.Cluster) -> None:
    process = node_cluster.layout.first_node.first_process.read_text()
    for kind in ("net", "mnt", "pid"):
        assert Path(f"/proc/{process}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()


def test_a_second_node_joins_serves_and_is_drained(node_cluster: lifecycle.Cluster, on_node: Kubectl) -> None:
    second = lifecycle.add_node(node_cluster)
    on_node.apply(*engine(node_name=second))
    on_node("wait", "--for=condition=Ready", "pod/engine", "--timeout=60s")
    assert on_node.get("pod", "engine")["spec"]["nodeName"] == second

    asker = engine(node_name=node_cluster.layout.first_node.name)[0] | {"metadata": {"name": "asker"}}
    on_node.apply(asker)
    on_node("wait", "--for=condition=Ready", "pod/asker", "--timeout=60s")
    ask = "import urllib.request as u; print(u.urlopen('http://engine/v1/models', timeout=10).status)"
    assert on_node("exec", "asker", "--", "python", "-c", ask).strip() == "200"
    assert "engine sim at" in on_node("logs", "engine")
    with closing(http.client.HTTPConnection(on_node.get("pod", "engine")["status"]["podIP"], 8000, timeout=10)) as machine:
        machine.request("GET", "/health")
        assert machine.getresponse().status == 200

    on_node("drain", second, "--force", "--ignore-daemonsets", "--timeout=60s")
    eventually(lambda: [pod["metadata"]["name"] for pod in on_node.get("pods")["items"]] == ["asker"], seconds=20)
    on_node("delete", "node", second)  # else pods are sent to it until it is missed
    lifecycle.stop(node_cluster, second)
