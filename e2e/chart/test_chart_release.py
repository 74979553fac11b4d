"""The chart installed, upgraded and taken away; and what its operator may do then."""

import base64
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from e2e.chart.releases import CHART, NAME, Helm, Release, installed
from e2e.kubectl import Kubectl


@pytest.fixture
def release(ours: Kubectl) -> Iterator[Release]:
    with installed(ours) as made:
        yield made


def certificate(kubectl: Kubectl) -> dict[str, str]:
    data: dict[str, str] = kubectl.get("secret", f"{NAME}-tls")["data"]
    return data


def webhook(kubectl: Kubectl) -> dict[str, Any]:
    found: dict[str, Any] = kubectl.get("mutatingwebhookconfiguration", f"{NAME}-webhook-{kubectl.namespace}")["webhooks"][0]
    return found


def test_an_upgrade_keeps_the_certificate(release: Release) -> None:
    """Sidecars trust its authority for as long as their pods live."""
    before = certificate(release.kubectl)
    release.upgrade("gateway.replicas=3")
    assert certificate(release.kubectl) == before
    assert webhook(release.kubectl)["clientConfig"]["caBundle"] == before["ca.crt"]
    settings = release.kubectl.get("configmap", f"{NAME}-injection")["data"]["injection.json"]
    assert base64.b64decode(before["ca.crt"]).decode().splitlines()[1] in settings
    assert release.kubectl.get("deployment", f"{NAME}-gateway")["spec"]["replicas"] == 3


def test_other_names_make_another_certificate(release: Release) -> None:
    before = certificate(release.kubectl)
    release.upgrade("fullnameOverride=other")
    assert release.kubectl.get("secret", "other-tls")["data"]["tls.crt"] != before["tls.crt"]


def test_the_certificate_is_for_the_services_and_from_the_authority(
    release: Release, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("tls")
    for name, text in certificate(release.kubectl).items():
        (folder / name).write_bytes(base64.b64decode(text))
    for service in ("operator", "webhook", "external-metrics"):
        subprocess.run(
            ["openssl", "verify", "-x509_strict", "-CAfile", folder / "ca.crt", "-verify_hostname",
             f"{NAME}-{service}.{release.kubectl.namespace}.svc", folder / "tls.crt"],
            check=True, capture_output=True,
        )  # fmt: skip


def test_taken_away_it_leaves_the_kinds_and_what_users_declared(ours: Kubectl) -> None:
    with installed(ours) as release:
        release.helm("uninstall", NAME, "--wait")
    left = ours("get", "deployment,service,secret,configmap,role,networkpolicy,poddisruptionbudget", "--output=name").split()
    assert left == ["configmap/kube-root-ca.crt"]
    for kind in ("clusterrole", "clusterrolebinding", "mutatingwebhookconfiguration"):
        assert str(ours.namespace) not in ours("get", kind, "--output=name")
    assert "modelroutes.spillway.dev" in ours("get", "crd", "--output=name")


def test_two_releases_stand_side_by_side(ours: Kubectl, crds: Kubectl) -> None:
    other = f"{ours.namespace}-b"
    crds("create", "namespace", other)
    try:
        with installed(ours):
            said = Helm(crds.within(other)).said("install", NAME, str(CHART), "--set", "crds.enabled=false")
            assert said.code == 0, said.err
            Helm(crds.within(other))("uninstall", NAME)
    finally:
        crds("delete", "namespace", other, "--wait=false")


MAY = [
    ("list", "modelroutes.spillway.dev", "default"),
    ("watch", "modelbackends.spillway.dev", "default"),
    ("patch", "modelroutes.spillway.dev/status", "default"),
    ("watch", "pods", "default"),
    ("watch", "endpointslices.discovery.k8s.io", "default"),
    ("create", "events.events.k8s.io", "default"),
    ("get", "deployments.apps/scale", "default"),
    ("patch", "statefulsets.apps/scale", "default"),
    ("list", "horizontalpodautoscalers.autoscaling", "default"),
    ("patch", "pods/status", "default"),
    ("create", "tokenreviews.authentication.k8s.io", ""),
    ("update", "leases.coordination.k8s.io/spillway-operator", None),
    ("create", "leases.coordination.k8s.io", None),
]
MAY_NOT = [
    *((verb, "secrets", place) for verb in ("get", "list", "watch") for place in ("default", None)),
    ("patch", "modelroutes.spillway.dev", "default"),
    ("delete", "modelbackends.spillway.dev", "default"),
    ("get", "configmaps", None),
    ("patch", "pods", None),
    ("patch", "deployments.apps", "default"),
    ("update", "pods/ephemeralcontainers", "default"),
    ("patch", "replicasets.apps/scale", "default"),
    ("delete", "pods", "default"),
    ("create", "pods", None),
    ("patch", "mutatingwebhookconfigurations.admissionregistration.k8s.io", ""),
    ("update", "leases.coordination.k8s.io/another", None),
    ("update", "leases.coordination.k8s.io/spillway-operator", "default"),
    ("create", "rolebindings.rbac.authorization.k8s.io", None),
    ("impersonate", "users", ""),
]


def test_the_operator_may_do_what_it_needs_and_no_more(release: Release) -> None:
    """`None` stands for the release's namespace, "" for the cluster."""

    def may(verb: str, resource: str, place: str | None) -> bool:
        where = release.kubectl if place is None else release.kubectl.within(place)
        kind, slash, name = resource.partition("/")
        asked = [kind, f"--subresource={name}"] if name in {"status", "scale", "ephemeralcontainers"} else [f"{kind}{slash}{name}"]
        return where.acting_as(release.operator).said("auth", "can-i", "--quiet", verb, *asked).code == 0

    assert [one for one in MAY if not may(*one)] == []
    assert [one for one in MAY_NOT if may(*one)] == []


def test_gateways_may_do_nothing(release: Release) -> None:
    account = f"system:serviceaccount:{release.kubectl.namespace}:{NAME}-gateway"
    said = release.kubectl.acting_as(account)("auth", "can-i", "--list", "--no-headers")
    granted = [line for line in said.splitlines() if line.split()[0] and "selfsubject" not in line and "[/" not in line]
    assert granted == []
