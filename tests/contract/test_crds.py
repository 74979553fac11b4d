"""The CRDs are what the models say, and what Kubernetes takes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from spillway_operator.api import crdgen
from spillway_operator.api.columns import evaluate
from spillway_operator.api.durations import Duration
from spillway_operator.api.fields import PATTERN_HINTS
from spillway_operator.api.meta import API_VERSION
from spillway_operator.api.schema import CEL_RULES, KINDS, crd, document, structural
from spillway_wire import snapshot
from spillway_wire.names import Provider, RequestType

CRDS = Path(__file__).resolve().parents[2] / "crds"
Node = dict[str, Any]


def nodes(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    yield path, node
    for name, child in node.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in node:
        yield from nodes(node["items"], f"{path}[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from nodes(node["additionalProperties"], f"{path}{{}}")


ALL = [(kind, path, node) for kind in KINDS for path, node in nodes(structural(kind))]


def at(kind: str, path: str) -> Node:
    return next(node for name, found, node in ALL if name == kind and found == path)


def test_the_files_are_what_the_models_say() -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in CRDS.glob("*.yaml")}
    assert found == crdgen.files(), "run `python -m spillway_operator.api.crdgen crds/`"


def test_the_generator_writes_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crdgen.main([str(tmp_path), "--check"]) == 1
    assert "not up to date" in capsys.readouterr().err
    assert crdgen.main([str(tmp_path)]) == 0
    assert crdgen.main([str(tmp_path), "--check"]) == 0
    file = tmp_path / "spillway.dev_modelroutes.yaml"
    file.write_text(file.read_text().replace("maxItems: 32", "maxItems: 33"))
    assert crdgen.main([str(tmp_path), "--check"]) == 1
    assert "maxItems: 33" in capsys.readouterr().out


@pytest.mark.parametrize("kind", KINDS)
def test_names_scope_and_subresources(kind: str) -> None:
    made = yaml.safe_load(crdgen.files()[f"spillway.dev_{KINDS[kind].plural}.yaml"])
    assert made == crd(kind)
    spec = made["spec"]
    assert made["metadata"]["name"] == f"{spec['names']['plural']}.{spec['group']}"
    assert spec["scope"] == "Namespaced"
    assert spec["names"]["categories"] == ["spillway"]
    assert spec["names"]["shortNames"] == [{"ModelBackend": "mbackend", "ModelRoute": "mroute"}[kind]]
    (version,) = spec["versions"]
    assert f"{spec['group']}/{version['name']}" == API_VERSION
    assert version["served"]
    assert version["storage"]
    scale = {"specReplicasPath": ".spec.scaling.replicas", "statusReplicasPath": ".status.replicas.current"}
    assert version["subresources"] == {"status": {}, **({"scale": scale} if kind == "ModelBackend" else {})}


def test_the_paths_of_a_scale_lead_to_whole_numbers() -> None:
    for kind, about in KINDS.items():
        for path in (about.scale or {}).values():
            assert at(kind, path)["type"] == "integer"


@pytest.mark.parametrize(("kind", "path", "node"), ALL, ids=lambda value: value if isinstance(value, str) else "")
def test_each_node_is_structural_and_bounded(kind: str, path: str, node: Node) -> None:
    """What the API server asks of a structural schema, and the bounds without which it cannot tell what a CEL rule costs."""
    assert not {"$ref", "anyOf", "oneOf", "allOf", "not", "title", "const", "$defs", "uniqueItems", "nullable"} & set(node)
    assert node["type"] in {"object", "array", "string", "integer", "boolean"}, "every node has one type, and no spec has a float"
    assert not ("properties" in node and "additionalProperties" in node)
    assert node.get("additionalProperties") is not False
    if path and path != ".metadata" and not path.endswith(("[]", "{}")):
        assert len(node["description"]) > 5
        assert node["description"].endswith(".")
    if node["type"] == "string" and path not in {".apiVersion", ".kind"}:
        assert "enum" in node or "maxLength" in node or node.get("format") == "date-time"
    if node["type"] == "array":
        assert "maxItems" in node
        assert "items" in node
        listed = node["x-kubernetes-list-type"]
        assert listed in {"set", "map", "atomic"}
        if listed == "map":
            (key,) = node["x-kubernetes-list-map-keys"]
            assert key in node["items"]["required"]
    if node["type"] == "object" and "properties" not in node and path != ".metadata":
        assert "maxProperties" in node
    if node["type"] == "integer" and path.startswith(".spec"):
        assert "minimum" in node
        assert "maximum" in node
    if ".status" in path:
        assert "default" not in node, "unknown is not zero"
    if "default" in node:
        assert node["default"] not in (None, "", [], {})
        assert "null" not in str(node["default"])
    for name in ("minLength", "minItems", "minProperties"):
        assert node.get(name, 1) == 1, "the words for a larger bound are missing"


def test_required_fields_have_no_default_and_defaults_fit() -> None:
    for kind, path, node in ALL:
        for name, child in node.get("properties", {}).items():
            assert not (name in node.get("required", ()) and "default" in child), f"{kind}{path}.{name}"
            if child["type"] == "string" and "pattern" in child and "default" in child:
                assert re.search(child["pattern"], child["default"])


def test_each_pattern_is_anchored_and_has_its_words() -> None:
    patterns = {node["pattern"] for kind in KINDS for _, node in nodes(document(kind)) if "pattern" in node}
    assert patterns <= set(PATTERN_HINTS)
    assert all(pattern.startswith("^") and pattern.endswith("$") for pattern in patterns)


@pytest.mark.parametrize("kind", KINDS)
def test_each_rule_is_in_the_schema_with_a_message_that_says_what_to_do(kind: str) -> None:
    rules = KINDS[kind].rules
    written = [entry for _, node in nodes(structural(kind)) for entry in node.get(CEL_RULES, [])]
    assert len({rule.name for rule in rules}) == len(rules)
    for rule in rules:
        alike = [entry for entry in written if entry["rule"] == rule.cel]
        assert len(alike) == sum(other.cel == rule.cel for other in rules)
        entry = next(entry for entry in alike if entry["message"] == rule.message)
        assert entry["message"] == rule.message
        assert "\n" not in rule.message
        assert ":" in rule.message, "what is wrong: what to do"
        if rule.field:
            assert entry["fieldPath"] == rule.field
            child = at(kind, f".{rule.path}{rule.field}")
            assert child


def sample(node: Node) -> Any:
    """Data with every part that a schema has."""
    if "properties" in node:
        return {name: sample(child) for name, child in node["properties"].items()}
    if node["type"] == "array":
        return [sample(node["items"])]
    return "Ready" if node["type"] == "string" else 1


@pytest.mark.parametrize("kind", KINDS)
def test_each_column_leads_to_a_field_of_its_type(kind: str) -> None:
    item = sample(structural(kind))
    item["metadata"] = {"creationTimestamp": "2026-01-01T00:00:00Z"}
    (condition,) = item["status"]["conditions"]
    item["status"]["conditions"].append(condition | {"type": "ScalingActive"})
    for column in KINDS[kind].columns:
        value = evaluate(column.path, item)
        assert isinstance(value, int if column.type == "integer" else str), column
    names = [column.name for column in KINDS[kind].columns]
    assert len(set(names)) == len(names)


# What goes into a snapshot has a snapshot's bounds: (kind, path in its schema, structure, field).
WIRE = [
    ("ModelRoute", ".spec.models", snapshot.Route, "models"),
    ("ModelRoute", ".spec.rules", snapshot.Route, "rules"),
    ("ModelRoute", ".spec.rules[].name", snapshot.Rule, "name"),
    ("ModelRoute", ".spec.rules[].matches", snapshot.Rule, "matches"),
    ("ModelRoute", ".spec.rules[].backendRefs", snapshot.Rule, "backends"),
    ("ModelRoute", ".spec.rules[].backendRefs[].priority", snapshot.BackendRef, "priority"),
    ("ModelRoute", ".spec.rules[].backendRefs[].weight", snapshot.BackendRef, "weight"),
    ("ModelRoute", ".spec.rules[].backendRefs[].modelNameOverride", snapshot.BackendRef, "model_override"),
    ("ModelRoute", ".spec.rules[].matches[].headers[].name", snapshot.HeaderMatch, "name"),
    ("ModelRoute", ".spec.rules[].matches[].headers[].value", snapshot.HeaderMatch, "value"),
    ("ModelRoute", ".spec.rules[].matches[].promptTokens.min", snapshot.TokenRange, "min"),
    ("ModelRoute", ".spec.rules[].matches[].promptTokens.max", snapshot.TokenRange, "max"),
    ("ModelRoute", ".spec.rules[].fallback.errorRatePercent", snapshot.Fallback, "error_rate_percent"),
    ("ModelRoute", ".spec.retries.maxAttempts", snapshot.Retries, "max_attempts"),
    ("ModelRoute", ".spec.retries.budgetPercent", snapshot.Retries, "budget_percent"),
    ("ModelRoute", ".spec.retries.hedgePercent", snapshot.Retries, "hedge_percent"),
    ("ModelBackend", ".spec.model", snapshot.Cluster, "model"),
    ("ModelBackend", ".spec.limits.maxConcurrency", snapshot.Limits, "max_concurrency"),
    ("ModelBackend", ".spec.limits.maxQueue", snapshot.Limits, "max_queue"),
    ("ModelBackend", ".spec.health.path", snapshot.Health, "path"),
    ("ModelBackend", ".spec.pods.port", snapshot.Endpoint, "port"),
    ("ModelBackend", ".spec.external.auth.secretRef.name", snapshot.SecretKeyRef, "name"),
    ("ModelBackend", ".spec.external.auth.secretRef.key", snapshot.SecretKeyRef, "key"),
]


@pytest.mark.parametrize(("kind", "path", "structure", "field"), WIRE, ids=lambda value: value if isinstance(value, str) else "")
def test_what_a_resource_may_hold_a_snapshot_may_hold(kind: str, path: str, structure: type, field: str) -> None:
    node = at(kind, path)
    _, parts = msgspec.json.schema_components([structure])
    wire = parts[structure.__name__]["properties"][field]
    wire = next((option for option in wire.get("anyOf", ()) if option.get("type") != "null"), wire)
    if reference := wire.get("$ref"):
        wire = parts[reference.rpartition("/")[2]]
    for upper in ("maximum", "maxLength", "maxItems"):
        if upper in wire:
            assert node[upper] <= wire[upper]
    for lower in ("minimum", "minLength", "minItems"):
        if lower in wire:
            assert node[lower] >= wire[lower]


def test_enumerations_and_defaults_are_those_of_the_wire() -> None:
    assert at("ModelBackend", ".spec.provider")["enum"] == [each.value for each in Provider]
    assert at("ModelBackend", ".spec.capabilities")["default"] == [each.value for each in RequestType]
    assert at("ModelBackend", ".spec.limits.maxConcurrency")["default"] == snapshot.Limits().max_concurrency
    health, timeouts = snapshot.Health(), snapshot.Timeouts()
    assert at("ModelBackend", ".spec.health.path")["default"] == health.path
    for kind, path, seconds in (
        ("ModelBackend", ".spec.health.interval", health.interval_seconds),
        ("ModelBackend", ".spec.health.timeout", health.timeout_seconds),
        ("ModelRoute", ".spec.timeouts.firstToken", timeouts.first_token_seconds),
        ("ModelRoute", ".spec.timeouts.streamIdle", timeouts.stream_idle_seconds),
        ("ModelRoute", ".spec.timeouts.request", timeouts.request_seconds),
        ("ModelRoute", ".spec.timeouts.connect", timeouts.connect_seconds),
        ("ModelRoute", ".spec.timeouts.admission", timeouts.admission_seconds),
    ):
        assert Duration(at(kind, path)["default"]).seconds == seconds
