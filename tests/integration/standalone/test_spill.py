"""The excess of a pool goes to the provider and comes back; a pool that fails is left and returned to. As the example declares it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.fakes.ports import free_port
from tests.integration.standalone.conftest import ROOT, Standalone, until
from tests.integration.standalone.traffic import Traffic

from spillway.run.ports import is_free


@pytest.fixture
def provider() -> Iterator[int]:
    """What stands outside; its port."""
    port = free_port()
    command = [sys.executable, "-m", "spillway", "sim-engine", "--port", str(port), "--max-running", "512", "--decode-rate", "200"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: not is_free(port), "the provider listens")
    yield port
    process.terminate()
    process.wait(20)


def _example(port: int) -> dict[str, str]:
    """The example's files, with shorter bounds and the provider where it is."""
    files = {path.name: path.read_text() for path in (ROOT / "examples" / "spill").glob("*.yaml")}
    files["backends.yaml"] = files["backends.yaml"].replace("127.0.0.1:9100", f"127.0.0.1:{port}")
    files["route.yaml"] = files["route.yaml"].replace("maxWait: 2s", "maxWait: 500ms")
    return files


def _diverted(standalone: Standalone) -> dict[str, int]:
    """Requests that the gateway has sent past the pool, by cause."""
    found = {}
    for line in standalone.page("/metrics", gateway=True).splitlines():
        if line.startswith("spillway_diverted_total{"):
            assert 'backend="default/outside"' in line
            found[line.partition('cause="')[2].partition('"')[0]] = int(float(line.rpartition(" ")[2]))
    return found


def _active(standalone: Standalone) -> dict[str, Any]:
    """The route's status, the parts that tell what is active."""
    status = standalone.object("modelroutes", "busy")["status"]
    return {
        "active": {each["name"] for each in status["backends"] if each["active"]},
        "text": status["summary"].get("active", ""),
        **{each["type"]: (each["status"], each["reason"], each["message"]) for each in status["conditions"]},
    }


def _notes(standalone: Standalone, notes: set[str]) -> set[str]:
    """Adds what the decision records of a few more requests say of going past the pool, without the figures."""
    for _ in range(4):
        body = json.dumps({"model": "busy", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]}).encode()
        with urllib.request.urlopen(urllib.request.Request(standalone.api + "/chat/completions", data=body), timeout=20) as reply:
            record = standalone.page(f"/explain/{reply.headers['x-request-id']}", gateway=True)
        attempt = record["attempts"][0]
        assert bool(attempt["diverted"]) == (attempt["backend"] == "default/outside")
        notes.add((attempt["diverted"] or "").partition(":")[0])
    return notes


def _fault(standalone: Standalone, faults: dict[str, Any] | None) -> None:
    for name in ("pool-0", "pool-1"):
        data = None if faults is None else json.dumps(faults).encode()
        request = urllib.request.Request(
            standalone.engine_url(name) + "/fault", data=data, method="DELETE" if data is None else "POST"
        )
        urllib.request.urlopen(request, timeout=5).read()


def test_the_excess_goes_out_and_comes_back(start: Callable[..., Standalone], provider: int):
    standalone = start(_example(provider))
    with Traffic(standalone.port, rate=4, max_tokens=20, model="busy") as calm:
        time.sleep(1)
    assert not calm.failures
    assert _diverted(standalone) == {}
    assert _active(standalone)["active"] == {"pool"}
    with Traffic(standalone.port, rate=60, max_tokens=20, model="busy") as rush:
        until(lambda: _active(standalone)["active"] == {"pool", "outside"}, "the spill shows in the status", 10)
        shown = _active(standalone)
        notes: set[str] = set()
        until(lambda: _notes(standalone, notes) == {"", "spilled"}, "records of requests that stayed, and of some that went on", 10)
    assert not rush.failures
    assert shown["text"] == "all:PredictedWait"
    assert shown["SpillActive"][:2] == ("True", "PredictedWait")
    assert "rule all spills past priority 0 (predicted wait " in shown["SpillActive"][2]
    assert "> 0.5 s)" in shown["SpillActive"][2]
    spilled = _diverted(standalone)
    assert spilled.keys() == {"PredictedWait"}
    assert 0.1 < spilled["PredictedWait"] / len(rush.sent) < 0.9, "the pool goes on taking what it can"
    assert 'spillway_diverting{cause="PredictedWait"' in standalone.page("/metrics", gateway=True)
    until(lambda: _active(standalone)["active"] == {"pool"}, "it is over", 30)
    assert _active(standalone)["SpillActive"][:2] == ("False", "WithinBounds")
    with Traffic(standalone.port, rate=4, max_tokens=20, model="busy") as again:
        time.sleep(1)
    assert not again.failures
    assert _diverted(standalone) == spilled


def test_a_pool_that_fails_is_left_and_returned_to(start: Callable[..., Standalone], provider: int):
    files = _example(provider)
    files["route.yaml"] = files["route.yaml"].replace(
        "models: [busy]", "models: [busy]\n  retries: {maxAttempts: 3, budgetPercent: 100}"
    )
    standalone = start(files)
    with Traffic(standalone.port, rate=20, max_tokens=4, model="busy") as traffic:
        time.sleep(1)
        _fault(standalone, {"error": {"probability": 0.4}})
        until(lambda: "ErrorRate" in _diverted(standalone), "the pool is left", 15)
        until(lambda: _active(standalone)["active"] == {"outside"}, "the status says so", 5)
        shown = _active(standalone)
        _fault(standalone, None)
        until(lambda: _active(standalone)["active"] == {"pool"}, "the pool is returned to", 30)
    assert shown["FallbackActive"][:2] == ("True", "ErrorRate")
    assert "rule all leaves priority 0 (error rate " in shown["FallbackActive"][2]
    assert not traffic.failures, "errors are made good elsewhere"
