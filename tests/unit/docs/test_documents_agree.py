"""The documents say what the code has: fields, defaults, conditions, outcomes, metrics, links. All of it and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from tests.fakes.operator_core import Bench

from spillway.run.standalone import Standalone, parse
from spillway_operator.kube.metrics import ClusterCollector
from spillway_operator.policies import reasons
from spillway_operator.reconcile.metrics import StreamCollector, WorldCollector
from spillway_operator.reconcile.signals import SignalCollector
from spillway_sidecar import secrets
from spillway_sidecar.__main__ import Proxy
from spillway_sidecar.proxy import upstream
from spillway_sidecar.proxy.errors import Outcome
from spillway_sidecar.settings import parse as parse_settings
from spillway_wire.names import DiversionCause

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
TEXTS = sorted([ROOT / "README.md", *DOCS.rglob("*.md")])
RESOURCES = (DOCS / "resources.md").read_text()
METRICS = (DOCS / "metrics.md").read_text()
STANDALONE = (DOCS / "standalone.md").read_text()


def rows(text: str, heading: str) -> list[list[str]]:
    """The rows of the tables under a heading, cells without their white space."""
    section = re.split(r"^#+ ", text.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return [row for row in found if not set("".join(row)) <= set("- ") and "`" in row[0]]


def names(cell: str) -> list[str]:
    """What stands between backticks."""
    return re.findall(r"`([^`]+)`", cell)


def schema_of(plural: str) -> dict[str, Any]:
    """The properties that the CRD declares."""
    document = yaml.safe_load((ROOT / "crds" / f"spillway.dev_{plural}.yaml").read_text())
    properties: dict[str, Any] = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    return properties


def fields(node: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Each field below `node`: path, schema, whether it must be given."""
    for name, schema in node.get("properties", {}).items():
        is_list = schema.get("type") == "array"
        below = f"{path}.{name}" + ("[]" if is_list else "")
        yield below, schema, name in node.get("required", ())
        yield from fields(schema["items"] if is_list else schema, below)


@pytest.mark.parametrize("kind", ["ModelBackend", "ModelRoute"])
def test_every_field_of_a_spec_is_described_with_its_default(kind: str):
    # Pods get this one; it is no default of the schema because other places refuse the field.
    told_in_words = {"spec.limits.maxQueue": "128"}
    wanted = {}
    for path, schema, required in fields(schema_of(kind.lower() + "s")["spec"], "spec"):
        default = yaml.safe_load(str(told_in_words[path])) if path in told_in_words else schema.get("default")
        wanted[path] = "required" if required else default
    told = {}
    for row in rows(RESOURCES, kind):
        (path,) = names(row[0])
        told[path] = "required" if row[1] == "required" else yaml.safe_load(row[1].strip("`") or "null")
    assert told == wanted
    assert all(row[2] for row in rows(RESOURCES, kind))


def test_every_figure_of_a_status_is_described():
    wanted = {
        (path, kind)
        for kind in ("ModelBackend", "ModelRoute")
        for path, schema, _ in fields(schema_of(kind.lower() + "s")["status"], "status")
        if schema.get("type") != "object" and "conditions" not in path and path != "status.observedGeneration"
    }
    wanted = {(path, kind) for path, kind in wanted if not any(other.startswith(path + ".") for other, _ in wanted)}
    assert {(names(row[0])[0], row[1]) for row in rows(RESOURCES, "Status")} == wanted


def test_every_reason_of_a_condition_is_described():
    told = rows(RESOURCES, "Conditions")
    constants = {value for name, value in vars(reasons).items() if name.isupper() and isinstance(value, str)}
    of_proxies = {secrets.REASON_MISSING, secrets.REASON_INVALID}
    of_proxies |= {cause.value for cause in DiversionCause}
    of_proxies |= {upstream.CERTIFICATE_REFUSED, upstream.TLS_FAILED, upstream.KEY_REFUSED, upstream.ADDRESS_REFUSED}
    assert {name for row in told for cell in row[:2] for name in names(cell)} == constants | of_proxies
    assert len({names(row[1])[0] for row in told}) == len(told)
    assert {status for row in told for status in row[2].split(", ")} == {"True", "False", "Unknown"}


def test_every_outcome_is_described():
    told = [names(row[0])[0] for row in rows(RESOURCES, "What a client is told")]
    assert sorted(told) == sorted(outcome.value for outcome in Outcome)


def described(heading: str) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric under a heading."""
    return {names(row[0])[0]: (row[1], set(names(row[2]))) for row in rows(METRICS, heading)}


def exposed(registry: CollectorRegistry) -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each of our metrics in a registry."""
    direct = {
        collector._name: set(collector._labelnames)
        for collector in registry._collector_to_names
        if hasattr(collector, "_labelnames")
    }
    found = {}
    for family in registry.collect():
        if not family.name.startswith("spillway_"):
            continue
        labels = direct.get(family.name, set(getattr(family, "_labelnames", ())))
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == labels
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = (family.type, labels)
    return found


def test_every_metric_of_a_proxy_is_described():
    proxy = Proxy(parse_settings(["--role", "sidecar", "--node-id", "fast-0"], {}))
    proxy.route.stats.backend("default/chat", "all", "default/fast").outcomes[Outcome.OK] = 1
    proxy.route.stats.refuse("default/chat", Outcome.NO_RULE)
    assert exposed(proxy.registry) == described("Proxies")


def test_every_metric_of_the_operator_is_described():
    bench = Bench()
    bench.registry.register(WorldCollector(bench.world, bench.core.queue))
    bench.registry.register(SignalCollector(bench.world, lambda: 0.0))
    bench.registry.register(StreamCollector(dict))
    assert exposed(bench.registry) == described("Operator")


def test_every_metric_of_an_operator_in_a_cluster_is_described():
    counts = {"one": 1}
    cluster = {
        "election": {"leads": True, "terms": 1},
        "status_writes": {"waiting": 0, "counts": counts},
        "events": {"posted": 0, "dropped": 0, "repeated": 0},
        "api": {"requests": counts},
        "scale": {"counts": counts, "targets": {"ml/Deployment/llama": {"set_at": 1.0}}},
        "deletion_costs": {"counts": counts},
        "token_reviews": {"counts": counts},
    }
    source = {"synced": True, "kopf": {"starts": 1, "contacts": {"Pod": {"failing_seconds": None}}}}
    registry = CollectorRegistry()
    registry.register(ClusterCollector(lambda: cluster, lambda: source))
    assert exposed(registry) == described("Operator in a cluster")


def test_the_file_of_a_standalone_run_is_shown_as_it_is_read():
    block = re.search(r"^    simulate:.*\n(?:    .*\n)+", STANDALONE, re.MULTILINE)
    assert block is not None
    standalone, problems = parse(re.sub(r"^    ", "", block[0], flags=re.MULTILINE), "spillway.yaml", Standalone())
    assert problems == []
    assert standalone.simulate.keys() == {"default/fast", "default/slow"}
    assert standalone.allow_hosts == ("models.lan",)


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(text: Path):
    for target in re.findall(r"\]\(([^)]+)\)", text.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (text.parent / path).resolve() if path else text
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}, target


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_texts_describe_the_present(text: Path):
    words = re.findall(
        r"\b(?:currently|previously|no longer|newly|recently added|seamless\w*|blazing\w*|powerful|robust)\b", text.read_text()
    )
    assert words == []
