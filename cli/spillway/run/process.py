"""The process of `spillway run`: checks before the start, signals, and the loop that watches and shows."""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import os
import signal
import sys
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from spillway.run.layout import LOOPBACK, Site
from spillway.run.ports import Ports, is_free
from spillway.run.screen import Screen
from spillway.run.standalone import Standalone
from spillway.run.supervisor import Supervisor, child_environment
from spillway.run.watch import ScaleFile, StandaloneFiles, View, is_ready, look

FILES_SECONDS = 0.1
VIEW_SECONDS = 1.0
INTRODUCTION_PATIENCE_SECONDS = 10.0  # the address is told by then if the operator answers, whether requests are or not
LAST_WORDS_SECONDS = 1.0  # of the grace, for a proxy that has drained to end; it would be killed in its drain otherwise
OWN_OPTIONS = ("port", "admin_port", "state_dir", "grace_seconds", "simulate", "quiet", "secrets_dir", "ca_file")


class StartError(Exception):
    """Why a run cannot start, in one line for a person."""


def start(args: argparse.Namespace) -> int:
    """Run until a signal; the exit code."""
    try:
        # The same folder tries the same ports, so that the last good snapshots in it still say where things are.
        ports = Ports(zlib.crc32(str(Path(args.state_dir).resolve()).encode()))
        site = _site(args, ports)
        lock = _locked(site.state_dir)
    except StartError as error:
        print(f"spillway run: {error}", file=sys.stderr)
        return 1
    with lock:
        screen = Screen(sys.stdout, lambda: datetime.now(UTC), live=sys.stdout.isatty(), quiet=args.quiet)
        return asyncio.run(_Run(args, site, ports, screen).main())


def _site(args: argparse.Namespace, ports: Ports) -> Site:
    for path in args.paths:
        if not Path(path).exists():
            raise StartError(f"{path}: no such file or folder")
    port = args.port or ports("api")
    if args.admin_port:
        admin_ports = [args.admin_port, args.admin_port + 1, args.admin_port + 2]
    else:
        admin_ports = [ports("operator admin"), ports("gateway admin"), ports("discovery")]
    wanted = ((port, "--port"), *((admin_port, "--admin-port") for admin_port in admin_ports))
    if port in admin_ports:
        raise StartError(f"port {port} is asked for twice: --admin-port takes three ports in a row")
    for number, option in wanted:
        if not is_free(number):
            raise StartError(f"port {number} is taken; stop what listens there, or choose another with {option}")
    secrets_dir, ca_file = _given(args.secrets_dir), _given(args.ca_file)
    if secrets_dir is not None and not secrets_dir.is_dir():
        raise StartError(f"--secrets-dir {args.secrets_dir}: no such folder")
    if ca_file is not None:
        _check_authorities(ca_file)
    operator_port, gateway_port, discovery_port = admin_ports
    state_dir = Path(args.state_dir)
    return Site(tuple(args.paths), state_dir, port, operator_port, gateway_port, discovery_port, secrets_dir, ca_file)


def _check_authorities(file: Path) -> None:
    import ssl

    try:
        ssl.create_default_context(cafile=file)
    except ssl.SSLError as error:
        raise StartError(f"--ca-file {file}: no certificates in it") from error
    except OSError as error:
        raise StartError(f"--ca-file {file}: {error.strerror}") from error


def _given(path: str | None) -> Path | None:
    return Path(path).expanduser().absolute() if path else None


def _locked(state_dir: Path) -> IO[str]:
    """The state folder, for this process alone until the file is closed."""
    try:
        (state_dir / "logs").mkdir(parents=True, exist_ok=True)
        lock = (state_dir / "lock").open("w", encoding="ascii")
    except OSError as error:
        raise StartError(f"cannot use the state folder {state_dir}: {error.strerror}; choose another with --state-dir") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise StartError(f"another run uses the state folder {state_dir}; choose another with --state-dir") from None
    return lock


