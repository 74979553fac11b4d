"""Replicas of targets on a real API server, where no pod has to run: by hand, of any kind that has a scale, beside other autoscalers."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.control_plane.processes import Bench, backend, bench, soon
from e2e.kubectl import Kubectl, eventually

KEDA = ("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
FLEETS = ("example.com", "v1", "Fleet", "fleets")


@pytest.fixture
def parts(ours: Kubectl, tmp_path: Path) -> Iterator[Bench]:
    with bench(ours, tmp_path) as made:
        operator = made.operator()
        soon(lambda: operator.leads)
        yield made


@pytest.fixture
def others(ours: Kubectl) -> Iterator[Kubectl]:
    """Kinds of others: one that has a scale, and KEDA's, without KEDA."""
    names = [f"customresourcedefinition/{plural}.{group}" for group, _, _, plural in (KEDA, FLEETS)]
    ours.apply(*(definition(*kind) for kind in (KEDA, FLEETS)))
    ours("wait", "--for=condition=Established", "--timeout=30s", *names)
    yield ours
    ours("delete", "--wait=false", *names)


def definition(group: str, version: str, kind: str, plural: str) -> dict[str, Any]:
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": anything, "status": anything}}
    scale = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
    one = {
        "name": version,
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"scale": scale},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [one],
        },
    }


def deployment(name: str = "fast") -> dict[str, Any]:
    labels = {"app": name}
    pod = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "engine", "image": "none"}]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": pod},
    }


def scaling(**target: Any) -> dict[str, Any]:
    return backend(scaling={"targetRef": {"name": "fast", **target}, "maxReplicas": 5})


def replicas(kubectl: Kubectl, kind: str = "deployment") -> int:
    found: int = kubectl.get(kind, "fast")["spec"]["replicas"]
    return found


def scaled(kubectl: Kubectl) -> tuple[str, str]:
    """Reason and message of the condition, empty while there is none."""
    conditions = kubectl.get("mbackend", "fast").get("status", {}).get("conditions", [])
    return next(((str(each["reason"]), str(each["message"])) for each in conditions if each["type"] == "ScalingActive"), ("", ""))


def reason(kubectl: Kubectl) -> str:
    return scaled(kubectl)[0]


def pin(kubectl: Kubectl, count: int) -> None:
    kubectl("scale", "mbackend/fast", f"--replicas={count}")


def unpin(kubectl: Kubectl) -> None:
    kubectl("patch", "mbackend", "fast", "--type=json", '--patch=[{"op": "remove", "path": "/spec/scaling/replicas"}]')


def test_a_number_by_hand_is_the_targets_number(parts: Bench) -> None:
    kubectl = parts.kubectl
    kubectl.apply(scaling())
    eventually(lambda: reason(kubectl) == "TargetNotFound", seconds=30)
    kubectl.apply(deployment())
    eventually(lambda: reason(kubectl) not in {"TargetNotFound", ""}, seconds=30)
    pin(kubectl, 3)
    eventually(lambda: replicas(kubectl) == 3, seconds=30)
    eventually(lambda: reason(kubectl) == "Pinned", seconds=30)
    table = kubectl("get", "mbackend", "fast", "--output=wide")
    assert re.search(r" REPLICAS .* SCALING ", table.splitlines()[0])
    assert re.search(r" 0/3 .* Pinned ", table.splitlines()[1]), table
    assert "more than maxReplicas" in kubectl.said("scale", "mbackend/fast", "--replicas=6").err
    unpin(kubectl)
    eventually(lambda: reason(kubectl) not in {"Pinned", ""}, seconds=30)
    kubectl("scale", "deployment/fast", "--replicas=2")
    eventually(lambda: kubectl.get("mbackend", "fast")["status"]["summary"]["replicas"] == "0/2", seconds=30)
    assert replicas(kubectl) == 2


@pytest.mark.usefixtures("parts")
def test_any_kind_that_has_a_scale_is_a_target(others: Kubectl) -> None:
    group, version, kind, plural = FLEETS
    fleet = {"apiVersion": f"{group}/{version}", "kind": kind, "metadata": {"name": "fast"}, "spec": {"replicas": 2}}
    others.apply(fleet, scaling(apiVersion=f"{group}/{version}", kind=kind))
    pin(others, 4)
    eventually(lambda: replicas(others, plural) == 4, seconds=60)


REFERENCE = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "fast"}
HPA = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "spec": {"scaleTargetRef": REFERENCE, "maxReplicas": 5}}
# As KEDA's users write it: a Deployment where no kind is named.
SCALED_OBJECT = {"apiVersion": f"{KEDA[0]}/{KEDA[1]}", "kind": KEDA[2], "spec": {"scaleTargetRef": {"name": "fast"}}}


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("other", [HPA, SCALED_OBJECT], ids=lambda other: str(other["kind"]))
def test_there_is_one_writer(others: Kubectl, other: dict[str, Any]) -> None:
    others.apply(deployment(), scaling())
    pin(others, 2)
    eventually(lambda: replicas(others) == 2, seconds=30)
    others.apply({**other, "metadata": {"name": "other"}})
    eventually(lambda: reason(others) == "ConflictingAutoscaler", seconds=30)
    assert f"{other['kind']}/other" in scaled(others)[1]
    pin(others, 4)
    eventually(lambda: others.get("mbackend", "fast")["status"]["replicas"]["desired"] == 4, seconds=30)
    assert replicas(others) == 2
    others("delete", other["kind"], "other")
    eventually(lambda: replicas(others) == 4, seconds=30)
    eventually(lambda: reason(others) == "Pinned", seconds=30)
