"""One child process, kept alive.

A child that dies is started again with the same command, after a pause that grows while it dies early. It leads a session of
its own, so that Ctrl-C in the terminal reaches only the supervisor, which stops its children in order; and the kernel kills it
should the supervisor vanish, so there is no orphan after `kill -9` either.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
from collections.abc import Callable, Mapping

from spillway.run.layout import ChildSpec, back_off_seconds
from spillway.run.logs import BoundedLog

SETTLED_SECONDS = 10.0  # a child that lived so long has not died early
_PR_SET_PDEATHSIG = 1

Say = Callable[[str], None]


def _prepare_child() -> Callable[[], None] | None:
    """What a child does before it becomes its program: ask the kernel to be killed when the supervisor is gone."""
    try:
        prctl = ctypes.CDLL(None, use_errno=True).prctl
    except (OSError, AttributeError):  # not Linux: an orderly end stops the children, a killed supervisor does not
        return None
    parent = os.getpid()

    def prepare() -> None:
        prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it went before the kernel had been asked
            os._exit(1)

    return prepare


class Child:
    """Runs `spec` until `stop`. `before_restart` may look at what went wrong and must not wait."""

    def __init__(self, spec: ChildSpec, log: BoundedLog, environ: Mapping[str, str], say: Say) -> None:
        self.spec = spec
        self.log = log
        self.starts = 0
        self.deaths_in_a_row = 0
        self.on_death: Callable[[Child], None] = lambda _: None
        self._environ = environ
        self._say = say
        self._stopping = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._loop = asyncio.get_running_loop()
        self._task = self._loop.create_task(self._keep_alive(), name=spec.name)

    @property
    def pid(self) -> int | None:
        """Process id while it runs."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    def info(self) -> dict[str, object]:
        """State in figures."""
        return {"name": self.spec.name, "pid": self.pid, "starts": self.starts, "deaths_in_a_row": self.deaths_in_a_row}

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL if it is still there after the grace."""
        self._stopping.set()
        self.signal(signal.SIGTERM)
        done, _ = await asyncio.wait([self._task], timeout=grace_seconds)
        if not done:
            self.signal(signal.SIGKILL)
            await asyncio.wait([self._task])
        self.log.close()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def _keep_alive(self) -> None:
        while not self._stopping.is_set():
            began = self._loop.time()
            try:
                code = await self._run_once()
            except OSError as error:
                self.log.write(f"cannot start: {error}\n".encode())
                code = -1
            if self._stopping.is_set():
                return
            early = self._loop.time() - began < SETTLED_SECONDS
            self.deaths_in_a_row = self.deaths_in_a_row + 1 if early else 1
            pause = back_off_seconds(self.deaths_in_a_row)
            last = self.log.last_line() if code > 0 else ""
            if (
                self.deaths_in_a_row.bit_count() == 1
            ):  # the 1st, 2nd, 4th, 8th .. time: one that never lives does not fill the screen
                self._say(f"{self.spec.name} {_ended(code)}, again in {pause:g} s{': ' + last if last else ''} ({self.log.path})")
            self.on_death(self)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _run_once(self) -> int:
        self.starts += 1
        self._process = process = await asyncio.create_subprocess_exec(
            *self.spec.command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=self._environ,
            start_new_session=True,
            preexec_fn=_prepare_child(),
        )
        if self._stopping.is_set():  # asked to while the process was being made
            self.signal(signal.SIGTERM)
        self.log.write(f"--- pid {process.pid}: {' '.join(self.spec.command)}\n".encode())
        self.log.forget_tail()
        if process.stdout is not None:
            while data := await process.stdout.read(65_536):
                self.log.write(data)
        return await process.wait()


def _ended(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"was ended by signal {-code}"
