"""What a cluster adds to the operator's parts: the API server as source and as sink, one leader among replicas, tokens and TLS.

A replica's life: it reads everything, and its core works on it as the leader's does. Then it runs for the Lease. While it leads,
publications pass the gate, the discovery port is open, and statuses and Events are written. When its term is over, also because
nobody answers its renewals, it publishes and writes nothing more at once, and closes the port with all streams before another
replica can lead: one that is cut off from the API server and not from the proxies does not keep them. They go on with what they
have, and are where somebody leads within seconds.

Conditions go on where the last leader left them: a term begins by taking over the statuses that stand on the API server, and
none is written before the proxies that were connected have come back or have had the time to.

Imported only with `--source kubernetes`, since it brings kopf and the Kubernetes client.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any

from spillway_operator.api import ModelBackend, ObjectKey, RouteStatus
from spillway_operator.discovery.auth import Authenticator, LoopbackAuthenticator, TokenAuthenticator
from spillway_operator.discovery.gate import LeaderGate
from spillway_operator.discovery.server import DiscoveryServer
from spillway_operator.discovery.tls import CertificateFiles, ServerCertificate
from spillway_operator.external_metrics.server import ExternalMetricsServer
from spillway_operator.kube.access import KubeAccess
from spillway_operator.kube.api import KubeApi
from spillway_operator.kube.deletion_cost import DeletionCosts, Replica
from spillway_operator.kube.events import EventRecorder
from spillway_operator.kube.leader_label import LeaderLabel
from spillway_operator.kube.lease import Election
from spillway_operator.kube.metrics import ClusterCollector
from spillway_operator.kube.reviews import TokenReviews
from spillway_operator.kube.scale import KubeScaleTargets
from spillway_operator.kube.status import ApplySink
from spillway_operator.reconcile.core import Core
from spillway_operator.reconcile.signals import signals
from spillway_operator.reconcile.status import StatusPass
from spillway_operator.reconcile.world import World
from spillway_operator.scaling.ports import TargetRef
from spillway_operator.settings import ClusterSettings, Settings
from spillway_operator.snapshot.translate import wire_name
from spillway_operator.sources.kubernetes import KubernetesSource
from spillway_operator.store import BACKEND, ROUTE, Store
from spillway_wire.names import TOKEN_AUDIENCE

TAKEN_SECONDS = 5.0  # for a port that a process before us still closes

_log = logging.getLogger(__name__)


class LeaderStatusPass(StatusPass):
    """A status pass that rests while `may_run` says no."""

    def __init__(self, *, may_run: Callable[[float], bool], **fields: Any) -> None:
        super().__init__(**fields)
        self._may_run = may_run

    def run(self, world: World, now: float) -> int:
        """One pass, or none."""
        return super().run(world, now) if self._may_run(now) else 0


class Cluster:
    """The parts of one replica that talk to the API server. Implements `kube.lease.TermListener`."""

    def __init__(
        self,
        access: KubeAccess,
        settings: Settings,
        *,
        store: Store,
        identity: str,
        clock: Callable[[], float],
        wall_clock: Callable[[], datetime],
        rng: random.Random,
    ) -> None:
        mine = settings.cluster
        self._settings = settings
        self._store = store
        self._clock = clock
        self._wall_clock = wall_clock
        self.api = KubeApi(access)
        self.election = Election(
            self.api,
            self,
            namespace=mine.lease_namespace,
            name=mine.lease_name,
            identity=identity,
            clock=clock,
            wall_clock=wall_clock,
        )
        self.source = KubernetesSource(
            store,
            access,
            namespaces=mine.namespaces,
            pod_selector=mine.pod_selector,
            clock=clock,
            rng=rng,
            on_other_object=self._forget,
        )
        self.events = EventRecorder(
            self.api, identity=identity, uid_of=self.source.uid_of, may_write=self.leads, clock=clock, wall_clock=wall_clock
        )
        self.sink = ApplySink(
            self.api,
            uid_of=self.source.uid_of,
            shown=store.status,
            may_write=self.leads,
            on_transition=self.events.record,
            clock=clock,
            rng=rng,
        )
        self.costs = DeletionCosts(self.api, replicas=self._replicas, may_write=self.leads, clock=clock)
        self.targets = KubeScaleTargets(
            self.api, may_write=self.leads, clock=clock, wall_clock=wall_clock, rng=rng, before_fewer=self.costs.settle
        )
        self.reviews = TokenReviews(self.api, audience=TOKEN_AUDIENCE, clock=clock)
        self.authenticator: Authenticator = (
            LoopbackAuthenticator()
            if mine.authentication == "loopback"
            else TokenAuthenticator(self.reviews.review, gateways=mine.gateways)
        )
        self.certificate = (
            ServerCertificate(CertificateFiles(mine.certificate, mine.key))
            if mine.certificate is not None and mine.key is not None
            else None
        )
        self.label = LeaderLabel(self.api, namespace=mine.lease_namespace, pod=identity, leads=self.leads)
        self.external_metrics = self._external_metrics(mine)
        self._core: Core | None = None
        self._status: LeaderStatusPass | None = None
        self._discovery: DiscoveryServer | None = None
        self._gate: LeaderGate | None = None
        self._open = False
        self._wanted_open = False
        self._door = asyncio.Event()
        self._hold_until = 0.0
        self._expected_nodes = 0

    # -- assembly

    def _external_metrics(self, mine: ClusterSettings) -> ExternalMetricsServer | None:
        """The external metrics API, where it is asked for."""
        if mine.external_metrics_port is None or mine.certificate is None or mine.key is None:
            return None
        files = CertificateFiles(mine.certificate, mine.key)
        return ExternalMetricsServer(
            self.api,
            certificate=lambda: ServerCertificate(files),
            host=self._settings.listen.host,
            port=mine.external_metrics_port,
            found=lambda namespace: () if self._core is None else signals(self._core.world, self._clock(), namespace),
            leads=self.leads,
            wall_clock=self._wall_clock,
        )

    def gate(self, discovery: DiscoveryServer) -> LeaderGate:
        """The publisher for the core."""
        self._discovery = discovery
        self._gate = LeaderGate(
            discovery,
            leads=self.leads,
            clock=self._clock,
            schedule=lambda delay, call: asyncio.get_running_loop().call_later(delay, call),
        )
        return self._gate

    def status_pass(self, **fields: Any) -> StatusPass:
        """The status pass for the core."""
        self._status = LeaderStatusPass(may_run=self._may_pass, sink=self.sink, **fields)
        return self._status

    def collector(self) -> ClusterCollector:
        """Metrics of these parts."""
        return ClusterCollector(self.info, self.source.info)

    def attach(self, core: Core) -> None:
        """The core that works for this replica."""
        self._core = core

    # -- what others ask

    def leads(self) -> bool:
        """Whether this replica may publish and write at this moment."""
        return self.election.leads(self._clock())

    def not_ready(self) -> str | None:
        """Why this replica could not take over; None if it could."""
        return None if self.source.synced else f"not everything is read yet: {self.source.waits_for()}"

    def not_leading(self) -> str | None:
        """Why this is not the replica for proxies; None if it is."""
        if not self.leads():
            return "another replica leads" if self.source.synced else "not everything is read yet"
        return None if self._open else "the discovery port is not open yet"

    # -- terms

    def on_term(self, epoch: int) -> None:
        """We lead."""
        now = self._clock()
        self._expected_nodes = 0
        if self._status is not None:
            for kind in (BACKEND, ROUTE):
                for entry in self._store.entries(kind):
                    status = self._store.status(entry.key)
                    if status is None:
                        self._forget(entry.key)
                        continue
                    self._status.adopt(entry.key, status, now)
                    self.sink.adopt(entry.key, status)
                    if isinstance(status, RouteStatus):
                        self._expected_nodes = max(self._expected_nodes, status.proxies.total)
        self._hold_until = now + self._settings.cluster.hold_status_seconds
        self.targets.begin_term()
        if self._core is not None:
            self._core.begin_term(epoch)
        self._set_door(opened=True)

    def on_lost(self, reason: str, spare_seconds: float) -> None:
        """We do not lead any more. A term that is regained before another replica can lead goes on with the streams there are."""
        self.sink.clear()
        self.events.clear()
        self.targets.clear()
        if spare_seconds > 0:
            asyncio.get_running_loop().call_later(spare_seconds, self._close_unless_leading)
        else:
            self._set_door(opened=False)

    def _close_unless_leading(self) -> None:
        if not self.leads():
            self._set_door(opened=False)

    def _may_pass(self, now: float) -> bool:
        if not self.election.leads(now):
            return False
        if now >= self._hold_until or self._discovery is None:
            return True
        return len(self._discovery.nodes()) >= self._expected_nodes

    def _forget(self, key: ObjectKey) -> None:
        self.sink.forget(key)
        if self._status is not None:
            self._status.forget(key)

    def _replicas(self) -> dict[TargetRef, list[Replica]]:
        """The pods of every target, with what their sidecars say that they have under way."""
        found: dict[TargetRef, list[Replica]] = {}
        for entry in self._store.entries(BACKEND):
            scaling = entry.object.spec.scaling if isinstance(entry.object, ModelBackend) else None
            if scaling is None or self._core is None:
                continue
            target = scaling.target_ref
            of = found.setdefault(TargetRef(entry.key.namespace, target.name, target.api_version, target.kind), [])
            for endpoint in self._store.endpoints(wire_name(entry.key)):
                pod = self.source.pod(entry.key.namespace, endpoint.id.rpartition("/")[2])
                if pod is None or endpoint.draining:
                    continue
                last = self._core.world.loads.endpoint(endpoint.id, self._clock())
                known = last.load if last is not None and not last.stale else None
                tokens = None if known is None else max(known.in_flight_tokens, known.in_flight + known.queued)
                of.append(Replica(pod.namespace, pod.name, tokens, pod.deletion_cost))
        return found

    def _set_door(self, *, opened: bool) -> None:
        self._wanted_open = opened
        self._door.set()

    async def _open_door(self, discovery: DiscoveryServer) -> None:
        listen = self._settings.listen
        tls = self.certificate.context if self.certificate is not None else None
        give_up_at = self._clock() + TAKEN_SECONDS
        while self._wanted_open:
            try:
                port = await discovery.start(listen.host, listen.discovery_port, tls)
            except OSError:
                await discovery.stop()
                if self._clock() > give_up_at:
                    raise
                await asyncio.sleep(0.2)
                continue
            self._open = True
            _log.info("operator: leads; discovery on port %d%s", port, " (TLS)" if tls is not None else "")
            return

    async def _keep_door(self) -> None:
        """Opens and closes the discovery port as terms come and go. Raises OSError when it stays taken."""
        while True:
            await self._door.wait()
            self._door.clear()
            if self._wanted_open and not self._open and self._discovery is not None:
                await self._open_door(self._discovery)
            elif not self._wanted_open and self._open and self._discovery is not None:
                await self._discovery.stop()
                self._open = False
                _log.info("operator: stands by; the discovery port is closed")

    # -- running

    async def run(self) -> None:
        """Reads everything, then takes part in the election. Runs until cancelled; raises what a part of it dies of."""
        await self.api.start()
        await self.source.start()
        if self._core is not None:
            self._core.step(self._clock())  # a term begins with all that there is
        parts = (self.election, self.sink, self.events, self.targets, self.costs)
        jobs: list[Coroutine[Any, Any, None]] = [self._keep_door(), *(part.run() for part in parts)]
        if self.certificate is not None:
            jobs.append(self.certificate.follow())
        if self.external_metrics is not None:
            jobs += [self.external_metrics.run(), self.label.run()]
        tasks = [asyncio.create_task(job) for job in jobs]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def stop(self) -> None:
        """After `run` was cancelled: hand over, so that the other replica waits for nothing."""
        await self.election.release()
        if self._open and self._discovery is not None:
            await self._discovery.stop()
            self._open = False
        await self.source.stop()
        await self.api.close()

    def info(self) -> dict[str, Any]:
        """Of every part."""
        return {
            "election": self.election.info(),
            "discovery_open": self._open,
            "gate": self._gate.info() if self._gate is not None else None,
            "api": self.api.info(),
            "status_writes": self.sink.info(),
            "events": self.events.info(),
            "scale": self.targets.info(),
            "deletion_costs": self.costs.info(),
            "external_metrics": None
            if self.external_metrics is None
            else {**self.external_metrics.info(), "leader_label": self.label.info()},
            "token_reviews": self.reviews.info(),
            "tls": self.certificate.info() if self.certificate is not None else None,
        }
