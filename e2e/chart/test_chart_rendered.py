"""What Helm makes of the chart, with its defaults and with everything on."""

import os
from dataclasses import replace
from typing import Any

import pytest
from e2e.chart import others_kinds
from e2e.chart.releases import CHART, EVERYTHING, MONITORING, Helm
from e2e.cluster import programs
from e2e.kubectl import Kubectl

VARIANTS = {
    "defaults": (),
    "everything": EVERYTHING,
    "cert-manager": ("certificates.from=certManager",),
    "an issuer": ("certificates.from=certManager", "certificates.certManager.issuerRef.name=mine"),
    "own certificate": ("certificates.from=secret", "certificates.secret=mine", "certificates.caBundle=PEM"),
    "little": ("gateway.enabled=false", "injection.enabled=false", "operator.replicas=1", "networkPolicy.enabled=false"),
}
Objects = list[dict[str, Any]]


@pytest.fixture(scope="module")
def helm() -> Helm:
    """Rendering needs no cluster."""
    return Helm(Kubectl({"PATH": programs.clients().search_path, "KUBECONFIG": "/dev/null"}, "spillway-system"))


@pytest.fixture(scope="module", params=VARIANTS)
def objects(request: pytest.FixtureRequest, helm: Helm) -> Objects:
    return helm.template(*VARIANTS[request.param], kinds=MONITORING)


def pod_specs(objects: Objects) -> list[dict[str, Any]]:
    found = [one["spec"]["template"]["spec"] for one in objects if one["kind"] == "Deployment"]
    return found + [one["spec"] for one in objects if one["kind"] == "Pod"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_lints(helm: Helm, variant: str) -> None:
    said = helm.said("lint", "--strict", str(CHART), *(part for value in VARIANTS[variant] for part in ("--set", value)))
    assert said.code == 0, said.out


def test_names_are_unique_and_labelled(objects: Objects) -> None:
    names = [(one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]) for one in objects]
    assert len(set(names)) == len(names)
    for one in objects:
        assert one["metadata"]["labels"]["app.kubernetes.io/part-of"] == "spillway"


def test_roles_have_no_wildcard_and_no_secrets(objects: Objects) -> None:
    roles = [one for one in objects if one["kind"] in {"Role", "ClusterRole"}]
    assert roles
    for role in roles:
        for rule in role["rules"]:
            words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"], *rule.get("nonResourceURLs", [])]
            assert not any("*" in word for word in words), role["metadata"]["name"]
            assert "secrets" not in rule["resources"], role["metadata"]["name"]


def test_with_namespaces_named_the_operator_reads_nothing_else(helm: Helm) -> None:
    (role,) = [
        one
        for one in helm.template("operator.watchNamespaces={ml}")
        if one["kind"] == "ClusterRole" and "operator" in one["metadata"]["name"]
    ]
    assert [rule["resources"] for rule in role["rules"]] == [["tokenreviews"]]


def test_pods_are_restricted_and_bounded(objects: Objects) -> None:
    for spec in pod_specs(objects):
        assert spec["securityContext"]["runAsNonRoot"]
        assert not spec["enableServiceLinks"], "a Service named spillway would set SPILLWAY_PORT"
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert "memory" in container["resources"]["limits"]


def test_only_the_operator_has_a_token_for_the_api_server(objects: Objects) -> None:
    for spec in pod_specs(objects):
        assert spec["automountServiceAccountToken"] == spec.get("serviceAccountName", "").endswith("-operator")


def test_only_the_operator_has_the_certificates_key(objects: Objects) -> None:
    for spec in pod_specs(objects):
        if spec.get("serviceAccountName", "").endswith("-operator"):
            continue
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        secret = volumes["operator"].get("secret") or volumes["operator"]["projected"]["sources"][1]["secret"]
        assert [item["key"] for item in secret["items"]] == ["ca.crt"]


def test_monitors_need_the_kinds_that_they_are(helm: Helm) -> None:
    plain = {one["kind"] for one in helm.template()}
    full = {one["kind"] for one in helm.template(kinds=MONITORING)}
    assert full - plain == set(MONITORING)
    assert {one["kind"] for one in helm.template("monitoring.enabled=false", kinds=MONITORING)} == plain


def test_crds_can_be_left_out_or_left_to_go(helm: Helm) -> None:
    def crds(*values: str) -> Objects:
        return [one for one in helm.template(*values) if one["kind"] == "CustomResourceDefinition"]

    assert [one["metadata"]["annotations"]["helm.sh/resource-policy"] for one in crds()] == ["keep", "keep"]
    assert all("annotations" not in one["metadata"] for one in crds("crds.keep=false"))
    assert crds("crds.enabled=false") == []


def test_provider_keys_are_where_the_gateway_looks_for_them(helm: Helm) -> None:
    (deployment,) = [
        one for one in helm.template(*EVERYTHING) if one["metadata"]["name"] == "spillway-gateway" and one["kind"] == "Deployment"
    ]
    spec = deployment["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume["secret"]["secretName"] for volume in spec["volumes"] if "provider" in volume["name"]}
    mounts = {mount["name"]: mount["mountPath"] for mount in spec["containers"][0]["volumeMounts"]}
    assert {mounts[name]: secret for name, secret in volumes.items()} == {
        "/var/run/spillway/secrets/ml/openai": "openai",
        "/var/run/spillway/secrets/ml/other": "ml-other",
    }


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("operator.colour=red", "additional properties 'colour' not allowed"),
        ("operator.replicas=0", "minimum"),
        ("certificates.from=secret", "/certificates/secret"),
        ("gateway.providerSecrets[0].name=openai", "missing property 'namespace'"),
    ],
)
def test_wrong_values_are_refused_with_their_place(helm: Helm, value: str, words: str) -> None:
    said = helm.said("template", str(CHART), "--set", value)
    assert said.code != 0
    assert words in said.err


@pytest.fixture(scope="module")
def kinds(kubectl: Kubectl) -> None:
    """A cluster that knows the kinds of others, too."""
    if os.environ.get("KUBECONFIG"):
        pytest.skip(
            "CRDs of cert-manager and the Prometheus operator are put into a cluster of the project's own only: unset KUBECONFIG to have these"
        )
    folder = str(others_kinds.crds())
    kubectl("apply", "--server-side", f"--filename={folder}")
    kubectl("wait", "--for=condition=Established", "--timeout=30s", f"--filename={folder}")


@pytest.mark.usefixtures("kinds")
@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "own certificate"])
def test_the_api_server_takes_it_without_a_warning(ours: Kubectl, variant: str) -> None:
    """Every object, with the schemas of all kinds, in a namespace that asks for Pod Security's level restricted."""
    ours(
        "label",
        "namespace",
        str(ours.namespace),
        *(f"pod-security.kubernetes.io/{mode}=restricted" for mode in ("enforce", "warn")),
    )
    made = Helm(ours).template(*VARIANTS[variant], kinds=MONITORING)
    objects = [one for one in made if one["kind"] != "CustomResourceDefinition"]
    said = replace(ours, namespace=None).said(
        *("apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-"),
        given={"apiVersion": "v1", "kind": "List", "items": objects},
    )
    assert said.code == 0, said.err
    assert said.err == ""
