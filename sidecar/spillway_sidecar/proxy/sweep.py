"""One coarse timer for every deadline of a listener: no timer per request, no clock read per chunk.

Each `PERIOD_SECONDS` it looks at all connections; admission answers, which are due within 100 ms, have a finer timer that
runs only while any is awaited.
"""

from __future__ import annotations

import asyncio
from typing import Final

from spillway_sidecar.proxy.downstream import Downstream
from spillway_sidecar.proxy.inbound import InboundSite
from spillway_sidecar.proxy.route import RouteSite
from spillway_sidecar.proxy.upstream import IDLE_SECONDS, Target
from spillway_sidecar.scheduling.health import Ejection
from spillway_sidecar.scheduling.outliers import fold, silent, unsuccessful
from spillway_sidecar.scheduling.pool import Pool

PERIOD_SECONDS: Final = 0.1
ADMISSION_PERIOD_SECONDS: Final = 0.01
HOUSEKEEPING_EVERY: Final = 10


def sweep_connections(connections: set[Downstream], now: float) -> None:
    """Expires what is late among one listener's connections."""
    for client in tuple(connections):
        exchange = client.exchange
        if exchange is not None:
            if exchange.deadline and now >= exchange.deadline:
                exchange.expire(now)
            else:
                exchange.sweep(now)
        elif client.deadline and now >= client.deadline:
            client.expire(now)


def sweep_admission(site: RouteSite, now: float) -> None:
    """Gives up on sidecars that have not answered."""
    for waiting in tuple(site.waiting_admission.values()):
        while waiting and waiting[0][0] <= now:
            _, exchange, serial = waiting.popleft()
            exchange.admission_expired(serial, now)


def sweep_cluster(cluster: Pool[Target], now: float) -> None:
    """Puts out who is silent, by what the sweep of the connections has met; lets penalties fade."""
    for target in cluster.targets:
        if target.waits_overdue:
            if target.ejected is None and silent(target, cluster.targets, now):
                target.eject(Ejection.SILENT, now)
            target.waits_overdue = 0
        if target.factor != 1.0 or target.slowness != 1.0:
            target.refresh(now)


def compare(cluster: Pool[Target], now: float) -> None:
    """Puts out who succeeds less often than the others; learns when a first token is late. Called each second."""
    fold(cluster.targets)
    for target in unsuccessful(cluster.targets):
        target.eject(Ejection.OUTLIER, now)
    cluster.speed.late.fold()


def close_idle(targets: list[Target], now: float) -> None:
    """Closes upstream connections that nobody has needed for a while."""
    for target in targets:
        if target.idle:
            target.close_idle(now - IDLE_SECONDS)


async def run_sweeps(site: RouteSite, inbound: InboundSite | None = None) -> None:
    """Runs until cancelled."""
    turn = 0
    next_sweep = site.clock()
    while True:
        now = site.clock()
        sweep_admission(site, now)
        if now >= next_sweep:
            next_sweep = now + PERIOD_SECONDS
            turn += 1
            sweep_connections(site.connections, now)
            if inbound is not None:
                sweep_connections(inbound.connections, now)
            site.conditions.sweep(now)
            if site.waiting.count:
                site.waiting.sweep(now)
            for cluster in site.clusters.values():
                sweep_cluster(cluster, now)
                if turn % HOUSEKEEPING_EVERY == 0:
                    compare(cluster, now)
                    close_idle(cluster.targets, now)
            if turn % HOUSEKEEPING_EVERY == 0 and site.access_log is not None:
                site.access_log.flush()
        await asyncio.sleep(ADMISSION_PERIOD_SECONDS if any(site.waiting_admission.values()) else PERIOD_SECONDS)
