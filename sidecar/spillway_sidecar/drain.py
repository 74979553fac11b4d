"""Leaving without loss: stop taking new requests, finish those under way, then go.

The order matters. Readiness fails first and the operator hears `bye`, so that nobody sends more; listeners close; idle
connections close; requests under way or half read are answered, marked `connection: close`. What is not done by the deadline
is cut.

In a pod the first half comes earlier than the second: `leave` (a pod's `preStop`, `python -m spillway_sidecar.leave`) marks the
sites as draining while the listeners stay, and `drained` is what the engine's own `preStop` waits for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from spillway_sidecar.proxy.downstream import Downstream

POLL_SECONDS = 0.02


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
    """Drains for at most `seconds`; returns how many requests had to be cut."""
    leave(sites)
    for listener in listeners:
        listener.close()
    for site in sites:
        for client in tuple(site.connections):
            if not client.busy:
                client.close()
    deadline = clock() + seconds
    while busy(sites) and clock() < deadline:  # noqa: ASYNC110 - an event would put a check on every request's end
        await asyncio.sleep(POLL_SECONDS)
    left = busy(sites)
    for site in sites:
        for client in tuple(site.connections):
            if client.busy:
                client.transport.abort()
    return left