class _Run:
    """One run from its first line to its last."""

    def __init__(self, args: argparse.Namespace, site: Site, ports: Ports, screen: Screen) -> None:
        self._site, self._screen = site, screen
        self._overrides = dict(args.simulate)
        self._files = StandaloneFiles(args.paths)
        self._scale = ScaleFile(site.scale_file)
        self._told: dict[str, set[str]] = {}
        self._stop = asyncio.Event()
        environ = child_environment(os.environ, OWN_OPTIONS)
        environ["SPILLWAY_DRAIN_SECONDS"] = str(max(0.0, args.grace_seconds - LAST_WORDS_SECONDS))
        self._supervisor = Supervisor(site, environ, ports, screen.say, args.grace_seconds)
        self._introduced: bool | None = None  # None: nothing has been said yet
        self._standalone = Standalone()

    async def main(self) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._on_signal)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._follow_files()), group.create_task(self._follow_operator())]
                await self._stop.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self._screen.end()
            await self._supervisor.stop()
        self._screen.say("stopped")
        return 0

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._supervisor.kill()
            return
        self._stop.set()
        self._screen.end()
        self._screen.say("stopping; once more stops at once")

    async def _follow_files(self) -> None:
        while True:
            standalone = self._files.read_if_changed()
            if standalone is not None:
                self._standalone = standalone.with_replicas(self._overrides)
                if self._introduced is None:
                    self._introduced = False
                    self._screen.line(_starting(self._standalone))
            if self._scale.read_if_changed() or standalone is not None:
                await self._supervisor.apply(self._standalone.scaled(self._scale.replicas))
            await asyncio.sleep(FILES_SECONDS)

    async def _follow_operator(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            view = await look(self._site.operator_url)
            if not self._introduced:
                ready = view is not None and _chat_model(view) is not None
                ready = ready and await is_ready(f"http://{LOOPBACK}:{self._site.gateway_admin_port}")
                if view is not None and (ready or loop.time() - began > INTRODUCTION_PATIENCE_SECONDS):
                    self._introduce(view)
                    self._introduced = True
                else:
                    await asyncio.sleep(0.1)
                    continue
            problems = [*self._files.problems, *(view.problems if view else [])]
            if view is not None:
                self._tell("simulate", _unknown_simulations(self._standalone, view))
                if not self._screen.live:
                    self._tell("files", [str(problem) for problem in problems], "the files are good again")
            footer = f"API http://{LOOPBACK}:{self._site.port}   admin {self._site.operator_url}   Ctrl-C stops"
            self._screen.update(view, problems, footer)
            await asyncio.sleep(VIEW_SECONDS)

    def _tell(self, subject: str, texts: list[str], relief: str | None = None) -> None:
        """Say what has come up in a subject since the last time, and `relief` once there is nothing left to say."""
        told = self._told.get(subject, set())
        for text in dict.fromkeys(texts):
            if text not in told:
                self._screen.line(text)
        if told and not texts and relief:
            self._screen.say(relief)
        self._told[subject] = set(texts)

    def _introduce(self, view: View) -> None:
        site = self._site
        address = f"http://{LOOPBACK}:{site.port}"
        attempt = [f"try      curl {address}/v1/models"]
        if model := _chat_model(view):
            body = f'{{"model": "{model}", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'
            attempt = [
                f"try      curl -N {address}/v1/chat/completions -H 'content-type: application/json' \\",
                f"           -d '{body}'",
            ]
        for line in (
            "",
            f"API      {address}/v1",
            f"admin    operator {site.operator_url}, gateway http://{LOOPBACK}:{site.gateway_admin_port} (/info /config /metrics)",
            f"logs     {site.state_dir / 'logs'}/*.log",
            "",
            *attempt,
            *([] if self._screen.live else [""]),
        ):
            self._screen.line(line)


def _starting(standalone: Standalone) -> str:
    engines = sum(simulation.replicas for simulation in standalone.simulate.values())
    more = f", {engines} simulated engine{'s' if engines != 1 else ''} with a sidecar each" if engines else ""
    return f"starting the operator, a gateway{more}; Ctrl-C stops all"


def _chat_model(view: View) -> str | None:
    """A model name that a client can send: of the first route that is ready."""
    for route in view.routes:
        if any(_is_true(condition, "Ready") for condition in (route.get("status") or {}).get("conditions") or []):
            return str(route["spec"]["models"][0])
    return None


def _is_true(condition: Mapping[str, Any], kind: str) -> bool:
    return condition.get("type") == kind and condition.get("status") == "True"


def _unknown_simulations(standalone: Standalone, view: View) -> list[str]:
    """Simulated engines that nobody will ever ask."""
    known = {f"{item['metadata'].get('namespace', 'default')}/{item['metadata']['name']}" for item in view.backends}
    return [
        f"simulate: there is no ModelBackend {key}; its engines get no traffic" for key in standalone.simulate if key not in known
    ]
