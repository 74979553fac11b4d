"""Our kinds in a cluster, as a user meets them: explained, listed, applied by several hands."""

import json
from typing import Any
from unittest.mock import ANY

from e2e.kubectl import Kubectl
from tests.fakes import resources

from spillway_operator.api.schema import KINDS

THEN = "2026-01-01T00:00:00Z"


def condition(kind: str, status: str, reason: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": "", "lastTransitionTime": THEN}


def set_status(kubectl: Kubectl, name: str, status: dict[str, Any]) -> None:
    kubectl("patch", name, "--subresource=status", "--type=merge", f"--patch={json.dumps({'status': status})}")


def cells(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


def test_the_kinds_have_short_names_and_a_category(crds: Kubectl) -> None:
    rows = cells(crds("api-resources", "--api-group=spillway.dev", "--no-headers", "--output=wide"))
    assert sorted((row[0], row[1], row[2], row[3], row[4], row[-1]) for row in rows) == [
        ("modelbackends", "mbackend", "spillway.dev/v1alpha1", "true", "ModelBackend", "spillway"),
        ("modelroutes", "mroute", "spillway.dev/v1alpha1", "true", "ModelRoute", "spillway"),
    ]


def test_the_schema_is_whole_after_the_api_server_took_it(crds: Kubectl) -> None:
    for kind in KINDS.values():
        conditions = {one["type"]: one["status"] for one in crds.get("crd", f"{kind.plural}.spillway.dev")["status"]["conditions"]}
        assert conditions.get("NonStructuralSchema", "False") == "False"
        assert conditions["NamesAccepted"] == conditions["Established"] == "True"


def test_explain_reads_well(crds: Kubectl) -> None:
    said = crds("explain", "modelroute.spec.rules")
    assert "Where requests go. The first rule that matches wins." in said
    assert "backendRefs\t<[]Object> -required-" in said
    assert "Backends that take the requests." in said
    assert "<no description>" not in crds("explain", "modelroute", "--recursive=false")
    assert "<no description>" not in crds("explain", "modelbackend.spec")
    assert "For the whole request, e.g. 10m." in crds("explain", "mroute.spec.timeouts.request")


def test_every_field_is_explained(crds: Kubectl) -> None:
    """As `kubectl explain` reads it: from the API server's OpenAPI, not from our file."""
    document = json.loads(crds("get", "--raw=/openapi/v3/apis/spillway.dev/v1alpha1"))
    for kind in KINDS:
        schema = document["components"]["schemas"][f"dev.spillway.v1alpha1.{kind}"]
        silent = [path for path in undescribed(schema) if path != ".metadata"]
        assert silent == []


def undescribed(schema: dict[str, Any], path: str = "") -> list[str]:
    found = []
    for name, child in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        if not child.get("description"):
            found.append(here)
        found += undescribed(child, here) + undescribed(child.get("items", {}), f"{here}[]")
    return found


def test_the_columns_of_routes(ours: Kubectl) -> None:
    ours.apply(resources.route("chat"))
    assert cells(ours("get", "mroute")) == [
        ["NAME", "MODELS", "READY", "BACKENDS", "SYNCED", "RPS", "TTFT-P95", "ERR%", "AGE"],
        ["chat", ANY],
    ]
    summary = {
        "models": "chat",
        "backends": "1/2",
        "synced": "12/12",
        "ttftP95": "310ms",
        "weights": "fast=93,slow=7",
        "active": "all:PredictedWait",
    }
    set_status(
        ours,
        "modelroute/chat",
        {
            "observedGeneration": 1,
            "conditions": [condition("Ready", "True", "Ready"), condition("Programmed", "True", "Programmed")],
            "summary": summary,
            "traffic": {"requestsPerSecond": "41.3", "errorPercent": "0.2", "ttftP95Milliseconds": 310},
        },
    )
    header, row = cells(ours("get", "modelroutes.spillway.dev", "--output=wide"))
    shown = dict(zip(header, row, strict=True))
    assert shown.pop("AGE")
    assert shown == {
        "NAME": "chat",
        "MODELS": "chat",
        "READY": "True",
        "BACKENDS": "1/2",
        "SYNCED": "12/12",
        "RPS": "41.3",
        "TTFT-P95": "310ms",
        "ERR%": "0.2",
        "WEIGHTS": "fast=93,slow=7",
        "ACTIVE": "all:PredictedWait",
        "REASON": "Ready",
    }
    ours("wait", "--for=condition=Programmed", "--timeout=5s", "mroute/chat")


def test_the_columns_of_backends(ours: Kubectl) -> None:
    ours.apply(resources.backend("fast", model="m/large"))
    status = {
        "conditions": [condition("Ready", "False", "NoEndpoints"), condition("ScalingActive", "True", "Raised")],
        "endpoints": {"ready": 3, "total": 4},
        "replicas": {"current": 4, "desired": 5},
        "cost": {"perMillionTokens": "0.84"},
        "summary": {"endpoints": "3/4", "replicas": "4/5"},
        "load": {"queueDepth": 0, "running": 180, "gpuUtilizationPercent": 91, "kvCachePercent": 74, "tokensPerSecond": 5300},
    }
    set_status(ours, "modelbackend/fast", status)
    header, row = cells(ours("get", "mbackend", "--output=wide"))
    shown = dict(zip(header, row, strict=True))
    assert shown.pop("AGE")
    assert shown == {
        "NAME": "fast",
        "MODEL": "m/large",
        "PROVIDER": "VLLM",
        "READY": "3/4",
        "QUEUE": "0",
        "GPU%": "91",
        "REPLICAS": "4/5",
        "KV%": "74",
        "TOK/S": "5300",
        "$/MTOK": "0.84",
        "SCALING": "Raised",
        "REASON": "NoEndpoints",
    }


def test_both_kinds_are_listed_by_their_category(ours: Kubectl) -> None:
    ours.apply(resources.backend("fast"), resources.route("chat"))
    assert set(ours("get", "spillway", "--output=name").split()) == {
        "modelbackend.spillway.dev/fast",
        "modelroute.spillway.dev/chat",
    }


def test_defaults_are_filled_in_by_the_server(ours: Kubectl) -> None:
    ours.apply(resources.backend("fast"), resources.external(), resources.route("chat"))
    backend, route = ours.get("modelbackend", "fast")["spec"], ours.get("modelroute", "chat")["spec"]
    assert backend["limits"] == {"maxConcurrency": 256}, "the queue's default is for pods, where the operator applies it"
    assert "health" not in backend
    assert route["timeouts"] == {"firstToken": "60s", "streamIdle": "60s", "request": "10m", "connect": "2s", "admission": "100ms"}
    assert route["retries"] == {"maxAttempts": 2, "budgetPercent": 10, "hedgePercent": 2, "continueStreams": False}
    assert route["rules"][0]["backendRefs"] == [{"name": "fast", "priority": 0, "weight": 1}]


def test_a_spec_does_not_change_with_the_status_nor_the_other_way(ours: Kubectl) -> None:
    ours.apply(resources.backend("fast"))
    set_status(ours, "modelbackend/fast", {"endpoints": {"ready": 1, "total": 1}})
    assert ours.get("modelbackend", "fast")["metadata"]["generation"] == 1
    ours("patch", "modelbackend", "fast", "--type=merge", '--patch={"spec": {"model": "n"}, "status": {"endpoints": {"ready": 9}}}')
    changed = ours.get("modelbackend", "fast")
    assert changed["metadata"]["generation"] == 2
    assert changed["status"]["endpoints"] == {"ready": 1, "total": 1}


def test_two_managers_own_entries_of_one_list(ours: Kubectl) -> None:
    """Sets and maps merge by entry under server-side apply: what one manager leaves out goes, what another has stays."""

    def by(manager: str, *models: str) -> list[str]:
        options = ("--server-side", f"--field-manager={manager}", "--validate=false")
        spec: dict[str, Any] = {"models": list(models)}
        if manager == "author":
            spec["rules"] = [resources.rule()]
        ours.apply({**resources.route("chat"), "spec": spec}, options=options)
        stored: list[str] = ours.get("modelroute", "chat")["spec"]["models"]
        return stored

    assert by("author", "a", "b") == ["a", "b"]
    assert sorted(by("other", "b", "c")) == ["a", "b", "c"]
    assert sorted(by("author", "a")) == ["a", "b", "c"], "b is also of the other"
    assert sorted(by("other", "c")) == ["a", "c"]


def test_applying_the_same_again_changes_nothing(ours: Kubectl) -> None:
    """Not even where defaults were filled in."""
    documents = (resources.backend("fast"), resources.route("chat"))
    for options in (("--server-side",), ("--server-side=false",)):
        ours.apply(*documents, options=options)
        ours.apply(*documents, options=options)
        assert {one["metadata"]["generation"] for one in ours.get("spillway")["items"]} == {1}


def test_conditions_are_a_map_by_their_type(ours: Kubectl) -> None:
    ours.apply(resources.backend("fast"))

    def by(manager: str, *conditions: dict[str, Any]) -> dict[str, str]:
        document = {key: value for key, value in resources.backend("fast").items() if key != "spec"}
        options = ("--server-side", "--subresource=status", "--validate=false", f"--field-manager={manager}")
        ours.apply(document | {"status": {"conditions": list(conditions)}}, options=options)
        stored = ours.get("modelbackend", "fast")["status"]["conditions"]
        return {one["type"]: one["status"] for one in stored}

    by("one", condition("Accepted", "True", "Accepted"), condition("Ready", "False", "NoEndpoints"))
    assert by("two", condition("Audited", "True", "Audited")) == {"Accepted": "True", "Ready": "False", "Audited": "True"}
    assert by("one", condition("Ready", "True", "Ready")) == {"Ready": "True", "Audited": "True"}
