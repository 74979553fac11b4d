"""Child processes of a run: restarted, stopped in order, never left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from spillway.run import supervisor as supervisor_module
from spillway.run.child import Child
from spillway.run.layout import ChildSpec, Site
from spillway.run.logs import BoundedLog
from spillway.run.ports import Ports
from spillway.run.standalone import Simulation, Standalone
from spillway.run.supervisor import Supervisor

Begin = Callable[..., Child]
PATIENT = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - processes tell nobody
            await asyncio.sleep(0.01)


class Said:
    """Messages of the parts under test."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
async def begin(tmp_path: Path, said: Said) -> AsyncIterator[Begin]:
    children: list[Child] = []

    def start(code: str, *arguments: str) -> Child:
        spec = ChildSpec("child", (sys.executable, "-c", code, *arguments), 0)
        children.append(Child(spec, BoundedLog(tmp_path / "child.log"), dict(os.environ), said))
        return children[-1]

    yield start
    for child in children:
        await child.stop(0.1)


async def test_a_child_that_dies_is_started_again_with_its_last_words_told(begin: Begin, said: Said):
    child = begin("import sys; sys.exit('no such backend')")
    await until(lambda: child.starts >= 3)
    assert said.lines[0].startswith("child ended with exit code 1, again in 0.2 s: no such backend (")
    assert "again in 0.4 s" in said.lines[1]
    assert child.info()["deaths_in_a_row"] >= 2


async def test_a_killed_child_comes_back(begin: Begin, said: Said):
    child = begin("import time; time.sleep(600)")
    await until(lambda: child.pid is not None)
    first = child.pid
    child.signal(signal.SIGKILL)
    await until(lambda: child.pid not in {first, None})
    assert "was ended by SIGKILL" in said.lines[0]


async def test_a_command_that_does_not_exist_is_told_and_tried_again(tmp_path: Path, said: Said):
    child = Child(ChildSpec("child", ("/no/such/program",), 0), BoundedLog(tmp_path / "x.log"), {}, said)
    await until(lambda: child.starts >= 2)
    await child.stop(1.0)
    assert "cannot start" in (tmp_path / "x.log").read_text()
    assert said.lines


async def test_a_child_that_does_not_hear_is_killed_after_the_grace(begin: Begin, tmp_path: Path):
    child = begin(PATIENT)
    await until(lambda: "deaf" in (tmp_path / "child.log").read_text())
    pid = child.pid
    assert pid is not None
    await child.stop(0.2)
    assert not alive(pid)


async def test_a_stop_during_the_pause_before_a_restart_is_at_once(begin: Begin, said: Said):
    child = begin("raise SystemExit(3)")
    await until(lambda: child.deaths_in_a_row == 4)  # the pause is 1.6 s
    assert len(said.lines) == 3  # the third is not told
    began = time.monotonic()
    await child.stop(5.0)
    assert time.monotonic() - began < 1.0
    assert child.pid is None


