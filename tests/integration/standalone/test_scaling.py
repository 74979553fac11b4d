"""Engines follow the load, from zero and back to zero, and nobody's request is lost on the way. The example as it is, with a shorter idle delay."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.integration.standalone.conftest import ROOT, Standalone, until
from tests.integration.standalone.traffic import Traffic

DEADLINE_SECONDS = 90.0


def _replicas(standalone: Standalone) -> tuple[int, int]:
    """Current and desired."""
    found = standalone.object("modelbackends", "elastic").get("status", {}).get("replicas")
    return (-1, -1) if found is None else (found["current"], found["desired"])


@contextlib.contextmanager
def _watched(standalone: Standalone, file: Path) -> Iterator[Path]:
    """What `spillway get backends --watch` prints meanwhile."""
    command = [
        *(sys.executable, "-m", "spillway", "get", "backends", "--watch", "-o", "wide"),
        "--admin",
        f"http://127.0.0.1:{standalone.admin}",
    ]
    with file.open("wb") as out:
        process = subprocess.Popen(command, stdout=out)
        try:
            yield file
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.timeout(300)
def test_engines_come_and_go_with_the_load_and_no_request_is_lost(start: Callable[..., Standalone], tmp_path: Path):
    files = {path.name: path.read_text() for path in (ROOT / "examples" / "scaling").glob("*.yaml")}
    files["backend.yaml"] = files["backend.yaml"].replace("idleAfter: 15s", "idleAfter: 3s")
    files["spillway.yaml"] = files["spillway.yaml"].replace("coldStartSeconds: 2", "coldStartSeconds: 1")
    standalone = start(files)
    assert standalone.pids("sim-engine") == []

    until(lambda: _replicas(standalone) == (0, 0), "the target is known", DEADLINE_SECONDS)
    with _watched(standalone, tmp_path / "watched") as watched:
        until(lambda: "0/0" in watched.read_text(), "the table is shown", DEADLINE_SECONDS)
        # Some six a second, each 1.2 s of one of an engine's four places.
        with Traffic(standalone.port, rate=6, model="elastic", max_tokens=60) as busy:
            until(lambda: _replicas(standalone)[0] >= 2, "more engines", DEADLINE_SECONDS)
        # Long answers, which outlast the engines' being wanted.
        with Traffic(standalone.port, rate=1, model="elastic", max_tokens=200) as calm:
            until(lambda: _replicas(standalone) == (1, 1), "fewer engines", DEADLINE_SECONDS)
        until(lambda: standalone.pids("sim-engine") == [], "none when nobody asks", DEADLINE_SECONDS)
    assert [sent for sent in (*busy.sent, *calm.sent) if not (sent.status == 200 and sent.whole)] == []
    assert len(busy.sent) > 10

    shown = re.findall(r"elastic .*? (\d/\d) .*? (\d/\d) ", watched.read_text())
    assert {"0/0", "0/1", "1/1"} <= {replicas for _, replicas in shown}
    conditions = standalone.object("modelbackends", "elastic")["status"]["conditions"]
    assert {"ScalingActive": "Idle", "Ready": "ScaledToZero"}.items() <= {
        each["type"]: each["reason"] for each in conditions
    }.items()
