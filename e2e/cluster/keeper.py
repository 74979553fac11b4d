"""The keeper: one process that owns the programs of a cluster.

It starts them, says in `programs.json` how they are, starts one again that died, and ends them all when it ends. A program
whose name lies as a file in its folder's `stopped/` is killed and stays away until the file is gone: that is how a test
takes the API server away for a minute. Every program carries a parent-death signal, so that a killed keeper leaves nothing
running either. On the node tier the keeper is process 1 of the cluster's own process namespace, where it also takes in
orphans (the shims of containers), and its end is the end of everything in there.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

TICK_SECONDS = 0.1
# A program that dies at once is started again, but not in a hot loop.
RESTART_SECONDS = 1.0

# What a keeper's folder holds.
LOGS = "log"
STOPPED = "stopped"  # a folder: a program whose name lies in it is not to run
PROGRAMS = "programs.json"  # how the programs are


@dataclass(frozen=True, slots=True)
class Program:
    """One program of the cluster: its name (also that of its log) and its command line."""

    name: str
    command: tuple[str, ...]
    after: Callable[[], bool] = lambda: True  # starts when this is true for the first time
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class _Running:
    program: Program
    process: subprocess.Popen[bytes] | None = None
    released: bool = False  # `after` was true once
    starts: int = 0
    not_before: float = 0.0


class Keeper:
    """Runs programs until it is told to end."""

    def __init__(self, folder: Path, programs: Sequence[Program]) -> None:
        self._folder = folder
        (folder / LOGS).mkdir(parents=True, exist_ok=True)
        (folder / STOPPED).mkdir(exist_ok=True)
        self._programs = [_Running(program) for program in programs]
        self._said = ""

    def info(self) -> dict[str, dict[str, int | bool | None]]:
        """Each program: whether it runs, its process id (as the keeper sees it), how often it was started."""
        return {
            one.program.name: {
                "running": one.process is not None,
                "pid": one.process.pid if one.process else None,
                "starts": one.starts,
            }
            for one in self._programs
        }

    def run(self, over: Callable[[], bool]) -> None:
        """Returns when `over` says so, with every program ended."""
        try:
            while not over():
                self.step(time.monotonic())
                time.sleep(TICK_SECONDS)
        finally:
            self._kill_all()

    def step(self, now: float) -> None:
        """Makes what runs equal to what should run."""
        self._reap(now)
        for one in self._programs:
            wanted = not (self._folder / STOPPED / one.program.name).exists()
            if one.process is not None and not wanted:
                one.process.kill()
                one.process.wait()
                one.process = None
            elif one.process is None and wanted and now >= one.not_before and (one.released or one.program.after()):
                one.released = True
                one.process = self._start(one.program)
                one.starts += 1
        self._say()

    def _start(self, program: Program) -> subprocess.Popen[bytes]:
        with (self._folder / LOGS / f"{program.name}.log").open("ab") as log:
            return subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *program.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **program.environment},
            )

    def _reap(self, now: float) -> None:
        for one in self._programs:
            if one.process is not None and one.process.poll() is not None:
                one.process = None
                one.not_before = now + RESTART_SECONDS
        if os.getpid() == 1:
            _reap_orphans({one.process.pid for one in self._programs if one.process is not None})

    def _say(self) -> None:
        text = json.dumps(self.info(), indent=1)
        if text != self._said:
            write_whole(self._folder / PROGRAMS, text)
            self._said = text

    def _kill_all(self) -> None:
        # The data goes with the cluster: nothing is gained by asking politely, and kube-apiserver takes its time.
        for one in reversed(self._programs):
            if one.process is not None:
                one.process.kill()
        for one in self._programs:
            if one.process is not None:
                one.process.wait()
                one.process = None
        self._say()


def keeper_of(state: Path) -> int | None:
    """The process id of the keeper of a state folder, if it is alive; an id taken by somebody else is seen by its command."""
    try:
        process = int((state / "keeper.pid").read_text())
        command = Path(f"/proc/{process}/cmdline").read_text()
    except (OSError, ValueError):
        return None
    return process if "e2e.cluster" in command and str(state.resolve()) in command else None


def _reap_orphans(own: set[int]) -> None:
    """Takes in children that process 1 inherited; those that it started itself are left to their Popen."""
    for entry in Path("/proc/self/task", str(os.getpid()), "children").read_text().split():
        if int(entry) not in own:
            try:
                os.waitpid(int(entry), os.WNOHANG)
            except ChildProcessError:
                continue


def told_to_end() -> Callable[[], bool]:
    """Whether this process had a SIGTERM or SIGINT since the call."""
    told: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, _: told.append(number))
    return lambda: bool(told)


def write_whole(path: Path, text: str) -> None:
    """So that a reader sees the old text or the new one."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text)
    temporary.replace(path)
