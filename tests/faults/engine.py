"""The rig's engine: the simulated engine, with tokens that can be checked, and harm done to the bytes of its replies.

A token is `<crc32 of the prompt>.<index> `. Beside `/fault`, which is the simulated engine's own, `POST /harm` takes a `Harm` or
null: what befalls replies that begin from then on. A request is struck once, at whichever of the engines (`ONCE` names a folder
that they share), so that its second attempt meets no harm. `GET /harmed` lists those that were struck, with the time on the machine's
monotonic clock. A harm is done once in a reply, at byte `at` of it (head included; `every: true` moves `at` on by one with each
reply), or before its head or its first chunk, for the kinds that put something in.

    python -m tests.faults.engine --port 9000 [options of `spillway sim-engine`]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import struct
import sys
import time
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct

from spillway.sim_engine import command, http1, openai, process
from spillway.sim_engine.server import Connection, EngineServer, Exchange

ONCE: Final = "SPILLWAY_FAULTS_ONCE"
AT_BYTE: Final = ("cut", "reset", "half", "silence", "drip", "flip")
DRIP_SECONDS: Final = 0.001
ENDING: Final = ("cut", "reset", "half", "silence")
HUGE_BYTES: Final = 1024 * 1024
FLOOD: Final = 200
PORTION: Final = 7  # bytes that a drip gives at a time
_RESET: Final = struct.pack("ii", 1, 0)


class Harm(Struct, frozen=True, forbid_unknown_fields=True):
    """What befalls a reply.

    cut, reset, half: the connection ends, by FIN, RST, or in the direction of the client alone; silence: nothing follows;
    drip: the rest comes a few bytes at a time; flip: one byte is another; interim: a flood of 1xx before the head; fields: a head
    of a megabyte; line: an event of a megabyte before the first; load: a header with a load that is a lie.
    """

    kind: Literal["cut", "reset", "half", "silence", "drip", "flip", "interim", "fields", "line", "load"]
    at: Annotated[int, Meta(ge=0)] = 0
    upto: int = 0  # above `at`: drawn from this range for each reply
    every: bool = False
    probability: Annotated[float, Meta(ge=0, le=1)] = 1.0
    count: int | None = None
    value: str = ""  # of the load header


class HarmedTransport:
    """A transport whose writes come to harm. All that is not a write goes to the real one."""

    def __init__(self, transport: asyncio.Transport, harm: Harm, at: int) -> None:
        self._real = transport
        self._harm, self._at = harm, at
        self._written = 0
        self._writes = 0
        self._struck = False
        self._dripping: bytearray | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    @property
    def real(self) -> asyncio.Transport:
        """What is underneath."""
        return self._real

    @property
    def ended(self) -> bool:
        """Whether nothing more may be written, in this reply or after it."""
        return self._struck and self._harm.kind in ENDING

    def write(self, data: bytes) -> None:
        """Writes, or does the harm."""
        if self._dripping is not None:
            self._dripping += data
            return
        kind = self._harm.kind
        self._writes += 1
        if kind in AT_BYTE:
            self._at_byte(kind, data)
            return
        if kind == "interim" and self._writes == 1:
            data = b"HTTP/1.1 103 Early Hints\r\n\r\n" * FLOOD + data
        elif kind == "fields" and self._writes == 1:
            data = data.replace(b"\r\n", b"\r\nx-long: " + b"y" * HUGE_BYTES + b"\r\n", 1)
        elif kind == "load" and self._writes == 1:
            data = data.replace(b"\r\n", b"\r\nendpoint-load-metrics: " + self._harm.value.encode() + b"\r\n", 1)
        elif kind == "line" and self._writes == 2 and b"data:" in data:
            data = http1.chunk(b"data: " + b" " * HUGE_BYTES + b'{"choices":[]}\n\n') + data
        self._real.write(data)

    def _at_byte(self, kind: str, data: bytes) -> None:
        place = self._at - self._written
        self._written += len(data)
        if self._struck:
            if kind == "flip":
                self._real.write(data)
            return
        if place >= len(data):
            self._real.write(data)
            return
        self._struck = True
        self._real.write(data[:place])
        match kind:
            case "cut":
                self._real.close()
            case "reset":
                reset(self._real)
            case "half":
                self._real.write_eof()
            case "flip":
                self._real.write(bytes([data[place] ^ 0x15]) + data[place + 1 :])
            case "drip":
                self._dripping = bytearray(data[place:])
                self._drip()
            case _:
                pass  # silence

    def _drip(self) -> None:
        rest = self._dripping
        if rest is None or self._real.is_closing():
            return
        if rest:
            self._real.write(bytes(rest[:PORTION]))
            del rest[:PORTION]
        asyncio.get_running_loop().call_later(DRIP_SECONDS, self._drip)

    def rest(self) -> bytes:
        """What has not dripped yet; it is the caller's."""
        left, self._dripping = self._dripping, None
        return bytes(left or b"")


