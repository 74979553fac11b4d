"""Resources edited while traffic flows: the effect comes, and no request notices."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.integration.standalone.conftest import Standalone, until
from tests.integration.standalone.traffic import Traffic

BACKEND = """
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {{name: {name}}}
spec:
  provider: VLLM
  model: {name}-model
  pods: {{selector: {{matchLabels: {{app: {name}}}}}, port: 8000}}
"""
ROUTE = """
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {{name: chat}}
spec:
  models: [chat]
  rules:
{rules}
"""
WEIGHTED = "  - {{name: all, backendRefs: [{{name: fast, weight: {fast}}}, {{name: slow, weight: {slow}}}]}}"
FILES = {
    "fast.yaml": BACKEND.format(name="fast"),
    "slow.yaml": BACKEND.format(name="slow"),
    "route.yaml": ROUTE.format(rules=WEIGHTED.format(fast=90, slow=10)),
    "spillway.yaml": "simulate: {fast: {replicas: 1, decodeRate: 400, prefillRate: 50000}, slow: {replicas: 1, decodeRate: 400, prefillRate: 50000}}\n",
}


def share(traffic: Traffic, since: float, model: str) -> float:
    """Share of whole requests after a moment that one model answered."""
    sent = traffic.since(since)
    return sum(s.upstream == model for s in sent) / len(sent)


def settled(standalone: Standalone, generation: int) -> Callable[[], bool]:
    """Whether every proxy runs a generation of the route."""

    def check() -> bool:
        status = standalone.object("modelroutes", "chat")["status"]
        programmed = next(c for c in status["conditions"] if c["type"] == "Programmed")
        return bool(programmed["status"] == "True" and programmed["observedGeneration"] == generation)

    return check


def test_edits_under_load_take_effect_and_lose_nothing(start: Callable[..., Standalone]):
    standalone = start(FILES)
    route = standalone.folder / "route.yaml"
    with Traffic(standalone.port, rate=60) as traffic:
        time.sleep(2.5)
        assert share(traffic, 0, "fast-model") > 0.75
        route.write_text(ROUTE.format(rules=WEIGHTED.format(fast=10, slow=90)))
        until(settled(standalone, 2), "the new weights run everywhere")
        edited = time.monotonic()
        time.sleep(2.5)
        assert share(traffic, edited, "slow-model") > 0.75
        assert standalone.object("modelroutes", "chat")["status"]["summary"]["synced"] == "3/3"

        route.write_text(ROUTE.format(rules="  - {name: all, backendRefs: [{name: slow}]}"))
        until(settled(standalone, 3), "the backend is out of the route")
        (standalone.folder / "fast.yaml").unlink()
        until(lambda: len(standalone.page("/api/v1/modelbackends")["items"]) == 1, "the backend is gone")
        time.sleep(1.0)
        (standalone.folder / "again.yaml").write_text(BACKEND.format(name="fast"))
        rules = "  - {name: tier, matches: [{headers: [{name: x-tier, value: premium}]}], backendRefs: [{name: fast}]}\n  - {name: all, backendRefs: [{name: slow}]}"
        route.write_text(ROUTE.format(rules=rules))
        until(settled(standalone, 4), "a rule was added")
        with Traffic(standalone.port, rate=20, headers="x-tier: premium\r\n") as premium:
            time.sleep(1.5)
    assert not traffic.failures
    assert len(traffic.sent) > 200
    assert not premium.failures
    assert {s.upstream for s in premium.sent} == {"fast-model"}


def test_a_typo_changes_nothing_else_and_is_named_by_file_line_and_path(start: Callable[..., Standalone]):
    standalone = start(FILES)
    with Traffic(standalone.port, rate=40) as traffic:
        bad = ROUTE.format(rules="  - {name: all, backendRefs: [{name: fast, wieght: 90}]}")
        (standalone.folder / "route.yaml").write_text(bad)
        until(lambda: bool(standalone.page("/api/v1/problems")["items"]), "the typo is told")
        time.sleep(1.0)
        problem = standalone.page("/api/v1/problems")["items"][0]
        line = 1 + bad[: bad.index("wieght")].count("\n")
        assert problem["file"].endswith("route.yaml")
        assert problem["line"] == line
        assert problem["path"] == "spec.rules[0].backendRefs[0].wieght"
        assert "weight" in problem["message"]
        route = standalone.object("modelroutes", "chat")
        assert route["spec"]["rules"][0]["backendRefs"][0]["weight"] == 90  # the last good version
        accepted = next(c for c in route["status"]["conditions"] if c["type"] == "Accepted")
        assert accepted["status"] == "False"
        assert accepted["reason"] == "Invalid"
        assert f"route.yaml:{line}" in accepted["message"]
        (standalone.folder / "route.yaml").write_text(FILES["route.yaml"])
        until(lambda: not standalone.page("/api/v1/problems")["items"], "the typo is mended")
    assert not traffic.failures
    assert traffic.since(0)
