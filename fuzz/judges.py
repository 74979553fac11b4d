"""The other parsers: nginx as a proxy before a recorder, which tells each request that it got in the answer, and Node's HTTP server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from bench.peers import CannotHaveError, nginx_binary

from fuzz.framing import End, Taken, Verdict, taken

_HEAD = re.compile(rb"HTTP/1\.[01] ([0-9]{3})[^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
_RECORD = re.compile(rb"(?im)^x-record: ([^\r]*)\r?$")
_CLOSES = re.compile(rb"(?im)^connection: close\r?$")
_ANSWER_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Judge:
    """A parser that listens."""

    name: str
    version: str
    port: int
    control: int = 0  # where it tells what it has taken, by the client's port; 0: in its answers

    async def verdict(self, data: bytes) -> Verdict:
        """What it makes of the bytes. It closes the connection after a second without anything."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        own = writer.get_extra_info("sockname")[1]
        answer = b""
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                writer.write(data)
                while piece := await reader.read(1 << 16):
                    answer += piece
        told = await self._told(own) if self.control else None
        writer.transport.abort()
        return _read(answer, told)

    async def _told(self, port: int) -> list[Taken]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.control)
        writer.write(b"GET /%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % port)
        answer = await reader.read()
        writer.close()
        body = answer.partition(b"\r\n\r\n")[2]
        return [_taken(entry) for entry in json.loads(body[body.index(b"[") : body.rindex(b"]") + 1])]


def _taken(entry: tuple[str, str, int, str]) -> Taken:
    return (*taken(entry[0], entry[1], b"")[:2], entry[2], entry[3])


def _read(answer: bytes, told: list[Taken] | None) -> Verdict:
    found: list[Taken] = []
    end = End.WAITS
    for head in _HEAD.finditer(answer):
        if head[1] == b"200":
            record = _RECORD.search(head[2])
            if record is not None:
                found.append(_taken(json.loads(record[1])))
            end = End.CLOSED if _CLOSES.search(head[2]) else End.WAITS
        elif head[1] != b"100":
            end = End.WAITS if head[1] == b"408" else End.REFUSED
    return Verdict(tuple(found if told is None else told), end)


@contextlib.asynccontextmanager
async def node() -> AsyncIterator[Judge]:
    """Node's server, of the Node that is on the path."""
    binary = shutil.which("node")
    if binary is None:
        raise CannotHaveError("no node on the path")
    process = await asyncio.create_subprocess_exec(
        binary, str(Path(__file__).with_name("server.js")), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        told = json.loads(await process.stdout.readline())
        yield Judge("node", told["version"].removeprefix("v"), told["port"], told["control"])
    finally:
        process.terminate()
        await process.wait()


@contextlib.asynccontextmanager
async def nginx() -> AsyncIterator[Judge]:
    """What the distribution has of nginx, installed or unpacked, before a recorder."""
    binary = nginx_binary()
    told = await asyncio.to_thread(subprocess.run, [binary, "-v"], capture_output=True, text=True, check=True)
    version = told.stderr.strip().rpartition("/")[2].split()[0]
    recorder = await asyncio.start_server(_record, "127.0.0.1", 0, backlog=1024)
    with tempfile.TemporaryDirectory() as folder:
        port = _free_port()
        _configure(folder, port, recorder.sockets[0].getsockname()[1])
        process = await asyncio.create_subprocess_exec(binary, "-e", f"{folder}/error.log", "-c", f"{folder}/nginx.conf")
        try:
            await _listening(port)
            yield Judge("nginx", version, port)
        finally:
            process.terminate()
            await process.wait()
            recorder.close()


def _configure(folder: str, port: int, behind: int) -> None:
    temporary = " ".join(f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    Path(folder, "nginx.conf").write_text(
        f"""{"user root;" if os.geteuid() == 0 else ""}
worker_processes 1; daemon off; pid {folder}/pid; error_log {folder}/error.log crit;
events {{ worker_connections 1024; }}
http {{
  access_log off; {temporary} client_max_body_size 0; client_body_buffer_size 2m; large_client_header_buffers 8 64k;
  client_header_timeout 1s; client_body_timeout 1s; keepalive_timeout 150ms; lingering_timeout 100ms; lingering_time 100ms;
  server {{ listen 127.0.0.1:{port} backlog=1024; location / {{ proxy_pass http://127.0.0.1:{behind}; proxy_buffer_size 64k; proxy_buffers 8 64k; }} }}
}}
""",
        encoding="utf-8",
    )


async def _record(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request of nginx, told back. It writes them itself, so that they are well-formed."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"(?im)^content-length: ([0-9]+)\r$", head)
        body = await reader.readexactly(int(length[1])) if length else b""
        method, target, _ = head.partition(b"\r\n")[0].decode("latin-1").split(" ")
        record = json.dumps((method, target, *taken(method, target, body)[2:]))
        writer.write(b"HTTP/1.1 200 OK\r\nX-Record: %b\r\nContent-Length: 0\r\n\r\n" % record.encode())
        await writer.drain()
    writer.close()


async def _listening(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        await asyncio.sleep(0.05)
    raise CannotHaveError("nginx does not listen")


def _free_port() -> int:
    import socket  # noqa: PLC0415

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
