"""What of the chart and the images can be checked without Helm: rendering it is the end-to-end tests' part."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from spillway_operator.api import crdchart, crdgen
from spillway_operator.injection import names
from spillway_operator.injection.config import from_document
from spillway_operator.options import parse
from spillway_operator.reconcile.metrics import Metrics
from spillway_sidecar.settings import parser as sidecar_parser
from spillway_sidecar.telemetry.exposition import InboundCollector, TrafficCollector
from spillway_sidecar.telemetry.stats import Histogram, TrafficStats
from spillway_wire import VERSION

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "spillway"
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
IMAGES = ROOT / "images"


def template(name: str) -> str:
    return (CHART / "templates" / name).read_text(encoding="utf-8")


def test_versions_are_one() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert {chart["version"], chart["appVersion"], project["version"], VERSION} == {VERSION}


def test_the_crds_are_those_of_the_models() -> None:
    """`make crds` writes both."""
    found = {path.name: path.read_text(encoding="utf-8") for path in (CHART / "templates" / "crds").iterdir()}
    assert found == crdchart.files()


def test_a_crd_template_is_its_crd_in_a_guard() -> None:
    for name, text in crdchart.files().items():
        lines = text.splitlines()
        assert (lines[0], lines[-1]) == ("{{- if .Values.crds.enabled }}", "{{- end }}")
        kept = "\n".join(line for line in lines if "{{" not in line and "resource-policy" not in line and line != "  annotations:")
        assert yaml.safe_load(kept) == yaml.safe_load(crdgen.files()[name])


def test_a_crd_that_helm_would_misread_is_refused() -> None:
    with pytest.raises(ValueError, match="quoted"):
        crdchart.template("kind: X\nmetadata:\n  name: '{{'\n")


def rules(text: str) -> list[dict[str, Any]]:
    """The rules in a template, read as text: RBAC here is literal but for names."""
    found = []
    for block in re.findall(r"^ *- apiGroups: .*\n(?:\s+(?:resources|resourceNames|verbs): .*\n)+", text, re.MULTILINE):
        found += yaml.safe_load(re.sub(r"\{\{.*?\}\}", "name", block))
    return found


OPERATOR_RULES = rules(template("_helpers.tpl")) + rules(template("operator/rbac.yaml"))
OPERATOR_RULES += rules(template("operator/external-metrics.yaml"))


def test_the_operators_rules_are_found() -> None:
    assert len(OPERATOR_RULES) == 13


@pytest.mark.parametrize(
    "rule", OPERATOR_RULES + rules(template("operator/user-roles.yaml")), ids=lambda rule: str(rule["resources"])
)
def test_no_rule_has_a_wildcard_or_secrets(rule: dict[str, Any]) -> None:
    words = [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
    assert not any("*" in word for word in words)
    assert "secrets" not in rule["resources"]


def test_what_the_operator_writes_is_what_its_readme_names() -> None:
    written = {
        f"{verb} {resource}"
        for rule in OPERATOR_RULES
        for resource in rule["resources"]
        for verb in rule["verbs"]
        if verb not in {"get", "list", "watch"}
    }
    assert written == {
        "patch modelbackends/status",
        "patch modelroutes/status",
        "patch name/scale",
        "patch pods/status",
        "create events",
        "create tokenreviews",
        "create leases",
        "update leases",
    }
    readme = (CHART / "README.md").read_text(encoding="utf-8")
    for line in written - {"patch name/scale"}:
        assert f"`{line.partition(' ')[2]}`" in readme


def test_each_flag_of_the_chart_is_one_of_the_operators() -> None:
    """With every list filled, since a flag that the operator does not know ends it."""
    body = re.search(r'define "spillway.operator.args" -\}\}(.*?)\{\{- end \}\}\n\n', template("_helpers.tpl"), re.DOTALL)
    assert body is not None
    arguments = re.findall(r"^- (--.*)$", body[1], re.MULTILINE)
    given = {
        "log-level": "info",
        "status-interval": "10",
        "gateway-service-account": "a/b",
        "external-metrics-port": "1",
        "allow-host": "10.0.0.0/8",
    }
    filled = [re.sub(r"=\{\{.*\}\}|=\{\{-? .*", "=" + given.get(one[2:].partition("=")[0], "x"), one) for one in arguments]
    filled = [f"{name}={given.get(name[2:], value)}" for name, _, value in (one.partition("=") for one in filled)]
    settings = parse(filled, {})
    assert settings.injection.config_file is not None
    assert settings.cluster.gateways == (("a", "b"),)


def test_each_variable_of_the_chart_is_an_option_of_the_proxy() -> None:
    options = {
        "SPILLWAY_" + option[2:].upper().replace("-", "_")
        for action in sidecar_parser({})._actions
        for option in action.option_strings
        if option.startswith("--")
    }
    used = set(re.findall(r"\bSPILLWAY_[A-Z_]+", template("gateway/deployment.yaml")))
    assert used <= options | {"SPILLWAY_LOG_LEVEL"}


def test_each_variable_of_injection_is_an_option_of_the_proxy() -> None:
    from tests.unit.injection.pods import CONFIG, POD, noted, sidecar_of

    from spillway_operator.injection import Engine, injected

    options = {action.dest for action in sidecar_parser({})._actions}
    made = sidecar_of(injected(noted(dict(POD), secrets="a"), Engine(0, 8000), CONFIG))
    names_ = {one["name"].removeprefix("SPILLWAY_").lower() for one in made["env"]}
    assert names_ <= options | {"log_level"}


def test_the_settings_of_injection_are_those_that_the_operator_reads() -> None:
    body = re.search(r'define "spillway.injection.config" -\}\}(.*?)\| toJson', template("_helpers.tpl"), re.DOTALL)
    assert body is not None
    keys = re.findall(r'^\s+"(\w+)" ', body[1], re.MULTILINE)
    numbers = {"inboundPort", "routePort", "adminPort", "drainSeconds"}
    document: dict[str, Any] = {key: 1 if key in numbers else "x" for key in keys}
    document |= {"imagePullSecrets": [], "resources": VALUES["injection"]["resources"], "env": VALUES["injection"]["env"]}
    config = from_document(document)
    defaults = from_document({"image": "x", "operatorURL": "x"})
    ports = VALUES["injection"]["ports"]
    assert (ports["inbound"], ports["route"], ports["admin"]) == (defaults.inbound_port, defaults.route_port, defaults.admin_port)
    assert VALUES["injection"]["drainSeconds"] == defaults.drain_seconds
    assert config.resources == defaults.resources


def test_the_webhook_asks_for_the_labels_that_injection_reads() -> None:
    text = template("operator/webhook.yaml")
    assert f'{names.LABEL_INJECT}: "true"' in text
    assert f"key: {names.LABEL_NAMESPACE}, operator: In, values: [enabled]" in text
    for namespace in names.SYSTEM_NAMESPACES:
        assert f'"{namespace}"' in text
    assert "failurePolicy: Ignore" in text
    assert VALUES["injection"]["timeoutSeconds"] == 2
    monitors = template("monitoring/monitors.yaml")
    assert f"{names.LABEL_SIDECAR}: {names.LABEL_SIDECAR_VALUE}" in monitors
    assert f"port: {names.PORT_ADMIN}" in monitors


def known_metrics() -> set[str]:
    """Every sample's name that our processes can expose."""
    registry = CollectorRegistry()
    Metrics(registry)
    stats = TrafficStats(frozenset())
    registry.register(TrafficCollector(stats, dict))
    gauges = ("in_flight", "queued", "engine_waiting", "gpu_utilization_ratio", "kv_cache_ratio")
    registry.register(InboundCollector(lambda: dict.fromkeys(gauges, 1.0), dict, Histogram()))
    found = set()
    for family in registry.collect():
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        found |= {family.name + suffix for suffix in suffixes}
    source = (ROOT / "operator/spillway_operator/reconcile/metrics.py").read_text(encoding="utf-8")
    found |= {f"spillway_operator_{name}" for name in re.findall(r'_(?:gauge|labelled)\(\s*"(\w+)"', source)}
    found |= set(re.findall(r'GaugeMetricFamily\(\s*"(\w+)"', source))
    webhook = (ROOT / "operator/spillway_operator/webhook/server.py").read_text(encoding="utf-8")
    return found | {f"{name}_total" for name in re.findall(r'CounterMetricFamily\("(\w+)"', webhook)}


