"""Helm as the tests call it, and a release of the chart in a namespace of its own."""

import contextlib
import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from e2e.kubectl import Kubectl, Said

CHART = Path(__file__).resolve().parents[2] / "charts" / "spillway"
NAME = "spillway"
TIMEOUT_SECONDS = 120.0
MONITORING = ("ServiceMonitor", "PodMonitor", "PrometheusRule")
EVERYTHING = (
    "operator.watchNamespaces={default}",
    "operator.allowHosts={10.0.0.0/8}",
    "operator.podSelector=a=b",
    "gateway.accessLog=true",
    "gateway.autoscaling.enabled=true",
    "gateway.externalCASecret=authorities",
    "gateway.service.type=LoadBalancer",
    "gateway.service.nodePort=30080",
    "gateway.providerSecrets[0].namespace=ml",
    "gateway.providerSecrets[0].name=openai",
    "gateway.providerSecrets[1].namespace=ml",
    "gateway.providerSecrets[1].name=other",
    "gateway.providerSecrets[1].secret=ml-other",
    "externalMetrics.enabled=true",
    "networkPolicy.operatorEgress.enabled=true",
    "networkPolicy.clientsFrom[0].podSelector.matchLabels.a=b",
    "images.pullSecrets[0].name=registry",
    "commonLabels.team=models",
    "operator.priorityClassName=system-cluster-critical",
    "gateway.tolerations[0].operator=Exists",
)


@dataclass(frozen=True, slots=True)
class Helm:
    """helm for one cluster and one namespace."""

    kubectl: Kubectl

    def said(self, *arguments: str) -> Said:
        done = subprocess.run(
            ["helm", f"--namespace={self.kubectl.namespace}", *arguments],
            env={**os.environ, **self.kubectl.environment},
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def __call__(self, *arguments: str) -> str:
        said = self.said(*arguments)
        assert said.code == 0, f"helm {' '.join(arguments)}: {said.err}"
        return said.out

    def template(self, *values: str, kinds: Sequence[str] = ()) -> list[dict[str, Any]]:
        """The objects of the chart with these values, on a cluster that has the Prometheus operator's `kinds`."""
        has = [part for kind in kinds for part in ("--api-versions", f"monitoring.coreos.com/v1/{kind}")]
        text = self("template", NAME, str(CHART), *has, *_set(values))
        return [document for document in yaml.safe_load_all(text) if document]


@dataclass(frozen=True, slots=True)
class Release:
    """An installed release; `kubectl` is for its namespace."""

    helm: Helm
    kubectl: Kubectl

    @property
    def operator(self) -> str:
        """The operator, as RBAC knows it."""
        return f"system:serviceaccount:{self.kubectl.namespace}:{NAME}-operator"

    def upgrade(self, *values: str) -> None:
        self.helm("upgrade", NAME, str(CHART), "--reset-then-reuse-values", *_set(values))

    def kubeconfig(self, file: Path) -> Path:
        """A kubeconfig with the operator's own rights, in `file`."""
        token = self.kubectl("create", "token", f"{NAME}-operator").strip()
        config = json.loads(self.kubectl("config", "view", "--raw", "--flatten", "--minify", "--output=json"))
        config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
        file.write_text(json.dumps(config))
        return file


@contextlib.contextmanager
def installed(kubectl: Kubectl, *values: str) -> Iterator[Release]:
    """The chart in `kubectl`'s namespace. The CRDs are there already, from elsewhere."""
    helm = Helm(kubectl)
    # Nothing runs on this tier: Helm is not to wait for pods.
    helm("install", NAME, str(CHART), "--take-ownership", "--force-conflicts", *_set(values))
    try:
        yield Release(helm, kubectl)
    finally:
        helm.said("uninstall", NAME, "--ignore-not-found")


def _set(values: Sequence[str]) -> list[str]:
    return [part for value in values for part in ("--set", value)]
