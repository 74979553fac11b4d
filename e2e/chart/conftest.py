"""An installation as a user has it: made by the README's commands, and taken away by them."""

import contextlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.chart.evidence import evidence
from e2e.chart.readme import Shell, blocks
from e2e.chart.traffic import Traffic, traffic
from e2e.cluster import lifecycle
from e2e.kubectl import Kubectl

from spillway_wire import VERSION

ENGINES = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: engine}
spec:
  replicas: 2
  selector: {matchLabels: {app: engine}}
  template:
    metadata: {labels: {app: engine, spillway.dev/inject: "true"}}
    spec:
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      topologySpreadConstraints:
        - {topologyKey: kubernetes.io/hostname, maxSkew: 1, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: engine}}}
      containers:
        - name: engine
          image: IMAGE
          args: [sim-engine, --host, $(SPILLWAY_ENGINE_HOST), --port, $(SPILLWAY_ENGINE_PORT), --model, one]
          ports: [{containerPort: 8000}]
          resources: {requests: {cpu: 100m}}
          readinessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 1}
          livenessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 2, timeoutSeconds: 2}
          securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {name: engine}
spec: {provider: VLLM, model: one, pods: {selector: {matchLabels: {app: engine}}, port: 8000}}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {name: steady}
spec: {models: [steady], rules: [{name: all, backendRefs: [{name: engine}]}]}
"""


@dataclass(slots=True)
class Installed:
    """The cluster that the README's commands have made something of."""

    cluster: lifecycle.Cluster
    system: Kubectl  # in the release's namespace
    users: Kubectl  # in that of the README's engines
    said: dict[str, str]  # what each block of commands printed

    def under_load(self, rate: float, most: int = 1_000_000) -> contextlib.AbstractContextManager[Traffic]:
        """Traffic to model `steady` through the gateway's Service, from the node."""
        address = self.system.get("service", "spillway-gateway")["spec"]["clusterIP"]
        return traffic(self.cluster, f"http://{address}/v1/chat/completions", rate, most)

    def pods(self, kubectl: Kubectl, selector: str = "") -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = kubectl.get("pods", f"--selector={selector}")["items"]
        return found

    def restarts(self) -> dict[str, int]:
        """How often containers of the installation and of pods with sidecars were started again, by pod and container."""
        everywhere = Kubectl(self.system.environment)
        return {
            f"{pod['metadata']['name']}/{one['name']}": one["restartCount"]
            for pod in everywhere.get("pods", "--all-namespaces", "--selector=app!=kube-dns")["items"]
            for kind in ("initContainerStatuses", "containerStatuses")
            for one in pod["status"].get(kind, [])
        }


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failed test shows what the installation says of itself at that moment."""
    report = yield
    made = getattr(item, "funcargs", {}).get("installed")
    if report.failed and report.when != "teardown" and made is not None:
        report.sections.append(("the installation", evidence(made.system)))
    return report


@pytest.fixture(scope="session")
def installed(
    node_cluster: lifecycle.Cluster,
    project_images: Path,  # noqa: ARG001 - the nodes have them
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Installed]:
    """By every command of the README's section but those that take it away, which come at the end."""
    kubectl = Kubectl(node_cluster.environment())
    shell = Shell(node_cluster, tmp_path_factory.mktemp("readme"))
    *steps, away = blocks()
    try:
        said = {step: shell.run(step) for step in steps}
        yield Installed(node_cluster, kubectl.within("spillway-system"), kubectl.within("ml"), said)
    finally:
        shell.run(away)
        shell.close()


@pytest.fixture(scope="session")
def steady(installed: Installed) -> Iterator[Kubectl]:
    """A namespace with two engines behind one backend and nothing to fall back on, under Pod Security's level restricted."""
    kubectl = Kubectl(installed.cluster.environment(), "steady")
    kubectl("create", "namespace", "steady")
    kubectl("label", "namespace", "steady", "spillway.dev/injection=enabled", "pod-security.kubernetes.io/enforce=restricted")
    kubectl.apply(*yaml.safe_load_all(ENGINES.replace("IMAGE", f"spillway/cli:{VERSION}")))
    kubectl("rollout", "status", "deployment/engine", "--timeout=60s")
    kubectl("wait", "--for=condition=Ready", "mroute/steady", "--timeout=30s")
    yield kubectl
    kubectl("delete", "namespace", "steady", "--wait=false")
