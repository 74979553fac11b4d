"""The chart's values: each in the schema, each commented or self-evident by its neighbours, and nothing else let in."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "spillway"
TEXT = (CHART / "values.yaml").read_text(encoding="utf-8")
VALUES: dict[str, Any] = yaml.safe_load(TEXT)
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
TEMPLATES = {path.relative_to(CHART): path.read_text(encoding="utf-8") for path in CHART.rglob("templates/**/*") if path.is_file()}

# What its name, beside its commented neighbours, already says.
SELF_EVIDENT = {
    "operator", "gateway", "images", "crds", "rbac", "injection", "certificates", "networkPolicy", "monitoring", "service", "repository",
    "pullPolicy", "resources", "requests", "limits", "podAnnotations", "podLabels", "nodeSelector", "tolerations", "affinity",
    "priorityClassName", "topologyKey", "maxSkew", "whenUnsatisfiable", "podDisruptionBudget", "maxUnavailable", "serviceAccount",
    "annotations", "port", "autoscaling", "minReplicas", "maxReplicas", "targetCPUUtilizationPercentage", "ports", "memoryRequest",
    "memoryLimit", "certManager", "renewBefore", "duration", "operatorEgress", "rules", "dashboard", "grafana_dashboard", "memory",
    "topologySpreadConstraints", "type", "enabled", "env", "create", "cpuRequest", "scaling", "externalMetrics",
}  # fmt: skip


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    if reference is None:
        return node
    found: dict[str, Any] = SCHEMA["$defs"][reference.rpartition("/")[2]]
    return found


def objects(node: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    node = resolved(node)
    if "properties" in node:
        yield path, node
    for name, child in node.get("properties", {}).items():
        yield from objects(child, f"{path}.{name}")
    if "items" in node:
        yield from objects(node["items"], f"{path}[]")


def test_the_defaults_fit_the_schema() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


def test_no_object_of_the_schema_takes_what_it_does_not_know() -> None:
    loose = [path for path, node in objects(SCHEMA) if node.get("additionalProperties") is not False and "required" not in node]
    assert loose == []


def test_the_schema_and_the_values_name_the_same() -> None:
    """A value that is not in the schema cannot be set; one that is only in the schema has no default and no comment."""

    def compare(node: dict[str, Any], values: Any, path: str) -> Iterator[str]:
        node = resolved(node)
        if not isinstance(values, dict) or "properties" not in node or not values:
            return
        for name in set(values) ^ set(node["properties"]) - {"global", "claims", "valueFrom"}:
            yield f"{path}.{name}"
        for name in set(values) & set(node["properties"]):
            yield from compare(node["properties"][name], values[name], f"{path}.{name}")

    assert sorted(compare(SCHEMA, VALUES, "")) == []


def test_each_value_has_a_comment() -> None:
    lines = TEXT.splitlines()
    bare = []
    for place, line in enumerate(lines):
        match = re.match(r"\s*(?:- )?([A-Za-z_]+):", line)
        if match is not None and match[1] not in SELF_EVIDENT and "#" not in lines[place - 1] and "#" not in line:
            bare.append(f"{place + 1}: {match[1]}")
    assert bare == []


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("operator.replicas", 0),
        ("operator.replica", 2),
        ("operator.logLevel", "INFO"),
        ("images.operator.digest", "latest"),
        ("gateway.service.type", "ExternalName"),
        ("gateway.providerSecrets", [{"name": "openai"}]),
        ("gateway.providerSecrets", [{"name": "../x", "namespace": "ml"}]),
        ("injection.ports.inbound", 70000),
        ("injection.resources.cpuLimit", "a lot"),
        ("certificates.from", "vault"),
        ("certificates.from", "secret"),  # and no name of it
        ("monitoring.interval", 15),
        ("scaling.targets", [{"apiGroup": "*", "resource": "deployments"}]),
        ("scaling.targets", [{"apiGroup": "apps", "resource": "*"}]),
        ("scaling.targets", [{"apiGroup": "apps", "resource": "deployments/status"}]),
        ("surprise", 1),
    ],
)
def test_what_is_wrong_is_refused(path: str, value: Any) -> None:
    values = copy.deepcopy(VALUES)
    node = values
    *parents, last = path.split(".")
    for name in parents:
        node = node[name]
    node[last] = value
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, SCHEMA)


def test_each_value_is_used_and_each_use_is_a_value() -> None:
    """By name: `.Values.a.b` or, where a template has taken a part into a variable, the last name alone."""
    text = "\n".join(TEMPLATES.values())
    used = {tuple(name.split(".")) for name in re.findall(r"\.Values\.([A-Za-z.]+)", text)}
    for path in used:
        node: Any = VALUES
        for name in path:
            assert name in node, f".Values.{'.'.join(path)}"
            node = node[name]

    def leaves(node: dict[str, Any]) -> Iterator[str]:
        for name, child in node.items():
            yield name
            if isinstance(child, dict) and name not in {"resources", "labels", "requests", "limits"}:
                yield from leaves(child)

    unused = [name for name in leaves(VALUES) if not re.search(rf"\.{name}\b", text)]
    assert unused == []