@pytest.mark.parametrize("file", ["templates/monitoring/rules.yaml", "files/dashboard.json"])
def test_rules_and_dashboard_ask_for_metrics_that_there_are(file: str) -> None:
    asked = set(re.findall(r"\bspillway_[a-z_]+", (CHART / file).read_text(encoding="utf-8")))
    assert asked
    assert asked - known_metrics() == set()


def test_the_dashboard_is_one() -> None:
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text(encoding="utf-8"))
    identities = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(identities)) == len(identities) > 8


@pytest.mark.parametrize("which", ["operator", "sidecar"])
def test_an_image_is_made_of_what_it_needs_and_runs_as_nobody(which: str) -> None:
    text = (IMAGES / f"{which}.Dockerfile").read_text(encoding="utf-8")
    final = text.rpartition("\nFROM ")[2]
    assert final.startswith("scratch\n")
    assert "USER 65532:65532" in final
    assert "--require-hashes" in text
    assert f'ENTRYPOINT ["python", "-m", "spillway_{which}"]' in final
    copied = {line.split()[1] for line in text.splitlines() if line.startswith("COPY ") and "--from" not in line}
    assert all((ROOT / path).exists() for path in copied)
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert all(f"!{path}" in ignored for path in copied - {"images/"})
    lock = (ROOT / "requirements" / f"{which}.lock").read_text(encoding="utf-8")
    assert ("kopf==" in lock) == (which == "operator")
    assert "65532" in (IMAGES / "passwd").read_text(encoding="utf-8")


@pytest.mark.parametrize("which", ["operator", "sidecar"])
def test_an_images_lock_has_the_versions_that_are_tested(which: str) -> None:
    def versions(name: str) -> dict[str, str]:
        text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
        return dict(re.findall(r"^([a-z0-9-]+)==([^ \\;]+)", text, re.MULTILINE))

    tested = versions("dev.lock")
    assert {name: version for name, version in versions(f"{which}.lock").items() if tested.get(name, version) != version} == {}


def test_the_script_that_makes_a_root_is_well_formed() -> None:
    subprocess.run(["sh", "-n", IMAGES / "root.sh"], check=True)
