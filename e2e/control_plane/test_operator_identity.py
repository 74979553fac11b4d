"""With the rights it needs and no others: the operator as a service account, proxies as pods with tokens, TLS between them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from e2e.control_plane.processes import Bench, Proxy, backend, bench, pod, route, run_pod, soon
from e2e.kubectl import Kubectl
from tests.fakes.ports import free_port

RULES: list[dict[str, Any]] = [
    {"apiGroups": ["spillway.dev"], "resources": ["modelbackends", "modelroutes"], "verbs": ["get", "list", "watch"]},
    {"apiGroups": ["spillway.dev"], "resources": ["modelbackends/status", "modelroutes/status"], "verbs": ["patch"]},
    {"apiGroups": [""], "resources": ["pods", "services"], "verbs": ["list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
    {"apiGroups": ["events.k8s.io"], "resources": ["events"], "verbs": ["create"]},
    {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
    {
        "apiGroups": ["coordination.k8s.io"],
        "resources": ["leases"],
        "resourceNames": ["spillway-operator"],
        "verbs": ["get", "update"],
    },
]
REVIEW = [{"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]}]


@pytest.fixture
def parts(ours: Kubectl, tmp_path: Path) -> Iterator[Bench]:
    with bench(ours, tmp_path) as made:
        yield made
    ours("delete", "clusterrole,clusterrolebinding", f"reviews-{ours.namespace}", "--ignore-not-found")


def service_account(kubectl: Kubectl, folder: Path) -> Path:
    """A kubeconfig with the operator's own rights."""
    namespace = kubectl.namespace
    account = [{"kind": "ServiceAccount", "name": "operator", "namespace": namespace}]
    role = {"apiGroup": "rbac.authorization.k8s.io"}
    group = "rbac.authorization.k8s.io/v1"
    kubectl("create", "serviceaccount", "operator")
    kubectl.apply(
        {"apiVersion": group, "kind": "Role", "metadata": {"name": "operator"}, "rules": RULES},
        {"apiVersion": group, "kind": "RoleBinding", "metadata": {"name": "operator"}, "subjects": account,
         "roleRef": {**role, "kind": "Role", "name": "operator"}},
        {"apiVersion": group, "kind": "ClusterRole", "metadata": {"name": f"reviews-{namespace}"}, "rules": REVIEW},
        {"apiVersion": group, "kind": "ClusterRoleBinding", "metadata": {"name": f"reviews-{namespace}"}, "subjects": account,
         "roleRef": {**role, "kind": "ClusterRole", "name": f"reviews-{namespace}"}},
    )  # fmt: skip
    token = kubectl("create", "token", "operator").strip()
    config = json.loads(kubectl("config", "view", "--raw", "--flatten", "--minify", "--output=json"))
    config["users"] = [{"name": config["contexts"][0]["context"]["user"], "user": {"token": token}}]
    made = folder / "operator.kubeconfig"
    made.write_text(json.dumps(config))
    return made


def token_of(kubectl: Kubectl, name: str, account: str, folder: Path, audience: str = "spillway") -> Path:
    """What the kubelet would project into the pod."""
    text = kubectl("create", "token", account, f"--audience={audience}", "--bound-object-kind=Pod", f"--bound-object-name={name}")
    made = folder / f"{name}-{audience.rpartition('/')[2]}.token"
    made.write_text(text)
    return made


def test_a_proxy_speaks_for_its_own_pod_only(parts: Bench, tmp_path: Path) -> None:
    kubectl = parts.kubectl
    namespace = str(kubectl.namespace)
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(tmp_path / "tls.key")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "tls.crt")
    kubectl("create", "serviceaccount", "gateway")
    one, gate = pod("one", "fast", sidecar_port=19080), pod("gate", "gate")
    one["spec"]["serviceAccountName"], gate["spec"]["serviceAccountName"] = "default", "gateway"
    kubectl.apply(one, gate, backend(), route())
    run_pod(kubectl, "one", "10.1.0.1")
    operator = parts.operator(
        "a", "--tls-cert-file", str(tmp_path / "tls.crt"), "--tls-key-file", str(tmp_path / "tls.key"),
        "--gateway-service-account", f"{namespace}/gateway",
        kubeconfig=service_account(kubectl, tmp_path), authentication="token",
    )  # fmt: skip
    soon(lambda: operator.leads)
    url = f"https://localhost:{parts.discovery_port}"

    def proxy(node: str, pod_name: str, token: Path | None, scope: str, *options: str) -> Proxy:
        shown = () if token is None else ("--operator-token-file", str(token))
        return parts.gateway(
            f"{namespace}/{node}", "--pod", pod_name, "--namespace", scope, "--operator-ca-file", str(tmp_path / "ca.pem"),
            *shown, *options, url=url,
        )  # fmt: skip

    token = token_of(kubectl, "one", "default", tmp_path)
    sidecar = proxy("one", "one", token, namespace, "--role", "sidecar", "--inbound-port", str(free_port()))
    soon(lambda: sidecar.connected)
    gateway = proxy("gate", "gate", token_of(kubectl, "gate", "gateway", tmp_path), "")
    soon(lambda: gateway.connected and ("route", f"{namespace}/chat") in gateway.config)
    kubectl("wait", "--for=condition=Programmed", "mroute/chat", "--timeout=20s")

    refused = {
        "another pod's name": proxy("two", "two", token, namespace),
        "all namespaces, without being a gateway": proxy("one", "one", token, "", "--state-dir", str(tmp_path / "wide")),
        "no token": proxy("three", "three", None, namespace),
        "a token for somebody else": proxy(
            "four", "four", token_of(kubectl, "one", "default", tmp_path, "https://kubernetes.default.svc"), namespace
        ),
    }
    soon(lambda: operator.json("/info")["discovery"]["refused_total"]["unauthenticated"] >= 2, seconds=20)
    soon(lambda: operator.json("/info")["discovery"]["closed_total"].get("forbidden", 0) >= 2, seconds=20)
    for what, each in refused.items():
        assert not each.config, what
    assert sidecar.connected
    assert token.read_text().strip() not in operator.log.read_text()
