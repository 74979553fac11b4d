"""Leaving without loss: stop taking new requests, finish those under way, then go.

The order matters. Readiness fails first and the operator hears `bye`, so that nobody sends more. For `LINGER_SECONDS` everything goes on
as before, but that each reply says `connection: close`: what was sent before its sender heard is served. Then listeners close, and each
connection once it has been idle for as long and nothing on it is unread. Requests under way or half read are answered, those that wait for room
too, as long as there is time. For what is not done by the deadline a stream ends with its error event, and a request without an
answer is told to try elsewhere.

In a pod the first half comes earlier than the second: `leave` (a pod's `preStop`, `python -m spillway_sidecar.leave`) marks the
sites as draining while the listeners stay, and `drained` is what the engine's own `preStop` waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from spillway_sidecar.proxy.downstream import Downstream
from spillway_sidecar.proxy.errors import Outcome

POLL_SECONDS = 0.02
LINGER_SECONDS = 0.25  # in which a request that is on its way arrives
FLUSH_SECONDS = 0.5  # for the last words to those who are cut off


class Drained(Protocol):
    """A site that can be told to drain."""

    draining: bool
    connections: set[Downstream]


def busy(sites: Iterable[Drained]) -> int:
    """Requests under way."""
    return sum(1 for site in sites for client in site.connections if client.busy)


def leave(sites: Iterable[Drained]) -> None:
    """Marks the sites: readiness fails, replies close their connections, an inbound listener refuses new work with a hint."""
    for site in sites:
        site.draining = True


async def drained(
    sites: tuple[Drained, ...], seconds: float, clock: Callable[[], float], *, engine_up: Callable[[], bool] = lambda: True
) -> bool:
    """Whether, within `seconds`, the sites drain and have nothing under way.

    An engine that is down is not waited for: its hook runs also when the kubelet restarts it for being so.
    """
    deadline = clock() + seconds
    while engine_up() and (busy(sites) or not all(site.draining for site in sites)):
        if clock() >= deadline:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


async def drain(sites: tuple[Drained, ...], listeners: Iterable[asyncio.Server], seconds: float, clock: Callable[[], float]) -> int:
    """Drains for at most `seconds`; returns how many requests had to be cut off."""
    leave(sites)
    began = clock()
    linger = min(LINGER_SECONDS, seconds)
    idle_since: dict[Downstream, float] = {}
    listening = tuple(listeners)
    while (now := clock()) < began + seconds:
        if listening and now - began >= linger:
            for listener in listening:
                listener.close()
            listening = ()
        if not _close_idle(sites, idle_since, now, linger) and not listening:
            break
        await asyncio.sleep(POLL_SECONDS)
    for listener in listening:
        listener.close()
    left = busy(sites)
    await _cut_off(sites, clock() + FLUSH_SECONDS, clock)
    return left


def _close_idle(sites: tuple[Drained, ...], idle_since: dict[Downstream, float], now: float, linger: float) -> int:
    """Closes connections that have been idle for so long; returns how many are left."""
    left = 0
    for site in sites:
        for client in tuple(site.connections):
            if client.busy:
                idle_since.pop(client, None)
                left += 1
            elif now - idle_since.setdefault(client, now) < linger or client.has_unread():
                left += 1
            else:
                client.close()
    return left


async def _cut_off(sites: tuple[Drained, ...], deadline: float, clock: Callable[[], float]) -> None:
    """Tells whoever is left that there is no more time, and ends what does not end by itself."""
    for site in sites:
        for client in tuple(site.connections):
            if client.exchange is not None:
                client.exchange.cut_off(Outcome.DRAINING, "This server is shutting down.")
            elif client.busy:
                client.transport.abort()
    while clock() < deadline and any(  # noqa: ASYNC110 - a transport tells nobody when it has written all
        client.transport.get_write_buffer_size() for site in sites for client in site.connections
    ):
        await asyncio.sleep(POLL_SECONDS)
    for site in sites:
        for client in tuple(site.connections):
            client.transport.abort()
