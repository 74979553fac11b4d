"""`spillway run` as a user starts it, on ports of its own, and what its pages say."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.ports import free_port, free_ports

ROOT = Path(__file__).parents[3]
PATIENCE_SECONDS = 30.0


@dataclass
class Standalone:
    """One running `spillway run`."""

    folder: Path
    state: Path
    port: int
    admin: int
    process: subprocess.Popen[bytes]

    @property
    def api(self) -> str:
        """Base URL for an OpenAI client."""
        return f"http://127.0.0.1:{self.port}/v1"

    def page(self, path: str, *, gateway: bool = False) -> Any:
        """JSON (or text) of an admin page of the operator or the gateway."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin + gateway}{path}", timeout=5) as reply:
            data = reply.read()
        try:
            return json.loads(data)
        except ValueError:
            return data.decode()

    def object(self, kind: str, name: str) -> dict[str, Any]:
        """A resource with its status."""
        items = self.page(f"/api/v1/{kind}")["items"]
        return next(item for item in items if item["metadata"]["name"] == name)

    def synced(self) -> bool:
        """Whether every route is programmed everywhere."""
        try:
            items = self.page("/api/v1/modelroutes")["items"]
            if not str(self.page("/readyz", gateway=True)).startswith("ready"):
                return False
        except (OSError, urllib.error.URLError):
            return False
        if any(item.get("status", {}).get("proxies", {}).get("total") != len(self.pids("spillway_sidecar")) for item in items):
            return False
        return bool(items) and all(
            {"Programmed": "True", "Ready": "True"}.items()
            <= {c["type"]: c["status"] for c in item.get("status", {}).get("conditions", [])}.items()
            for item in items
        )

    def pids(self, word: str) -> list[int]:
        """Children whose command line has `word`."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    status = (entry / "stat").read_text().rpartition(")")[2].split()
                    command = (entry / "cmdline").read_bytes().decode().split("\0")
                except OSError:
                    continue
                if int(status[1]) == self.process.pid and word in command:
                    found.append(int(entry.name))
        return found

    def engine_url(self, name: str) -> str:
        """The simulated engine behind an endpoint, from its sidecar's command line."""
        for pid in self.pids("spillway_sidecar"):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if name in command:
                return command[command.index("--engine") + 1]
        raise LookupError(name)

    def stop(self) -> int:
        """One Ctrl-C."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=PATIENCE_SECONDS)


def until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> float:
    """Waits for something to come true; returns the seconds it took, fails when it does not."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > seconds:
            pytest.fail(f"never came true: {what}")
        time.sleep(0.02)
    return time.monotonic() - start


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Standalone]]:
    """Starts `spillway run` on a folder made from `files` (name to text), or on a copy of an example."""
    running: list[Standalone] = []

    def begin(files: dict[str, str] | str, *arguments: str, ready: bool = True) -> Standalone:
        folder = tmp_path / f"resources-{len(running)}"
        if isinstance(files, str):
            shutil.copytree(ROOT / "examples" / files, folder)
        else:
            folder.mkdir()
            for name, text in files.items():
                (folder / name).write_text(text)
        admin = free_ports(3)  # its own, the gateway's and discovery
        port = free_port()
        state = tmp_path / f"state-{len(running)}"
        command = [
            sys.executable,
            "-m",
            "spillway",
            "run",
            str(folder),
            "--port",
            str(port),
            "--admin-port",
            str(admin),
            "--state-dir",
            str(state),
        ]
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)
        standalone = Standalone(folder, state, port, admin, process)
        running.append(standalone)
        if ready:
            until(standalone.synced, "every route programmed and ready")
        return standalone

    yield begin
    for standalone in running:
        if standalone.process.poll() is None:
            standalone.process.send_signal(signal.SIGINT)
            try:
                standalone.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                standalone.process.kill()
                standalone.process.wait()
        if standalone.process.stdout is not None:
            standalone.process.stdout.close()
