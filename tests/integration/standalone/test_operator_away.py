"""The operator is killed, stopped, and started late: traffic does not notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from tests.integration.standalone.conftest import Standalone, until
from tests.integration.standalone.test_live_edit import FILES
from tests.integration.standalone.traffic import Traffic


def test_a_killed_operator_changes_nothing_for_traffic_and_comes_back(start: Callable[..., Standalone]):
    standalone = start(FILES)
    with Traffic(standalone.port, rate=60) as traffic:
        time.sleep(0.5)
        for _ in range(2):
            killed = standalone.pids("spillway_operator")
            for pid in killed:
                os.kill(pid, signal.SIGKILL)
            until(lambda old=killed: standalone.pids("spillway_operator") not in ([], old), "a new operator")
            until(standalone.synced, "every proxy is synced with the new operator")
    assert not traffic.failures
    assert len(traffic.sent) > 60


def test_a_gateway_started_while_the_operator_is_away_serves_from_its_last_good_snapshot(start: Callable[..., Standalone]):
    standalone = start(FILES)
    state = standalone.state / "gateway-0"
    until((state / "last-good.json").exists, "the snapshot is on disk")
    for pid in standalone.pids("spillway_operator"):
        os.kill(pid, signal.SIGSTOP)
    port, admin = standalone.admin + 40, standalone.admin + 41
    command = [sys.executable, "-m", "spillway_sidecar", "--node-id", "gateway-late", "--operator", "http://127.0.0.1:1"]
    late = subprocess.Popen(
        [*command, "--port", str(port), "--admin-port", str(admin), "--state-dir", str(state)], stderr=subprocess.DEVNULL
    )
    try:
        probe = Standalone(standalone.folder, standalone.state, port, admin - 1, late)
        until(lambda: _ready(probe), "the late gateway is ready", 10)
        with Traffic(port, rate=30) as traffic:
            time.sleep(1.0)
        assert not traffic.failures
        assert traffic.since(0)
        assert probe.page("/info", gateway=True)["config"]["started_from"] != "nothing"
    finally:
        late.terminate()
        late.wait(20)
        for pid in standalone.pids("spillway_operator"):
            os.kill(pid, signal.SIGCONT)


def _ready(standalone: Standalone) -> bool:
    try:
        return "ready" in standalone.page("/readyz", gateway=True)
    except OSError:
        return False
