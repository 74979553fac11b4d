"""Replicas follow the load in a cluster: up and down, from zero and back, beside another autoscaler, and the idle pod goes first.

One Deployment for all of it. Its ModelBackend has the shortest windows that the API takes, so that minutes become seconds; everything else
is as a user has it.
"""

import contextlib
import json
import re
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.chart.conftest import Installed
from e2e.chart.readme import Shell
from e2e.chart.waves import Waves, waves
from e2e.cluster.layout import PROJECT
from e2e.kubectl import Kubectl, eventually

from spillway_wire import VERSION

DOCUMENT = (PROJECT / "docs" / "autoscalers.md").read_text()
TARGET = "scaled/Deployment/engine"
TOKENS = 40  # 0.8 s of an engine that does five requests a second

ENGINES = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: engine}
spec:
  replicas: 1
  selector: {matchLabels: {app: engine}}
  template:
    metadata: {labels: {app: engine, spillway.dev/inject: "true"}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: engine
          image: IMAGE
          args: [sim-engine, --host, $(SPILLWAY_ENGINE_HOST), --port, $(SPILLWAY_ENGINE_PORT), --model, one, --max-running, "4"]
          ports: [{containerPort: 8000}]
          resources: {requests: {cpu: 50m}}
          readinessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 1}
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {name: engine}
spec:
  provider: VLLM
  model: one
  pods: {selector: {matchLabels: {app: engine}}, port: 8000}
  limits: {maxConcurrency: 4}
  scaling:
    targetRef: {name: engine}
    minReplicas: 1
    maxReplicas: 4
    windowSeconds: 6
    idleAfter: 5s
    target: {queueDepth: 4}
    behavior: {scaleDown: {stabilizationWindowSeconds: 15}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {name: scaled}
spec:
  models: [scaled]
  flowControl: {maxRequests: 1000, maxWait: 60s}
  rules: [{name: all, backendRefs: [{name: engine}]}]
"""


@pytest.fixture(scope="module")
def scaled(installed: Installed) -> Iterator[Kubectl]:
    """A namespace with one engine behind a backend that scales."""
    kubectl = Kubectl(installed.cluster.environment(), "scaled")
    kubectl("create", "namespace", "scaled")
    kubectl("label", "namespace", "scaled", "spillway.dev/injection=enabled")
    kubectl.apply(*yaml.safe_load_all(ENGINES.replace("IMAGE", f"spillway/cli:{VERSION}")))
    kubectl("rollout", "status", "deployment/engine", "--timeout=60s")
    kubectl("wait", "--for=condition=Ready", "mroute/scaled", "--timeout=30s")
    eventually(lambda: condition(kubectl)["status"] == "True", seconds=30, every=0.5)
    yield kubectl
    kubectl("delete", "namespace", "scaled", "--wait=false")


@pytest.fixture(autouse=True)
def as_it_was(scaled: Kubectl) -> None:
    """What the test before did is over, whatever came of it."""
    settings(scaled, minReplicas=1, replicas=None)
    scaled("delete", "hpa", "--all")


def sending(installed: Installed, tokens: int = TOKENS) -> contextlib.AbstractContextManager[Waves]:
    address = installed.system.get("service", "spillway-gateway")["spec"]["clusterIP"]
    return waves(installed.cluster, f"http://{address}/v1/chat/completions", "scaled", tokens)


@contextlib.contextmanager
def followed(kubectl: Kubectl, *arguments: str) -> Iterator[list[str]]:
    """The lines of `kubectl get --watch`, complete after the block."""
    lines: list[str] = []
    with tempfile.TemporaryFile("w+") as out:
        watch = subprocess.Popen(kubectl.command("get", "--watch", *arguments), stdout=out, env={**kubectl.environment})
        try:
            yield lines
        finally:
            watch.terminate()
            watch.wait()
            out.seek(0)
            lines += [line.strip() for line in out if line.strip()]


def replicas(kubectl: Kubectl) -> int:
    found: int = kubectl.get("deployment", "engine")["spec"]["replicas"]
    return found


def condition(kubectl: Kubectl, name: str = "ScalingActive") -> dict[str, Any]:
    conditions = kubectl.get("mbackend", "engine").get("status", {}).get("conditions", [])
    found: dict[str, Any] = next((each for each in conditions if each["type"] == name), {"status": "", "reason": ""})
    return found


def settings(kubectl: Kubectl, **scaling: Any) -> None:
    kubectl("patch", "mbackend", "engine", "--type=merge", f"--patch={json.dumps({'spec': {'scaling': scaling}})}")


def metrics(installed: Installed) -> str:
    """Those of the operator that leads."""
    for pod in installed.pods(installed.system, "app.kubernetes.io/component=operator"):
        with urllib.request.urlopen(f"http://{pod['status']['podIP']}:8081/metrics", timeout=5) as reply:
            text: str = reply.read().decode()
            if "\nspillway_operator_leader 1.0" in text:
                return text
    raise AssertionError("nobody leads")


def turns(numbers: list[int]) -> int:
    """How often a row of numbers changes its direction."""
    steps = [after - before for before, after in pairwise(numbers) if after != before]
    return sum((one > 0) != (other > 0) for one, other in pairwise(steps))


@pytest.mark.timeout(400)
def test_replicas_follow_a_load_that_rises_and_falls(installed: Installed, scaled: Kubectl) -> None:
    numbers = "--output=jsonpath={.spec.replicas}{'\\n'}"
    with (
        followed(scaled, "deployment", "engine", numbers) as course,
        followed(scaled, "modelbackends", "engine", "--output=wide") as table,
        sending(installed) as load,
    ):
        load.rate(2.0)
        eventually(lambda: condition(scaled)["reason"] in {"Steady", "AtMinReplicas"}, seconds=40, every=0.5)
        load.rate(6.0)
        eventually(lambda: replicas(scaled) >= 2, seconds=90, every=0.5)
        load.rate(12.0)
        eventually(lambda: replicas(scaled) >= 3, seconds=90, every=0.5)
        scaled("rollout", "status", "deployment/engine", "--timeout=60s")
        eventually(
            lambda: scaled.get("mbackend", "engine")["status"]["summary"]["replicas"] in {"3/3", "4/4"}, seconds=40, every=0.5
        )
        load.rate(1.0)
        eventually(lambda: replicas(scaled) == 1, seconds=150, every=0.5)
    print(f"replicas: {' '.join(course)}")
    assert load.lost == 0, load.failures
    assert load.sent > 300
    assert load.again < load.sent * 0.1
    assert turns([int(number) for number in course]) == 1

    header, *rows = (re.split(r" {2,}", line) for line in table)
    assert header[-1] == "AGE"
    places = header.index("REPLICAS"), header.index("SCALING")
    shown = [(line[table[0].index("REPLICAS") :].split()[0], line[table[0].index("SCALING") :].split()[0]) for line in table[1:]]
    print(f"kubectl get modelbackends: {' '.join(dict.fromkeys('='.join(pair) for pair in shown))}")
    assert places
    assert rows
    assert all(re.fullmatch(r"\d/\d", pair) for pair, _ in shown)
    assert any(pair[0] != pair[2] for pair, _ in shown), "what there is and what there should be"
    assert {"Lowered"} < {reason for _, reason in shown}
    assert {"Raised", "Panic"} & {reason for _, reason in shown}


@pytest.mark.timeout(300)
def test_from_zero_no_request_is_lost(installed: Installed, scaled: Kubectl) -> None:
    settings(scaled, minReplicas=0)
    eventually(lambda: replicas(scaled) == 0, seconds=90, every=0.5)
    scaled("wait", "--for=delete", "pod", "--selector=app=engine", "--timeout=60s")
    eventually(lambda: condition(scaled)["reason"] == "Idle", seconds=30, every=0.5)
    with sending(installed, 5) as load:
        load.burst(200)
        eventually(lambda: replicas(scaled) >= 1, seconds=30)
        set_at = scaled_at(installed)
    assert load.lost == 0, load.failures
    assert load.sent == 200
    print(f"from zero: replicas were set {(set_at - load.first_at) * 1000:.0f} ms after the first of 200 requests was sent")
    assert set_at - load.first_at < 10.0


def scaled_at(installed: Installed) -> float:
    """When the operator that leads last set the replicas, by its wall clock; 0 where it has not."""
    found = re.search(
        rf'^spillway_operator_target_scaled_timestamp_seconds{{target="{TARGET}"}} (\S+)', metrics(installed), re.MULTILINE
    )
    return float(found[1]) if found is not None else 0.0


@pytest.mark.timeout(200)
def test_the_idle_pod_goes_first_and_the_busy_one_ends_what_it_does(scaled: Kubectl) -> None:
    """The newest of equal pods would go: so that is the one to be kept busy."""
    scaled("scale", "mbackend/engine", "--replicas=2")
    eventually(lambda: replicas(scaled) == 2, seconds=20, every=0.5)
    scaled("rollout", "status", "deployment/engine", "--timeout=60s")
    eventually(lambda: len(living(scaled)) == 2, seconds=20, every=0.5)
    pods = sorted(living(scaled), key=lambda pod: str(pod["metadata"]["creationTimestamp"]))
    idle, busy = (pod["metadata"]["name"] for pod in pods)
    with streaming(pods[1]["status"]["podIP"], seconds=30) as stream:
        eventually(lambda: cost(scaled, busy) > 1000, seconds=30, every=0.5)
        scaled("scale", "mbackend/engine", "--replicas=1")
        scaled("wait", "--for=delete", f"pod/{idle}", "--timeout=60s")
        assert [pod["metadata"]["name"] for pod in living(scaled)] == [busy]
    assert stream.out.endswith("data: [DONE]\n\n")


def living(kubectl: Kubectl) -> list[dict[str, Any]]:
    """The engines' pods that were not told to end."""
    return [pod for pod in kubectl.get("pods", "--selector=app=engine")["items"] if "deletionTimestamp" not in pod["metadata"]]


@dataclass(slots=True)
class Stream:
    """One request under way; its whole answer afterwards."""

    out: str = ""


@contextlib.contextmanager
def streaming(address: str, *, seconds: int) -> Iterator[Stream]:
    """A stream of so many seconds from the engine in one pod."""
    body = {"model": "one", "stream": True, "max_tokens": seconds * 50, "messages": [{"role": "user", "content": "hi " * 50}]}
    request = urllib.request.Request(
        f"http://{address}:19080/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    stream = Stream()
    with urllib.request.urlopen(request, timeout=60) as reply:
        yield stream
        stream.out = reply.read().decode()


def cost(kubectl: Kubectl, pod: str) -> int:
    annotations = kubectl.get("pod", pod)["metadata"].get("annotations", {})
    return int(annotations.get("controller.kubernetes.io/pod-deletion-cost", 0))


def documented(language: str, word: str) -> str:
    """The block of the document that has this word, for what there is here."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", DOCUMENT, re.DOTALL | re.MULTILINE)
    (found,) = (block for block in blocks if word in block)
    text: str = found.replace("llama-70b", "engine").replace("namespace: ml", "namespace: scaled").replace('"ml/', '"scaled/')
    return text


@pytest.mark.timeout(300)
def test_another_autoscaler_goes_by_our_figures_and_we_step_back(installed: Installed, scaled: Kubectl, tmp_path: Path) -> None:
    shell = Shell(installed.cluster, tmp_path)
    shell.run(documented("sh", "externalMetrics"))
    installed.system("rollout", "status", "deployment/spillway-operator", "--timeout=55s")
    installed.system("wait", "--for=condition=Available", "apiservice/v1beta1.external.metrics.k8s.io", "--timeout=55s")
    figures = "/apis/external.metrics.k8s.io/v1beta1/namespaces/scaled/spillway_operator_backend_waiting_requests?labelSelector=backend%3Dengine"
    eventually(lambda: json.loads(scaled("get", "--raw", figures))["items"], seconds=40, every=0.5)
    eventually(lambda: replicas(scaled) == 1, seconds=90, every=0.5)

    scaled.apply(yaml.safe_load(documented("yaml", "kind: HorizontalPodAutoscaler")))
    eventually(lambda: condition(scaled)["reason"] == "ConflictingAutoscaler", seconds=30, every=0.5)
    assert condition(scaled)["status"] == "False"
    assert "HorizontalPodAutoscaler/engine" in condition(scaled)["message"]
    before = scaled_at(installed)
    with sending(installed) as load:
        load.rate(6.0)
        eventually(lambda: replicas(scaled) >= 2, seconds=90, every=0.5)
    assert load.lost == 0, load.failures
    assert condition(scaled)["reason"] == "ConflictingAutoscaler"
    assert scaled_at(installed) == before
    (metric,) = scaled.get("hpa", "engine")["status"]["currentMetrics"]
    assert metric["external"]["metric"]["name"] == "spillway_operator_backend_replicas_desired"
    assert any(event["reason"] == "SuccessfulRescale" for event in scaled.get("events")["items"])

    scaled("delete", "hpa", "engine")
    eventually(lambda: condition(scaled)["status"] == "True", seconds=30, every=0.5)


def test_the_query_for_keda_is_one_of_our_metrics(installed: Installed, scaled: Kubectl) -> None:  # noqa: ARG001 - its backend
    (trigger,) = yaml.safe_load(documented("yaml", "kind: ScaledObject"))["spec"]["triggers"]
    series = re.fullmatch(r"max\((\w+\{.*\})\)", trigger["metadata"]["query"])
    assert series is not None
    assert re.search(rf"^{re.escape(series[1])} \d", metrics(installed), re.MULTILINE)