def test_children_die_with_a_supervisor_that_is_killed(tmp_path: Path):
    program = f"""
import asyncio, os, sys
from pathlib import Path
from spillway.run.child import Child
from spillway.run.layout import ChildSpec
from spillway.run.logs import BoundedLog

async def main():
    code = "import time; print('up', flush=True); time.sleep(600)"
    child = Child(ChildSpec("c", (sys.executable, "-c", code), 0), BoundedLog(Path({str(tmp_path / "c.log")!r})), dict(os.environ), print)
    while child.pid is None or "up" not in child.log.last_line():
        await asyncio.sleep(0.01)
    print(child.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as supervisor:
        assert supervisor.stdout is not None
        pid = int(supervisor.stdout.readline())
        assert alive(pid)
        supervisor.kill()
    deadline = time.monotonic() + 5
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)


@pytest.fixture
async def supervisor(tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Supervisor]:
    """A supervisor with real simulated engines, and sidecars that only listen."""
    code = (
        "import socket, sys, time; s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1);"
        "s.bind(('127.0.0.1', int(sys.argv[sys.argv.index('--inbound-port') + 1]))); s.listen(); time.sleep(600)"
    )
    sleeper = ChildSpec("operator", (sys.executable, "-c", "import time; time.sleep(600)"), 2)
    real = supervisor_module.replicas

    def replicas(*arguments: object) -> list[object]:
        import dataclasses

        return [
            dataclasses.replace(
                replica,
                sidecar=dataclasses.replace(replica.sidecar, command=(sys.executable, "-c", code, *replica.sidecar.command[3:])),
            )
            for replica in real(*arguments)  # type: ignore[arg-type]
        ]

    monkeypatch.setattr(supervisor_module, "replicas", replicas)
    monkeypatch.setattr(supervisor_module, "fixed_children", lambda *_: [sleeper])
    supervisor = Supervisor(Site((), tmp_path, 1, 2, 3, 4), dict(os.environ), Ports(os.getpid() + 1), said, 2.0)
    yield supervisor
    await supervisor.stop()


def pids(supervisor: Supervisor) -> dict[str, int]:
    children = supervisor.info()["children"]
    assert isinstance(children, list)
    return {child["name"]: child["pid"] for child in children if child["pid"] is not None}


def endpoint_ids(supervisor: Supervisor) -> list[str]:
    import json

    with contextlib.suppress(FileNotFoundError):
        clusters = json.loads(supervisor.site.endpoints_file.read_text())["endpoints"]
        return [endpoint["id"] for endpoints in clusters.values() for endpoint in endpoints]
    return []


async def test_endpoints_come_when_their_sidecar_listens_and_go_with_their_replica(supervisor: Supervisor):
    await supervisor.apply(Standalone({"default/fast": Simulation(replicas=2)}))
    await until(lambda: endpoint_ids(supervisor) == ["fast-0", "fast-1"])
    before = pids(supervisor)
    assert before.keys() == {"operator", "engine fast-0", "engine fast-1", "sidecar fast-0", "sidecar fast-1"}

    await supervisor.apply(Standalone({"default/fast": Simulation(replicas=1), "default/new": Simulation(replicas=1)}))
    await until(lambda: endpoint_ids(supervisor) == ["fast-0", "new-0"])
    # The one that is not wanted sees its requests out.
    await until(lambda: pids(supervisor).keys() == {"operator", "engine fast-0", "sidecar fast-0", "engine new-0", "sidecar new-0"})
    after = pids(supervisor)
    assert {name: pid for name, pid in after.items() if name in before} == {name: before[name] for name in after if name in before}
    assert not alive(before["engine fast-1"])
    assert not alive(before["sidecar fast-1"])

    await supervisor.stop()
    assert not any(alive(pid) for pid in after.values())


async def test_a_replica_that_is_wanted_again_while_it_retires_goes_on(supervisor: Supervisor):
    await supervisor.apply(Standalone({"default/fast": Simulation(replicas=2)}))
    await until(lambda: endpoint_ids(supervisor) == ["fast-0", "fast-1"])
    before = pids(supervisor)
    await supervisor.apply(Standalone({"default/fast": Simulation(replicas=1)}))
    assert endpoint_ids(supervisor) == ["fast-0"]
    await supervisor.apply(Standalone({"default/fast": Simulation(replicas=2)}))
    await until(lambda: endpoint_ids(supervisor) == ["fast-0", "fast-1"])
    assert pids(supervisor) == before


async def test_a_replica_whose_port_somebody_took_moves_to_another(supervisor: Supervisor, said: Said):
    await supervisor.apply(Standalone({"default/fast": Simulation(replicas=1)}))
    await until(lambda: endpoint_ids(supervisor) == ["fast-0"])
    ports = supervisor.info()["ports"]
    assert isinstance(ports, dict)
    port = ports["fast-0 engine"]
    with socket.socket() as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        while True:  # the engine is killed until its port is caught
            os.kill(pids(supervisor)["engine fast-0"], signal.SIGKILL)
            try:
                await until(lambda: not alive_port(port), 0.5)
                thief.bind(("127.0.0.1", port))
                thief.listen()
                break
            except (OSError, TimeoutError):
                await until(lambda: "engine fast-0" in pids(supervisor))
        await until(lambda: any("is taken by another program" in line for line in said.lines))
        moved = supervisor.info()["ports"]
        assert isinstance(moved, dict)
        await until(lambda: alive_port(supervisor.info()["ports"]["fast-0 engine"]))  # type: ignore[index]
        assert endpoint_ids(supervisor) == ["fast-0"]


def alive_port(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
