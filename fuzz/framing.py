"""How a client's bytes are parted into requests, by us: what a `Verdict` of another parser is compared with.

`taken` are the requests that were read whole: method, target, length and SHA-1 of the body. Where they are equal, two parsers agree on
where each request begins and ends. `end` is what came of the bytes behind them: refused, closed by agreement, or more is waited for.
"""

from __future__ import annotations

import asyncio
import enum
import hashlib
import re
from dataclasses import dataclass
from typing import Any

from tests.fakes.wires import Wire

from spillway_sidecar.proxy.downstream import Downstream
from spillway_sidecar.proxy.errors import Refusal
from spillway_sidecar.proxy.heads import RequestHead
from spillway_sidecar.proxy.listener import ClientLimits, Listener

Taken = tuple[str, str, int, str]
_SCHEME = re.compile(r"(?i)https?://[^/?#]*")


class End(enum.StrEnum):
    """What came of the bytes behind the requests that were taken."""

    REFUSED = "refused"
    CLOSED = "closed"
    WAITS = "waits"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One parser's."""

    taken: tuple[Taken, ...]
    end: End


def taken(method: str, target: str, body: bytes) -> Taken:
    """A request as it is compared: of a URL its path, since a proxy may pass on either."""
    path = _SCHEME.sub("", target)
    return method, path if path.startswith("/") else "/" + path, len(body), hashlib.sha1(body).hexdigest()[:12]


class _Site(Listener):
    """Takes whatever is framed."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0, ClientLimits(max_body_bytes=1 << 24), 60.0)
        self.taken: list[Taken] = []

    def precheck(self, head: RequestHead) -> None:
        pass

    def refused(self, refusal: Refusal) -> None:
        pass

    def handle(self, client: Downstream, head: RequestHead, body: bytes) -> None:
        self.taken.append(taken(head.method.decode(), head.target.decode(), body))
        client.finished(head.keep_alive)


async def ours(data: bytes) -> Verdict:
    """What our parser makes of the bytes."""
    site, wire = _Site(), Wire()
    client = Downstream(site)
    client.connection_made(wire)
    client.data_received(data)
    before = -1
    while before != len(site.taken):
        before = len(site.taken)
        await asyncio.sleep(0)  # the next of those sent at once
        await asyncio.sleep(0)
    refused = b"HTTP/1.1 4" in wire.written or b"HTTP/1.1 5" in wire.written
    end = End.REFUSED if refused else End.CLOSED if wire.ended else End.WAITS
    client.connection_lost(None)
    return Verdict(tuple(site.taken), end)


@dataclass(frozen=True, slots=True)
class Difference:
    """A request that we take, and the other one does not, or reads otherwise."""

    request: Taken
    why: str


def more_lenient(own: Verdict, other: Verdict) -> Difference | None:
    """Where we take what the other does not, or otherwise than it does; None where we are as strict."""
    for index, request in enumerate(own.taken):
        if index >= len(other.taken):
            return None if other.end is End.CLOSED else Difference(request, f"we take request {index}; {other.end} by the other")
        if request != other.taken[index]:
            return Difference(request, f"request {index} is {request[:3]} to us, {other.taken[index][:3]} to the other")
    return None


def excused(judge: str, difference: Difference, data: bytes, exceptions: list[dict[str, Any]]) -> str | None:
    """The reason of the exception that the difference comes under, if it does."""
    places = {"request": f"{difference.request[0]} {difference.request[1]}", "bytes": data.decode("latin-1")}
    for one in exceptions:
        if one["judge"] == judge and all(re.search(one[place], text) for place, text in places.items() if place in one):
            return str(one["reason"])
    return None
