"""Real processes: an operator core, gateways, four sidecars, four engines; started, struck, healed and asked.

Everything listens on 127.0.0.1 on ports below the kernel's outgoing range. Logs, state folders and resources are in `folder`, which stays
when something went wrong. Proxies reach the operator through the rig's `Relay`. Routes: `chat` goes through the sidecars, `direct`
to the engines themselves, so that harm done to bytes meets both kinds of listener.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from tests.faults.engine import ONCE
from tests.faults.relay import Relay

from spillway.run.ports import Ports

ROOT: Final = Path(__file__).parents[2]
PATIENCE_SECONDS: Final = 60.0
ENGINES: Final = 4
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

ROUTE = """\
apiVersion: spillway.dev/v1alpha1
kind: ModelBackend
metadata: {{name: {name}}}
spec:
  provider: VLLM
  model: sim
  {where}
  limits: {limits}
---
apiVersion: spillway.dev/v1alpha1
kind: ModelRoute
metadata: {{name: {name}}}
spec:
  models: [{name}]
  rules: [{{name: all, backendRefs: [{{name: {name}}}]}}]
  timeouts: {{firstToken: {first_token}, streamIdle: {stream_idle}, request: {request}}}
{more}"""
PODS: Final = "pods: {selector: {matchLabels: {app: sim}}, port: 8000}\n  health: {path: /health, interval: 500ms, timeout: 500ms}"
SERVICE: Final = "service: {name: sim, port: 80}"


@dataclass(frozen=True, slots=True)
class Shape:
    """What a world is made of. `engine`: options of the engines."""

    gateways: int = 1
    engine: tuple[str, ...] = ("--decode-rate", "400", "--prefill-rate", "1000000")
    limits: str = "{maxConcurrency: 256}"
    first_token: str = "2s"
    stream_idle: str = "2s"
    request: str = "15s"
    more: str = ""  # further lines of the routes' spec
    direct: bool = True


@dataclass
class Program:
    """One process that can be started again in its place."""

    name: str
    command: list[str]
    log: Path
    admin: int = 0
    process: subprocess.Popen[bytes] | None = None
    deaths: int = 0
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> None:
        """Starts it, at once."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.environment},
            )

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self.process is not None
        return self.process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self.process is not None and self.process.poll() is None

    def strike(self, number: int) -> None:
        """Sends a signal, if it is there to take it."""
        if self.alive:
            assert self.process is not None
            self.process.send_signal(number)

    async def end(self, number: int = signal.SIGKILL, seconds: float = PATIENCE_SECONDS) -> int | None:
        """Signals, waits; its exit code. SIGKILL after `seconds`."""
        self.strike(number)
        if self.process is None:
            return None
        deadline = asyncio.get_running_loop().time() + seconds
        while self.process.poll() is None:
            if asyncio.get_running_loop().time() > deadline:
                self.strike(signal.SIGKILL)
            await asyncio.sleep(0.01)
        return self.process.returncode

    def resident_bytes(self) -> int:
        """RSS; 0 where it does not run."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * PAGE_BYTES
        except (OSError, AssertionError):
            return 0

    def descriptors(self) -> int:
        """Open file descriptors."""
        try:
            return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())
        except (OSError, AssertionError):
            return 0


class World:
    """All processes of one run."""

    def __init__(self, folder: Path, seed: int, shape: Shape | None = None) -> None:
        self.folder = folder
        self.seed = seed
        self.shape = shape or Shape()
        self.port = Ports(os.getpid())  # not of the seed: runs side by side need their own
        self.relay = Relay(self.port("relay"))
        self.operator = self._operator()
        self.engines = [self._engine(number) for number in range(ENGINES)]
        self.sidecars = [self._sidecar(number) for number in range(ENGINES)]
        self.gateways = [self._gateway(number) for number in range(self.shape.gateways)]
        self.hosts = dict.fromkeys(range(ENGINES), "127.0.0.1")
        self.guests: list[Program] = []  # started by a row, and ended with the world if not before

    # --- programs

    def program(self, name: str, *command: str, admin: int = 0) -> Program:
        """A Python program of ours, under a wall clock that the file `clock` moves, not started."""
        clock = [sys.executable, "-m", "tests.faults.clock", str(self.folder / "clock")]
        return Program(name, [*clock, *command], self.folder / f"{name}.log", admin)

    def _operator(self) -> Program:
        admin = self.port("operator admin")
        return self.program(
            "operator", "spillway_operator", "--source", "files", "--path", str(self.folder / "resources"),
            "--endpoints-file", str(self.folder / "endpoints.json"), "--admin-port", str(admin),
            "--discovery-port", str(self.port("discovery")), admin=admin,
        )  # fmt: skip

    def _engine(self, number: int) -> Program:
        port = self.port(f"engine-{number}")
        command = [sys.executable, "-m", "tests.faults.engine", "--port", str(port), "--seed", str(self.seed + number)]
        once = self.folder / "struck"
        once.mkdir(exist_ok=True)
        log = self.folder / f"engine-{number}.log"
        return Program(f"engine-{number}", [*command, *self.shape.engine], log, port, environment={ONCE: str(once)})

    def _sidecar(self, number: int) -> Program:
        name = f"sim-{number}"
        inbound, engine = self.port(f"{name} inbound"), self.port(f"engine-{number}")
        options = ("--inbound-port", str(inbound), "--engine", f"http://127.0.0.1:{engine}", "--engine-health", "/health")
        return self.proxy("sidecar", name, *options)

    def _gateway(self, number: int) -> Program:
        name = f"gateway-{number}"
        return self.proxy("gateway", name, "--access-log", str(self.folder / f"{name}.access"))

    def proxy(self, role: str, name: str, *options: str) -> Program:
        """One proxy, not started."""
        admin = self.port(f"{name} admin")
        return self.program(
            name, "spillway_sidecar", "--role", role, "--node-id", name, "--port", str(self.port(name)), "--admin-port", str(admin),
            "--state-dir", str(self.folder / f"{name}.state"), "--operator", f"http://127.0.0.1:{self.relay.port}", *options, admin=admin,
        )  # fmt: skip

    @property
    def proxies(self) -> list[Program]:
        """Gateways and sidecars."""
        return [*self.gateways, *self.sidecars]

    @property
    def programs(self) -> list[Program]:
        """All."""
        return [self.operator, *self.engines, *self.proxies]

    @property
    def gateway_ports(self) -> list[int]:
        """Where clients send."""
        return [self.port(gateway.name) for gateway in self.gateways]

    # --- life

    async def start(self) -> None:
        """Starts all and waits until each endpoint is known to each gateway."""
        (self.folder / "resources").mkdir(parents=True, exist_ok=True)
        self.write_clock(0.0)
        self.write_resources()
        self.write_endpoints()
        self.relay.upstream = f"http://127.0.0.1:{self.port('discovery')}"
        await self.relay.start()
        for program in self.programs:
            program.start()
        for proxy in self.proxies:
            await self.until(lambda p=proxy: self.ready(p), f"{proxy.name} is ready")
        for sidecar in self.sidecars:
            await self.until(lambda p=sidecar: self.admits(p), f"{sidecar.name} has found its engine")

    async def stop(self) -> None:
        """Ends all."""
        programs = [*self.programs, *self.guests]
        for program in programs:
            program.strike(signal.SIGCONT)
            program.strike(signal.SIGTERM)
        for program in programs:
            await program.end(signal.SIGTERM, 3.0)
        await self.relay.stop()

    async def heal(self) -> None:
        """Everything as at the start: nothing stopped, harmed or gone."""
        self.relay.heal()
        self.write_clock(0.0)
        self.hosts = dict.fromkeys(range(ENGINES), "127.0.0.1")
        self.write_endpoints()
        for program in self.programs:
            program.strike(signal.SIGCONT)
            if not program.alive:
                program.start()
        for engine in self.engines:
            await self.until(lambda e=engine: self.engine(e, "/fault", None), f"{engine.name} answers")
            await self.engine(engine, "/harm", b"null")
        for proxy in self.proxies:
            await self.until(lambda p=proxy: self.ready(p), f"{proxy.name} is ready")
        for sidecar in self.sidecars:
            await self.until(lambda p=sidecar: self.admits(p), f"{sidecar.name} admits")
        for gateway in self.gateways:
            await self.until(lambda g=gateway: self.well(g), f"{gateway.name} sees every endpoint well", fatal=False, seconds=15)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # --- what they are told

    def write(self, name: str, text: str) -> None:
        """A file, whole or not at all."""
        path = self.folder / name
        beside = path.with_name(f".{path.name}")
        beside.write_text(text)
        beside.rename(path)

    def write_clock(self, seconds: float) -> None:
        """How far the wall clock of our programs is off."""
        self.write("clock", str(seconds))

    def write_resources(self, more: str | None = None) -> None:
        """The routes, with further lines of spec."""
        shape = self.shape
        fields = {
            "limits": shape.limits,
            "first_token": shape.first_token,
            "stream_idle": shape.stream_idle,
            "request": shape.request,
            "more": shape.more if more is None else more,
        }
        texts = [ROUTE.format(name="chat", where=PODS, **fields)]
        if shape.direct:
            texts.append(ROUTE.format(name="direct", where=SERVICE, **fields))
        self.write("resources/routes.yaml", "---\n".join(texts))

    def write_endpoints(self, without: tuple[int, ...] = ()) -> None:
        """Where engines and sidecars are; `hosts` says by which name."""
        numbers = [number for number in range(ENGINES) if number not in without]
        sidecars = [
            {"id": f"sim-{n}", "host": self.hosts[n], "port": self.port(f"sim-{n} inbound"), "inbound": True} for n in numbers
        ]
        endpoints: dict[str, Any] = {"default/chat": sidecars}
        if self.shape.direct:
            endpoints["default/direct"] = [
                {"id": f"engine-{n}", "host": self.hosts[n], "port": self.port(f"engine-{n}"), "inbound": False} for n in numbers
            ]
        self.write("endpoints.json", json.dumps({"endpoints": endpoints}))

    async def engine(self, engine: Program, path: str, body: bytes | None = b"", *, method: str | None = None) -> Any:
        """Tells an engine something; `None` clears. Its answer."""
        return await self.get(engine.admin, path, body, method=method or ("DELETE" if body is None else "POST"))

    async def fault(self, number: int, **faults: Any) -> None:
        """Sets faults of the simulated engine."""
        await self.engine(self.engines[number], "/fault", json.dumps(faults).encode())

    async def harm(self, number: int, kind: str | None, **more: Any) -> None:
        """Sets the harm done to an engine's replies; None ends it."""
        body = None if kind is None else {"kind": kind, **more}
        await self.engine(self.engines[number], "/harm", json.dumps(body).encode())

    async def harmed(self) -> list[tuple[str, str, int, float]]:
        """Replies that were struck since the last look: request, kind, place, time."""
        found: list[tuple[str, str, int, float]] = []
        for engine in self.engines:
            with contextlib.suppress(OSError, ValueError):
                found += [tuple(each) for each in await self.get(engine.admin, "/harmed")]
        return found

    # --- what they say

    async def get(self, port: int, path: str, body: bytes | None = None, *, method: str = "GET", seconds: float = 2.0) -> Any:
        """A page, as JSON where it is some. Raises OSError, ValueError."""

        def ask() -> Any:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body or None, method=method)
            with urllib.request.urlopen(request, timeout=seconds) as reply:
                data = reply.read()
                return json.loads(data) if "json" in reply.headers.get("content-type", "") else data.decode()

        return await asyncio.to_thread(ask)

    async def info(self, proxy: Program) -> dict[str, Any]:
        """The state of a proxy's parts."""
        found: dict[str, Any] = await self.get(proxy.admin, "/info", seconds=5)
        return found

    async def ready(self, proxy: Program) -> bool:
        """Whether a proxy says that it is ready. Raises RuntimeError if it has ended."""
        if not proxy.alive:
            raise RuntimeError(f"{proxy.name} has ended; its log is {proxy.log}")
        return "ready" in await self.get(proxy.admin, "/readyz")

    async def admits(self, sidecar: Program) -> bool:
        """Whether a sidecar says that its engine is up."""
        number = self.sidecars.index(sidecar)
        await self.get(self.port(f"sim-{number} inbound"), "/health")
        return True

    async def well(self, gateway: Program) -> bool:
        """Whether a gateway sees all endpoints, and nothing wrong with any."""
        clusters = (await self.info(gateway))["route"]["clusters"].values()
        targets = [target for cluster in clusters for target in cluster]
        wanted = ENGINES * (2 if self.shape.direct else 1)
        return len(targets) == wanted and not any(target["down"] or target["away"] for target in targets)

    async def until(self, what: Any, meaning: str, *, seconds: float = PATIENCE_SECONDS, fatal: bool = True) -> float:
        """Waits for a condition of other processes; the seconds it took. Raises TimeoutError, if `fatal`."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        while True:
            try:
                if await what():
                    return loop.time() - start
            except (OSError, ValueError):
                pass
            if loop.time() - start > seconds:
                if fatal:
                    raise TimeoutError(f"not within {seconds} s: {meaning}; logs are in {self.folder}")
                return loop.time() - start
            await asyncio.sleep(0.05)

    async def leaks(self, seconds: float = 1.0) -> list[str]:
        """What proxies and engines still hold `seconds` after the last request; asked until nothing, or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while True:
            found: list[str] = []
            for proxy in self.proxies:
                if proxy.alive:
                    found += [f"{proxy.name}: {leak}" for leak in held(await self.info(proxy))]
            for engine in self.engines:
                if engine.alive:
                    info = await self.get(engine.admin, "/info")
                    found += [f"{engine.name}: {info['exchanges']} exchanges"] if info["exchanges"] else []
            if not found or loop.time() > deadline:
                return found
            await asyncio.sleep(0.1)

    def tracebacks(self) -> dict[str, int]:
        """How many exceptions nobody caught each program has logged."""
        found = {program.name: program.log.read_bytes().count(b"Traceback (most recent") for program in self.programs}
        return {name: count for name, count in found.items() if count}

    def memory(self) -> dict[str, int]:
        """Resident bytes of each proxy and the operator."""
        return {program.name: program.resident_bytes() for program in [self.operator, *self.proxies]}


_HELD: Final = frozenset(
    {
        "in_flight",
        "in_flight_tokens",
        "awaiting_tokens",
        "queued",
        "queued_tokens",
        "queued_bytes",
        "retrying",
        "hedging",
        "waiting",
    }
)


_NOT_OURS: Final = frozenset({"guard.engine", "guard.gpu", "reporter", "secrets", "config", "load"})


def held(info: Any, path: str = "") -> list[str]:
    """Figures of `/info` that count what is under way, and are not 0."""
    found: list[str] = []
    if isinstance(info, dict):
        for key, value in info.items():
            if key in _HELD and isinstance(value, int | float) and value:
                found.append(f"{path}{key}={value}")
            elif f"{path}{key}" not in _NOT_OURS:
                name = value.get("id") if isinstance(value, dict) else None
                found += held(value, f"{path}{name or key}.")
    elif isinstance(info, list):
        for item in info:
            name = item.get("id", "") if isinstance(item, dict) else ""
            found += held(item, f"{path}{name}.")
    return found
