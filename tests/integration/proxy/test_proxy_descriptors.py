"""File descriptors: as many connections as there are, and no spinning where there are none left."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.ports import free_port

from spillway_sidecar.__main__ import OTHER_DESCRIPTORS, within_descriptors
from spillway_sidecar.settings import parse

FEW = 80
_SERVE = (
    "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, ({few}, {few}));"
    "import spillway_sidecar.__main__ as proxy; proxy.within_descriptors = lambda settings: settings; sys.exit(proxy.main(sys.argv[1:]))"
)


@pytest.mark.parametrize(("role", "listeners"), [("gateway", 1), ("sidecar", 2)])
def test_connections_are_bounded_by_the_descriptors(monkeypatch: pytest.MonkeyPatch, role: str, listeners: int):
    settings = parse(["--role", role], {})
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    limits = within_descriptors(settings).client_limits
    assert asked == [(4096, 4096)]
    assert limits.max_connections == (4096 - OTHER_DESCRIPTORS) // (2 * listeners)
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 20, 1 << 20))
    assert within_descriptors(settings) == settings


def _cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def _serving(*options: str) -> Iterator[tuple[int, int]]:
    """A proxy process with few descriptors that knows nothing of it: its port, its pid."""
    port = free_port()
    command = [sys.executable, "-c", _SERVE.format(few=FEW), "--port", str(port), "--admin-port", "0", *options]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        try:
            yield port, process.pid
        finally:
            process.terminate()


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=5.0)


@pytest.mark.parametrize("options", [(), ("--no-uvloop",)])
def test_a_proxy_without_descriptors_does_not_spin_and_comes_back(options: tuple[str, ...]):
    with _serving(*options) as (port, pid):
        end = time.monotonic() + 30.0
        while True:
            with contextlib.suppress(OSError):
                _connect(port).close()
                break
            assert time.monotonic() < end, "it does not listen"
            time.sleep(0.05)
        crowd = [_connect(port) for _ in range(FEW + 40)]
        time.sleep(0.3)
        before = _cpu_seconds(pid)
        time.sleep(1.0)
        assert _cpu_seconds(pid) - before < 0.5
        for client in crowd:
            client.close()
        end = time.monotonic() + 30.0
        while True:
            with contextlib.suppress(OSError), _connect(port) as client:
                client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: proxy\r\n\r\n")
                if client.recv(12) == b"HTTP/1.1 200":
                    break
            assert time.monotonic() < end, "it does not answer any more"
            time.sleep(0.05)
