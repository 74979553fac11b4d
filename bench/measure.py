"""Runs the peers and the load, one cell at a time, and yields what came out.

All peers are up at once and each cell goes round them, so that a disturbance of the machine meets all alike; memory is measured
with each peer alone. A cell is `(peer, round, name)` with the load generator's figures, the CPU time the proxy's whole process tree
spent meanwhile, and `other`: the cores that anything else on the machine took.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import machine
from bench.peers import ENGINE_PORTS, OUT, Peer

SOURCES = Path(__file__).resolve().parent
STREAMS_HELD = 1000
READY_SECONDS = 20.0
Cell = dict[str, float]
Emit = Callable[[str, int, str, Cell], None]

# Settings of the engine and arguments of the load generator, by cell. Events are 20 ms apart, 25,000 a second offered.
CELLS: dict[str, tuple[dict[str, int], tuple[str, ...]]] = {
    "rate": ({"i": 0, "n": 100}, ("-c", "64", "-t", "1.5")),
    "low": ({"i": 0, "n": 100}, ("-c", "8", "-r", "200", "-t", "1.5")),
    "stream": ({"i": 20, "n": 50}, ("-c", "500", "-s", "-1", "-t", "8")),
    "prompt": ({"i": 0, "n": 100}, ("-c", "16", "-b", "32000", "-t", "1")),
}


def build() -> None:
    """Compiles load generator and engine; nothing else in the project needs a compiler."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler:
        raise SystemExit("bench: a C compiler is needed for load generator and engine (Debian: apt install gcc libc6-dev)")
    OUT.mkdir(parents=True, exist_ok=True)
    for name in ("load", "mock"):
        source, binary = SOURCES / f"{name}.c", OUT / name
        if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
            subprocess.run([compiler, "-O2", "-o", str(binary), str(source)], check=True)


@contextlib.contextmanager
def engine(core: int) -> Iterator[None]:
    process = machine.start([str(OUT / "mock"), "-p", ",".join(map(str, ENGINE_PORTS))], core, log=OUT / "log.mock")
    try:
        time.sleep(0.3)
        if process.poll() is not None:
            raise SystemExit(f"bench: the engine did not start: {(OUT / 'log.mock').read_text().strip()}")
        yield
    finally:
        machine.stop([process])


@contextlib.contextmanager
def running(peers: list[Peer], core: int, failed: dict[str, str]) -> Iterator[dict[str, int]]:
    """The peers' process ids (0 without a proxy) once they answer; those that do not are in `failed`."""
    processes = {
        peer.name: machine.start(list(peer.command), core, log=log_of(peer), env=peer.env) for peer in peers if peer.command
    }
    try:
        pids = {}
        for peer in peers:
            process = processes.get(peer.name)
            why = wait_ready(peer, process)
            if why:
                failed[peer.name] = f"{why}; see {log_of(peer).relative_to(OUT.parent.parent)}"
            else:
                pids[peer.name] = process.pid if process else 0
        yield pids
    finally:
        machine.stop(list(processes.values()))


def log_of(peer: Peer) -> Path:
    return OUT / f"log.{peer.name.replace(' ', '-')}"


def wait_ready(peer: Peer, process: subprocess.Popen[str] | None) -> str | None:
    """None once the peer answers a request, else why it does not."""
    body = json.dumps({"model": peer.model, "messages": [{"role": "user", "content": "hi"}]}).encode()
    request = urllib.request.Request(
        f"http://127.0.0.1:{peer.port}/v1/chat/completions", body, {"content-type": "application/json"}
    )
    end, why = time.monotonic() + READY_SECONDS, "no answer"
    while time.monotonic() < end:
        if process and process.poll() is not None:
            return f"exited with {process.returncode}"
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                answer.read()
        except OSError as error:
            why = repr(error)
            time.sleep(0.2)
        else:
            return None
    return why


def load(peer: Peer, core: int, arguments: tuple[str, ...]) -> subprocess.Popen[str]:
    command = [str(OUT / "load"), "-p", str(peer.port), "-m", peer.model, *arguments]
    return machine.start(command, core, stdout=subprocess.PIPE)


def set_engine(settings: dict[str, int]) -> None:
    query = "&".join(f"{name}={value}" for name, value in {"d": 0, "b": 1000, **settings}.items())
    with urllib.request.urlopen(f"http://127.0.0.1:{ENGINE_PORTS[0]}/set?{query}", timeout=5) as answer:
        answer.read()


def measure(peer: Peer, pid: int, core: int, arguments: tuple[str, ...]) -> Cell:
    mine = set(machine.tree(os.getpid()))
    cpu, others, began = machine.cpu_seconds(pid) if pid else 0.0, machine.others_seconds(mine), time.monotonic()
    output = load(peer, core, arguments).communicate(timeout=90)[0]
    result: Cell = json.loads(output.strip().splitlines()[-1])
    wall = time.monotonic() - began
    result["cpu"] = machine.cpu_seconds(pid) - cpu if pid else 0.0
    result["other"] = sum(value - others.get(key, 0.0) for key, value in machine.others_seconds(mine).items()) / wall
    return result


def rounds(peers: list[Peer], pids: dict[str, int], count: int, names: tuple[str, ...], core: int, emit: Emit) -> None:
    """Each cell round the peers, `count` times."""
    here = [peer for peer in peers if peer.name in pids]
    set_engine({})
    for peer in here:
        load(peer, core, ("-c", "64", "-t", "1")).communicate()
    for number in range(count):
        for name in names:
            settings, arguments = CELLS[name]
            set_engine(settings)
            for peer in here:
                emit(peer.name, number, name, measure(peer, pids[peer.name], core, arguments))


def memory(peer: Peer, proxy_core: int, core: int, emit: Emit) -> None:
    """A peer alone: memory after some traffic, and with a thousand streams open."""
    failed: dict[str, str] = {}
    with running([peer], proxy_core, failed) as pids:
        pid = pids.get(peer.name)
        if not pid:
            return
        set_engine({})
        load(peer, core, ("-c", "16", "-t", "1")).communicate()
        idle_kb, resident_kb = machine.memory_kb(pid)
        set_engine({"i": 20_000, "n": 2})
        holder = load(peer, core, ("-c", str(STREAMS_HELD), "-s", "-H", "-t", "20"))
        try:
            ready = holder.stdout is not None and holder.stdout.readline().strip() == "ready"
            time.sleep(0.5)
            held_kb, _ = machine.memory_kb(pid)
        finally:
            machine.stop([holder])
        figures = {"idle_mb": idle_kb / 1024, "resident_mb": resident_kb / 1024}
        if ready:
            figures["stream_kb"] = (held_kb - idle_kb) / STREAMS_HELD
        emit(peer.name, 0, "memory", figures)
