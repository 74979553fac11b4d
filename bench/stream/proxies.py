"""Many proxies in one process, as light as they can be: `python -m bench.stream.proxies PORT FIRST COUNT OUT`.

Each is one connection over a raw protocol: WebSocket handshake, hello, a report each second, ACKs and pongs. Frames are masked
with the key 0, which masking leaves as they are. What comes back is when each update was complete here, on the monotonic clock
that all processes of a machine share. Real clients would measure themselves: a thousand on two cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import cast

from spillway_wire.loads import TTFT_BUCKETS_SECONDS, BackendTraffic, Demand, Load
from spillway_wire.messages import Hello, Node, Report, encode
from spillway_wire.names import DISCOVERY_PATH, Role

HANDSHAKE = (
    f"GET {DISCOVERY_PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
).encode()


def masked(payload: bytes) -> bytes:
    length = len(payload)
    if length < 126:
        head = bytes((0x81, 0x80 | length))
    elif length < 0x10000:
        head = b"\x81\xfe" + length.to_bytes(2, "big")
    else:
        head = b"\x81\xff" + length.to_bytes(8, "big")
    return head + b"\0\0\0\0" + payload


def after(frame: bytes, name: bytes) -> bytes:
    start = frame.index(name) + len(name)
    return frame[start : frame.index(b'"', start)]


class Proxy(asyncio.Protocol):
    def __init__(self, number: int, seen: dict[bytes, list[int]]) -> None:
        self.id = f"b{number // 100}-{number % 100}"
        self.number = number
        self.seen = seen
        self.buffer = bytearray()
        self.open = False
        self.sequence = 0
        self.bytes = 0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are not subclasses
        self.transport.write(HANDSHAKE)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.lost = True

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.bytes += len(data)
        if not self.open:
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            if not self.buffer.startswith(b"HTTP/1.1 101"):
                raise SystemExit(self.buffer[:end].decode())
            del self.buffer[: end + 4]
            self.open = True
            node = Node(id=self.id, role=Role.SIDECAR, boot_id="boot", namespace="default", pod=self.id)
            self.transport.write(masked(encode(Hello(node=node))))
        while len(self.buffer) >= 2:
            size, start = self.buffer[1], 2
            if size == 126:
                size, start = int.from_bytes(self.buffer[2:4], "big"), 4
            elif size == 127:
                size, start = int.from_bytes(self.buffer[2:10], "big"), 10
            if len(self.buffer) < start + size or (start > 2 and len(self.buffer) < start):
                return
            payload = bytes(self.buffer[start : start + size])
            opcode = self.buffer[0]
            del self.buffer[: start + size]
            if opcode == 0x81:
                self.message(payload)
            else:
                print("closed", self.id, payload[2:], file=sys.stderr)

    def message(self, payload: bytes) -> None:
        if payload.startswith(b'{"type":"update"'):
            version = after(payload, b'"version":"')
            self.seen.setdefault(version, []).append(time.monotonic_ns())
            nonce = after(payload, b'"nonce":"')
            self.transport.write(masked(b'{"type":"ack","version":"%b","nonce":"%b"}' % (version, nonce)))
        else:
            start = payload.index(b'"id":') + 5
            self.transport.write(masked(b'{"type":"pong","id":%b}' % payload[start : payload.find(b",", start)].rstrip(b"}")))

    def report(self) -> None:
        self.sequence += 1
        cluster = f"default/b{self.number // 100}"
        ttft = [0] * (len(TTFT_BUCKETS_SECONDS) + 1)
        ttft[(self.sequence + self.number) % 20] = 7
        report = Report(
            boot_id="boot",
            sequence=self.sequence,
            load=Load(
                in_flight=self.number % 9,
                queued=self.sequence % 5,
                in_flight_tokens=3000,
                max_concurrency=256,
                tokens_per_second=812.5,
                engine_waiting=1,
                engine_running=8,
                kv_cache_ratio=0.43,
                gpu_ratio=0.71,
                gpu_memory_ratio=0.9,
            ),
            traffic=(
                BackendTraffic(
                    route=f"default/r{self.number // 100}",
                    rule="all",
                    cluster=cluster,
                    requests=7,
                    input_tokens=5_000,
                    output_tokens=1_200,
                    ttft=tuple(ttft),
                ),
            ),
            demand=(Demand(cluster=cluster, in_flight=4, in_flight_tokens=2000),),
        )
        self.transport.write(masked(encode(report)))


async def reports(proxies: list[Proxy]) -> None:
    """Each proxy once a second, evenly over the second."""
    step = 1.0 / len(proxies)
    due = time.monotonic()
    while True:
        for proxy in proxies:
            due += step
            if (wait := due - time.monotonic()) > 0.002:
                await asyncio.sleep(wait)
            if proxy.open and not proxy.lost:
                proxy.report()


async def main(port: int, first: int, count: int) -> list[str]:
    loop = asyncio.get_running_loop()
    seen: dict[bytes, list[int]] = {}
    proxies: list[Proxy] = []
    for number in range(first, first + count):
        _, proxy = await loop.create_connection(partial(Proxy, number, seen), "127.0.0.1", port)
        proxies.append(proxy)
    while not all(proxy.open for proxy in proxies):  # noqa: ASYNC110 - a script
        await asyncio.sleep(0.05)
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    print("connected", flush=True)
    reporter = asyncio.create_task(reports(proxies))
    await stop.wait()
    reporter.cancel()
    lost = sum(proxy.lost for proxy in proxies)
    received = sum(proxy.bytes for proxy in proxies)
    lines = [f"# lost {lost} bytes {received}"]
    return lines + [f"{version.decode()} {' '.join(map(str, times))}" for version, times in seen.items()]


if __name__ == "__main__":
    import uvloop

    with contextlib.suppress(KeyboardInterrupt):
        lines = uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
        Path(sys.argv[4]).write_text("\n".join(lines) + "\n")