def reset(transport: asyncio.Transport) -> None:
    """Closes with RST."""
    given = transport.get_extra_info("socket")
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(given.fileno())) as duplicate:
        duplicate.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


class HarmedConnection(Connection):
    """One client's connection."""

    _server: HarmingServer

    def suffer(self, harm: Harm, at: int) -> None:
        """The reply that is about to begin comes to harm."""
        if self._transport is not None:
            self._transport = HarmedTransport(self._transport, harm, at)  # type: ignore[assignment]

    def finish(self, data: bytes) -> None:
        """The end of a reply, and of the harm."""
        self.send(data)
        harmed = self._transport
        if isinstance(harmed, HarmedTransport) and not harmed.ended:
            self._transport = harmed.real
            self._transport.write(harmed.rest())
        super().finish(b"")

    def _show(self, request: http1.Request) -> None:
        server = self._server
        if request.path == "/harm":
            try:
                server.harm = msgspec.json.decode(request.body, type=Harm | None)
            except msgspec.DecodeError as error:
                self._answer(400, openai.error_body(400, str(error)))
                return
            server.next_at = server.harm.at if server.harm is not None else 0
            self._answer(200, b"{}")
        elif request.path == "/harmed":
            struck, server.struck = server.struck, []
            self._answer(200, msgspec.json.encode(struck))
        else:
            super()._show(request)


class HarmingServer(EngineServer):
    """The engine's server; `struck` holds request, kind of harm, place and time of each reply that came to harm."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.harm: Harm | None = None
        self.next_at = 0
        self.struck: list[tuple[str, str, int, float]] = []

    async def start(self, host: str, port: int) -> int:
        """Listen."""
        self._server = await self._loop.create_server(lambda: HarmedConnection(self), host, port, backlog=1024)
        self._sweep()
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    def begin(self, connection: Connection, job: openai.Job, *more: Any) -> Exchange:
        """Hands a job to the engine, after the dice."""
        harm, dice = self.harm, self.faults._rng
        if harm is not None and dice.random() < harm.probability and first_time(job.offset):
            at = dice.randrange(harm.at, harm.upto) if harm.upto > harm.at else self.next_at
            if harm.every:
                self.next_at += 1
            if harm.count is not None:
                self.harm = msgspec.structs.replace(harm, count=harm.count - 1) if harm.count > 1 else None
            self.struck.append((f"{job.offset:08x}", harm.kind, at, time.monotonic()))
            connection.suffer(harm, at)  # type: ignore[attr-defined]
        return super().begin(connection, job, *more)


def first_time(digest: int) -> bool:
    """Whether no engine has struck this request yet. Makes a note of it."""
    try:
        (Path(os.environ[ONCE]) / f"{digest:08x}").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def token(digest: int, index: int) -> str:
    """The text of output token `index` of the request whose prompt has this digest."""
    return f"{digest:08x}.{index} "


def main(argv: list[str]) -> int:
    """Runs one engine, with the options of `spillway sim-engine`."""
    parser = argparse.ArgumentParser()
    command.add_parser(parser.add_subparsers())
    args = parser.parse_args(["sim-engine", *argv])
    openai.word = token
    process.EngineServer = HarmingServer  # type: ignore[misc]
    return command.run(args)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
