"""One engine slows down to a third: traffic moves away from it."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Callable

from tests.integration.standalone.conftest import Standalone
from tests.integration.standalone.traffic import Traffic

FILES = {
    "backend.yaml": """
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {name: pool}
spec:
  provider: VLLM
  model: demo-model
  pods: {selector: {matchLabels: {app: pool}}, port: 8000}
""",
    "route.yaml": """
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {name: chat}
spec:
  models: [chat]
  rules: [{name: all, backendRefs: [{name: pool}]}]
""",
    "spillway.yaml": "simulate: {pool: {replicas: 3, decodeRate: 200, prefillRate: 20000}}\n",
}


def requests_of(standalone: Standalone) -> dict[str, int]:
    """Requests that each simulated engine has finished."""
    counts = {}
    for name in ("pool-0", "pool-1", "pool-2"):
        with urllib.request.urlopen(standalone.engine_url(name) + "/metrics", timeout=5) as reply:
            lines = reply.read().decode().splitlines()
        counts[name] = sum(int(float(line.rsplit(" ", 1)[1])) for line in lines if line.startswith("vllm:request_success_total"))
    return counts


def test_traffic_leaves_an_engine_that_slows_to_a_third(start: Callable[..., Standalone]):
    standalone = start(FILES)
    with Traffic(standalone.port, rate=40, prompt="{n} " + "word " * 400) as traffic:
        time.sleep(4)
        before = requests_of(standalone)
        body = json.dumps({"slow": {"factor": 3}}).encode()
        request = urllib.request.Request(standalone.engine_url("pool-0") + "/fault", data=body, method="POST")
        urllib.request.urlopen(request, timeout=5).read()
        time.sleep(3)
        moved = requests_of(standalone)
        time.sleep(5)
        after = requests_of(standalone)
    total = sum(after.values()) - sum(moved.values())
    slow = after["pool-0"] - moved["pool-0"]
    assert min(before.values()) > sum(before.values()) / 20, before  # none is left out; on a busy machine one may well be slower
    assert total > 100
    assert slow / total < 0.1  # a third of all before
    assert not traffic.failures
