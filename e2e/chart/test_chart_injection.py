"""Pods that the chart's webhook changes, served by an operator that has the chart's rights and no others.

The operator runs on this machine, so the webhook's address is put in place of the Service's.
"""

import base64
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from e2e.chart.releases import NAME, Release, installed
from e2e.control_plane.processes import Bench, Operator, backend, bench, soon
from e2e.kubectl import Kubectl
from tests.fakes.ports import free_port

from spillway_operator.injection import inbound_port

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("KUBECONFIG")),
    reason="the API server has to reach a webhook on this machine: unset KUBECONFIG to have these",
)


@pytest.fixture
def served(ours: Kubectl, crds: Kubectl, tmp_path: Path) -> Iterator[tuple[Kubectl, Operator]]:
    """A namespace whose pods may ask for sidecars, and the operator that serves the webhook."""
    users = f"{ours.namespace}-users"
    crds("create", "namespace", users)
    crds("label", "namespace", users, "spillway.dev/injection=enabled", "pod-security.kubernetes.io/enforce=restricted")
    try:
        with installed(ours) as release, bench(ours, tmp_path) as parts:
            operator = serve(release, parts, tmp_path)
            yield crds.within(users), operator
    finally:
        crds("delete", "namespace", users, "--wait=false")


def serve(release: Release, parts: Bench, folder: Path) -> Operator:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(folder / "tls.key")
    issued.cert_chain_pems[0].write_to_path(folder / "tls.crt")
    authority.cert_pem.write_to_path(folder / "ca.crt")
    (folder / "injection.json").write_text(release.kubectl.get("configmap", f"{NAME}-injection")["data"]["injection.json"])
    port = free_port()
    options = ["--injection-config", folder / "injection.json", "--operator-ca-file", folder / "ca.crt", "--webhook-port", port]
    options += ["--tls-cert-file", folder / "tls.crt", "--tls-key-file", folder / "tls.key", "--lease-name", f"{NAME}-operator"]
    options += ["--watch-namespace", f"{release.kubectl.namespace}-users"]
    operator = parts.operator("a", *map(str, options), kubeconfig=release.kubeconfig(folder / "kubeconfig"))
    soon(lambda: operator.ready)
    client = {"url": f"https://localhost:{port}/v1/inject", "caBundle": base64.b64encode(authority.cert_pem.bytes()).decode()}
    patch = [{"op": "replace", "path": "/webhooks/0/clientConfig", "value": client}]
    name = f"{NAME}-webhook-{release.kubectl.namespace}"
    release.kubectl("patch", "mutatingwebhookconfiguration", name, "--type=json", f"--patch={json.dumps(patch)}")
    return operator


def engine(name: str, label: str | None = "true", **spec: Any) -> dict[str, Any]:
    labels = {"app": "fast"} | ({"spillway.dev/inject": label} if label is not None else {})
    context = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True, "runAsUser": 1000}
    container = {"name": "engine", "image": "engine.invalid/x", "ports": [{"containerPort": 8000}, {"containerPort": 9000}],
                 "readinessProbe": {"httpGet": {"path": "/ready", "port": 8000}},
                 "securityContext": {**context, "seccompProfile": {"type": "RuntimeDefault"}}}  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": [container], **spec},
    }


def made(kubectl: Kubectl, pod: dict[str, Any]) -> Any:
    kubectl.apply(pod)
    return kubectl.get("pod", pod["metadata"]["name"])


def test_a_pod_that_asks_gets_its_sidecar(served: tuple[Kubectl, Operator]) -> None:
    """In a namespace that allows restricted pods only; the port is that of the backend that selects the pod."""
    kubectl, operator = served
    kubectl.apply(backend())
    soon(lambda: operator.json("/api/v1/modelbackends")["items"])

    def injected() -> Any:
        pod = made(kubectl, engine("asks"))
        if inbound_port(pod) is None:  # an API server learns of another webhook's address within a second
            kubectl("delete", "pod", "asks", "--now")
        return pod if inbound_port(pod) else None

    pod = soon(injected)
    (sidecar,) = pod["spec"]["initContainers"]
    values = {one["name"]: one.get("value") for one in sidecar["env"]}
    assert values["SPILLWAY_ENGINE"] == "http://127.0.0.1:8000"
    assert values["SPILLWAY_OPERATOR"].startswith(f"https://{NAME}-operator.")
    assert "BEGIN CERTIFICATE" in pod["metadata"]["annotations"]["spillway.dev/operator-ca"]
    assert pod["spec"]["containers"][0]["readinessProbe"]["httpGet"]["port"] == 19080
    assert pod["spec"]["terminationGracePeriodSeconds"] == 45
    assert operator.json("/info")["webhook"]["outcomes"]["injected"] >= 1

    plain = made(kubectl, engine("silent", label=None))
    assert inbound_port(plain) is None
    refusing = made(kubectl, engine("refuses", label="false"))
    assert inbound_port(refusing) is None


def test_who_applies_a_pod_that_cannot_have_one_is_told_why(served: tuple[Kubectl, Operator]) -> None:
    kubectl, _ = served

    def told() -> bool:
        said = kubectl.said("apply", "--server-side", "--dry-run=server", "--filename=-", given=engine("two-ports"))
        assert said.code == 0, said.err
        return "Warning: spillway: this pod gets no sidecar: the engine's port is not known" in said.err

    soon(told)


def test_without_the_operator_pods_start_as_they_are(served: tuple[Kubectl, Operator]) -> None:
    kubectl, operator = served
    operator.kill()
    assert inbound_port(made(kubectl, engine("alone"))) is None


def test_our_own_namespace_is_never_touched(served: tuple[Kubectl, Operator], ours: Kubectl) -> None:
    _, operator = served
    ours("label", "namespace", str(ours.namespace), "spillway.dev/injection=enabled")
    before = operator.json("/info")["webhook"]["outcomes"]
    assert inbound_port(made(ours, engine("ours"))) is None
    assert operator.json("/info")["webhook"]["outcomes"] == before, "the API server does not even ask"
