"""However a request is cut into segments, it is read the same: every request of the corpus, at every point, without sockets."""

from __future__ import annotations

import asyncio
import re

import pytest
from tests.corpora.corpus import cases
from tests.fakes.wires import Wire

from spillway_sidecar.proxy.downstream import Downstream
from spillway_sidecar.proxy.heads import RequestHead
from spillway_sidecar.proxy.listener import ClientLimits
from spillway_sidecar.proxy.route import RouteSite

MAX_BODY_BYTES = 65536


class Site(RouteSite):
    """Takes each request that a route listener would route, and answers at once."""

    def __init__(self) -> None:
        super().__init__(clock=lambda: 0.0, id_prefix="t-", limits=ClientLimits(max_body_bytes=MAX_BODY_BYTES))
        self.taken: list[tuple[bytes, bytes]] = []

    def handle(self, client: Downstream, head: RequestHead, body: bytes) -> None:
        self.precheck(head)
        self.taken.append((head.target, body))
        client.transport.write(b"HTTP/1.1 200 OK\r\n\r\n")
        client.finished(head.keep_alive)


async def _read(pieces: list[bytes]) -> tuple[list[tuple[bytes, bytes]], list[int]]:
    """What was taken, and the status of each answer."""
    site, wire = Site(), Wire()
    client = Downstream(site)
    client.connection_made(wire)
    for piece in pieces:
        client.data_received(piece)
        while client._buffer and not wire.ended and client.exchange is None and b"\r\n\r\n" in client._buffer:
            await asyncio.sleep(0)  # the next of those sent at once
            if client._head is None and not client._buffer:
                break
    for _ in range(3):
        await asyncio.sleep(0)
    return site.taken, [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]+)", wire.written) if status != b"100"]


def _as_read(whole: tuple[list[tuple[bytes, bytes]], list[int]], got: tuple[list[tuple[bytes, bytes]], list[int]]) -> bool:
    """Whether they are the same, or one ends with a refusal by the head alone: then the body that has not come is not waited for."""
    (taken, statuses), (other_taken, other_statuses) = whole, got
    if got == whole:
        return True
    return (
        other_statuses[-1] in {404, 405}
        and other_statuses == statuses[: len(other_statuses)]
        and other_taken == taken[: other_statuses.count(200)]
    )


CASES = {name: case["bytes"] for name, case in cases("requests").items()}


@pytest.mark.parametrize("name", [name for name, request in CASES.items() if len(request) < 1000])
async def test_a_request_cut_anywhere_is_read_as_if_whole(name: str):
    request = CASES[name]
    whole = await _read([request])
    assert whole[1], "neither taken nor refused"
    for point in range(1, len(request)):
        assert _as_read(whole, await _read([request[:point], request[point:]])), request[:point]
    assert _as_read(whole, await _read([request[i : i + 1] for i in range(len(request))]))


@pytest.mark.parametrize("name", [name for name, request in CASES.items() if len(request) >= 1000])
async def test_a_long_request_cut_at_some_points_is_read_as_if_whole(name: str):
    request = CASES[name]
    whole = await _read([request])
    for size in (97, 1460, 8191, 16384):
        assert _as_read(whole, await _read([request[i : i + size] for i in range(0, len(request), size)]))
