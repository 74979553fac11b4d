"""The chart with pods that run: from `helm install` to an answer, and all of it replaced under traffic."""

import json
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.chart.releases import CHART, NAME, Helm
from e2e.cluster import lifecycle, node, python_images
from e2e.kubectl import Kubectl, eventually

from spillway_wire import VERSION

TRAFFIC_SECONDS, TRAFFIC_RATE = 45, 50
DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: fast}
spec:
  replicas: 2
  selector: {matchLabels: {app: fast}}
  template:
    metadata: {labels: {app: fast, spillway.dev/inject: "true"}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: engine
          image: IMAGE
          imagePullPolicy: Never
          args: [sim-engine, --host, $(SPILLWAY_ENGINE_HOST), --port, $(SPILLWAY_ENGINE_PORT), --model, fast-1]
          ports: [{containerPort: 8000}]
          readinessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 1}
          livenessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 2}
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {name: fast}
spec: {provider: VLLM, model: fast-1, pods: {selector: {matchLabels: {app: fast}}, port: 8000}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {name: chat}
spec: {models: [chat], rules: [{name: all, backendRefs: [{name: fast}]}]}
"""


@pytest.fixture(scope="module")
def system(node_cluster: lifecycle.Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """The namespace of an installed release, in a cluster that has its images."""
    folder = tmp_path_factory.mktemp("images")
    for component in python_images.COMPONENTS:
        node.load(node_cluster.layout, node_cluster.programs, python_images.build(component, VERSION, folder))
    kubectl = Kubectl(node_cluster.environment(), f"spillway-{secrets.token_hex(3)}")
    kubectl("create", "namespace", str(kubectl.namespace))
    kubectl("label", "namespace", str(kubectl.namespace), "pod-security.kubernetes.io/enforce=restricted")
    helm = Helm(kubectl)
    helm("install", NAME, str(CHART), "--wait", "--timeout=100s", "--take-ownership", "--force-conflicts")
    yield kubectl
    helm("uninstall", NAME, "--wait")
    kubectl("delete", "namespace", str(kubectl.namespace), "--wait=false")


@pytest.fixture(scope="module")
def users(system: Kubectl) -> Iterator[Kubectl]:
    """A namespace with an engine, its backend and a route that is served."""
    kubectl = system.within(f"{system.namespace}-users")
    name = str(kubectl.namespace)
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "spillway.dev/injection=enabled", "pod-security.kubernetes.io/enforce=restricted")
    kubectl.apply(*yaml.safe_load_all(DEPLOYMENT.replace("IMAGE", f"spillway/command:{VERSION}")))
    kubectl("rollout", "status", "deployment/fast", "--timeout=60s")
    kubectl("wait", "--for=condition=Ready", "modelroutes.spillway.dev/chat", "--timeout=30s")
    yield kubectl
    kubectl("delete", "namespace", name, "--wait=false")


def completions(system: Kubectl) -> str:
    address = system.get("service", f"{NAME}-gateway")["spec"]["clusterIP"]
    return f"http://{address}/v1/chat/completions"


def ask(url: str) -> Any:
    body = {"model": "chat", "max_tokens": 3, "messages": [{"role": "user", "content": "hi"}]}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)


def test_a_request_is_answered_by_an_injected_engine(system: Kubectl, users: Kubectl) -> None:
    assert ask(completions(system))["usage"]["completion_tokens"] == 3
    for pod in users.get("pods", "--selector=app=fast")["items"]:
        assert [one["name"] for one in pod["spec"]["initContainers"]] == ["spillway-proxy"]
        assert pod["status"]["initContainerStatuses"][0]["ready"]


def test_the_engine_is_reached_through_its_sidecar_only(users: Kubectl) -> None:
    address = users.get("pods", "--selector=app=fast")["items"][0]["status"]["podIP"]
    with urllib.request.urlopen(f"http://{address}:19080/health", timeout=5) as reply:
        assert reply.status == 200
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://{address}:8000/health", timeout=5)
    request = urllib.request.Request(f"http://{address}:19082/drain", method="POST")
    with pytest.raises(OSError, match="403"):  # from outside of the pod
        urllib.request.urlopen(request, timeout=5)


def test_helm_test_passes(system: Kubectl) -> None:
    assert "Succeeded" in Helm(system)("test", NAME, "--timeout=60s")


def test_everything_is_replaced_and_no_request_fails(system: Kubectl, users: Kubectl, tmp_path: Path) -> None:
    """Engines, gateways and operator at once. Streams of four seconds are under way all the time."""
    command = [sys.executable, "-m", "e2e.chart.steady", completions(system), str(TRAFFIC_SECONDS), str(TRAFFIC_RATE)]
    with (tmp_path / "out").open("w") as out:
        traffic = subprocess.Popen(command, stdout=out)
        try:
            users("rollout", "restart", "deployment/fast")
            system("rollout", "restart", f"deployment/{NAME}-gateway", f"deployment/{NAME}-operator")
            for kubectl, name in ((users, "fast"), (system, f"{NAME}-gateway"), (system, f"{NAME}-operator")):
                kubectl("rollout", "status", f"deployment/{name}", "--timeout=55s")
            assert traffic.wait(TRAFFIC_SECONDS + 60) == 0
        finally:
            traffic.kill()
            traffic.wait()
    results = json.loads((tmp_path / "out").read_text())
    assert [result["failures"] for result in results] == [{}, {}]
    assert sum(result["ok"] for result in results) > TRAFFIC_SECONDS * TRAFFIC_RATE / 2


def test_an_engine_that_hangs_is_restarted_without_waiting_for_a_drain(users: Kubectl) -> None:
    """The kubelet runs the engine's hook before this restart too; it must not wait for the drain that nobody began."""
    pod = users.get("pods", "--selector=app=fast")["items"][0]["metadata"]["name"]
    fault = (
        "import urllib.request as u;"
        'u.urlopen(u.Request(\'http://127.0.0.1:8000/fault\', data=b\'{"hang": {"scope": "all"}}\')).read()'
    )
    users("exec", pod, "--container=engine", "--", "python", "-c", fault)
    # 2 s to the sidecar's word, 3 probes of 2 s, 1 s for the engine to end; the drain would take 30 s.
    eventually(lambda: users.get("pod", pod)["status"]["containerStatuses"][0]["restartCount"], seconds=25, every=0.5)
