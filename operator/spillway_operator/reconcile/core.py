"""The operator's core: what happens when, around parts that decide.

One synchronous `step(now)` does whatever is due: look at dirty keys, move the weights, publish the next state, pass over the
statuses. `run` is the shell that waits until something is due or somebody calls. All on one event loop, so nothing locks.

Walk through an edit: the source puts an entry into the store; the store calls `on_change`, which marks keys and wakes the
loop; `step` reconciles the keys into drafts, assembles one state from however many changed, and publishes it; proxies
acknowledge; the carrier calls `on_node_change`, which asks for a status pass, and the pass turns acknowledgements into
`Programmed`.

An exception while looking at one key is that key's: it is logged, shown as a condition, retried with back-off, and what
the snapshot had of the object stays. An exception in the loops over everything (weights, statuses, assembly) is logged, and
the loop goes on at its next turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from spillway_operator.api import ObjectKey
from spillway_operator.balancing.pressure import PressureBounds
from spillway_operator.balancing.weights import WeightPolicy
from spillway_operator.reconcile import backend, route, schedules, throughputs, weights
from spillway_operator.reconcile.metrics import Metrics
from spillway_operator.reconcile.queue import DirtyQueue
from spillway_operator.reconcile.scaling import ScalingLoop
from spillway_operator.reconcile.status import StatusPass
from spillway_operator.reconcile.world import World
from spillway_operator.snapshot.builder import assemble
from spillway_operator.store import BACKEND, ENDPOINTS, ROUTE
from spillway_wire.messages import FaultReason, Node, Report

CLAIMS = "Claims"  # kind of the key that stands for the model names of one namespace

_MAX_ROUNDS = 10  # looks may mark further keys; more rounds than that in one step and the rest waits for the next
_ORDER = {CLAIMS: 0, BACKEND: 1, ROUTE: 2}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How often things happen."""

    weights_seconds: float = 0.5  # twice a report interval at most
    status_seconds: float = 1.0  # load figures are a second old at most
    status_spacing_seconds: float = 0.05  # a burst of acknowledgements is one pass
    status_share: float = 0.1  # of the time may go into status passes
    smoothing_seconds: float = 1.0  # one report more or less does not move a weight
    sweep_seconds: float = 10.0
    scaling_seconds: float = 2.0  # the decider's tick
    schedules_seconds: float = 1.0


class Core:
    """Reconciles, publishes and tells statuses. Implements `snapshot.ports.StreamListener`."""

    def __init__(
        self,
        *,
        world: World,
        status: StatusPass,
        metrics: Metrics,
        clock: Callable[[], float],
        rng: random.Random,
        pace: Pace,
        policy: WeightPolicy,
        bounds: PressureBounds,
        scaling: ScalingLoop | None = None,
        alone: bool = False,
    ) -> None:
        self.world = world
        self._scaling = scaling
        self._scaling_at: float | None = None
        self._alone = alone  # no lease gives epochs
        self.queue: DirtyQueue[ObjectKey] = DirtyQueue(rng=rng)
        self._status = status
        self._metrics = metrics
        self._clock = clock
        self._pace = pace
        self._policy = policy
        self._bounds = bounds
        self._wake = asyncio.Event()
        self._counter = 0
        self._nodes_changed = False
        self._health: dict[str, tuple[bool, bool, tuple[str, ...]]] = {}
        self._weights_at: float | None = None
        self._status_due_at = 0.0
        self._status_earliest_at = 0.0
        self._sweep_at = 0.0
        self._schedules_at = 0.0
        self.published = 0

    # -- what others call

    def on_change(self, key: ObjectKey) -> None:
        """The store holds something else under `key`."""
        if key.kind == ENDPOINTS:
            key = ObjectKey(BACKEND, key.namespace, key.name)
        self.queue.mark(key)
        if key.kind == ROUTE:
            self.queue.mark(ObjectKey(CLAIMS, key.namespace, ""))
        self._wake.set()

    def on_report(self, node: Node, report: Report, received_at: float) -> None:
        """A proxy reported. Figures wait for the next pass; a change of health asks for one."""
        self.world.loads.accept(node, report, received_at)
        for demand in report.demand:
            if (demand.held or demand.arrived_tokens) and self._scaling is not None and self._scaling.on_held(demand.cluster):
                self._wake.set()
        load = report.load
        health = (
            load.engine_up if load is not None else True,
            load.draining if load is not None else False,
            (
                *(f"{problem.cluster} {problem.reason} {problem.message}" for problem in report.problems),
                *(f"{each.route} {each.rule} {each.priority} {each.cause}" for each in report.diversions),
            ),
        )
        if self._health.get(node.id) != health:
            self._health[node.id] = health
            self._want_status()

    def on_node_change(self) -> None:
        """Proxies came, left, drain, acknowledged or refused."""
        self._nodes_changed = True
        self._want_status()

    def _want_status(self) -> None:
        self._status_due_at = min(self._status_due_at, self._status_earliest_at)
        self._wake.set()

    def begin_term(self, epoch: int) -> None:
        """This replica leads: what there is goes out again under a version of the new epoch."""
        if self._scaling is not None:
            self._scaling.begin_term()
        self._scaling_at = None
        self._counter += 1
        self.world.state = replace(self.world.state, version=f"{epoch}.{self._counter}", epoch=epoch)
        self.world.publisher.publish(self.world.state)
        self._want_status()

    # -- the loop

    async def run(self) -> None:
        """Step whenever something is due, until cancelled."""
        while True:
            self._wake.clear()
            now = self._clock()
            self.step(now)
            due = self.due_in(self._clock())
            if due > 0:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(due):
                        await self._wake.wait()
            else:
                await asyncio.sleep(0)

    def due_in(self, now: float) -> float:
        """Seconds until the next step has something to do."""
        times = [self._status_due_at - now]
        if self._weights_at is not None:
            times.append(self._weights_at + self._pace.weights_seconds - now)
        if self._scaling is not None:
            times.append(0.0 if self._scaling_at is None else self._scaling_at + self._pace.scaling_seconds - now)
        queued = self.queue.due_in(now)
        if queued is not None:
            times.append(queued)
        return max(0.0, min(times))

    def step(self, now: float) -> None:
        """Do all that is due at monotonic `now`."""
        if self._nodes_changed:
            self._nodes_changed = False
            self._guarded("nodes", self._see_nodes)
        if now >= self._schedules_at:
            self._schedules_at = now + self._pace.schedules_seconds
            self._guarded("schedules", self._open_schedules)
        self._look(now)
        if self._weights_at is None or now - self._weights_at >= self._pace.weights_seconds:
            self._guarded("weights", lambda: self._move_weights(now))
        if self._scaling is not None:
            self._scale(self._scaling, now)
        if self.world.dirty:
            self._guarded("snapshot", self._publish)
        if now >= self._status_due_at:
            self._guarded("status", lambda: self._pass_statuses(now))
        if now >= self._sweep_at:
            self._sweep_at = now + self._pace.sweep_seconds
            self.world.loads.sweep(now)

    def _guarded(self, what: str, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception:  # noqa: BLE001 - whatever it meets, the loop goes on
            _log.exception("core: %s failed; it is tried again", what)

    # -- dirty keys

    def _look(self, now: float) -> None:
        for _ in range(_MAX_ROUNDS):
            keys = self.queue.drain(now)
            if not keys:
                return
            for key in sorted(keys, key=lambda key: _ORDER.get(key.kind, len(_ORDER))):
                self._look_at(key, now)

    def _look_at(self, key: ObjectKey, now: float) -> None:
        begun = self._clock()
        try:
            self._reconcile(key)
        except Exception as error:  # noqa: BLE001 - it is this key's trouble only
            delay = self.queue.failed(key, now)
            self.world.failures[key] = f"{type(error).__name__}: {error}"
            _log.exception("core: %s failed; again in %.1f s", key, delay)
            outcome = "failed"
        else:
            self.queue.succeeded(key)
            self.world.failures.pop(key, None)
            outcome = "ok"
        self._metrics.reconciled.labels(kind=key.kind, outcome=outcome).inc()
        self._metrics.reconcile_seconds.labels(kind=key.kind).observe(max(0.0, self._clock() - begun))
        self._want_status()

    def _reconcile(self, key: ObjectKey) -> None:
        if key.kind == BACKEND:
            backend.reconcile(self.world, key)
        elif key.kind == ROUTE:
            route.reconcile(self.world, key)
        else:
            for changed in route.reconcile_claims(self.world, key.namespace):
                self.queue.mark(changed)

    # -- the rest

    def _overtake(self) -> None:
        """Begins after the latest epoch that proxies refuse ours for. Without a lease epochs come from the wall clock, which may be set back."""
        refusals = [sync.refusal for sync in self.world.nodes.values() if sync.refusal is not None]
        stale = (r.keeps for r in refusals if r.keeps and any(fault.reason == FaultReason.STALE_EPOCH for fault in r.errors))
        later = max((int(epoch) for kept in stale if (epoch := kept.partition(".")[0]).isdigit()), default=-1)
        if later >= self.world.state.epoch:
            _log.warning(
                "core: proxies have heard of epoch %d, ours was %d: the clock has gone back", later, self.world.state.epoch
            )
            self.begin_term(later + 1)

    def _see_nodes(self) -> None:
        world = self.world
        world.nodes = {sync.node.id: sync for sync in world.publisher.nodes()}
        world.loads.retain(world.nodes)
        if self._alone:
            self._overtake()
        for gone in self._health.keys() - world.nodes.keys():
            del self._health[gone]
        before = set(world.draining)
        for sync in world.nodes.values():
            if sync.draining:
                world.draining[sync.node.id] = sync.node.boot_id
            elif world.draining.get(sync.node.id, sync.node.boot_id) != sync.node.boot_id:
                del world.draining[sync.node.id]  # a new process speaks for the endpoint
        present = {
            endpoint.id: name
            for name in world.clusters()
            for endpoint in world.store.endpoints(name)
            if endpoint.id in world.draining
        }
        for unknown in [node for node in world.draining if node not in present and node not in world.nodes]:
            del world.draining[unknown]
        changed = before ^ set(world.draining)
        if changed:
            for name in list(world.clusters()):
                if any(endpoint.id in changed for endpoint in world.store.endpoints(name)):
                    namespace, _, backend_name = name.partition("/")
                    self.queue.mark(ObjectKey(BACKEND, namespace, backend_name))

    def _open_schedules(self) -> None:
        for key in schedules.tick(self.world):
            self.queue.mark(key)

    def _move_weights(self, now: float) -> None:
        dt = self._pace.weights_seconds if self._weights_at is None else now - self._weights_at
        self._weights_at = now
        changed = weights.tick(self.world, now, dt, self._policy, self._bounds, smoothing_seconds=self._pace.smoothing_seconds)
        if changed:
            self._metrics.weight_changes.inc(changed)

    def _scale(self, scaling: ScalingLoop, now: float) -> None:
        if self._scaling_at is None or now - self._scaling_at >= self._pace.scaling_seconds:
            dt = 0.0 if self._scaling_at is None else now - self._scaling_at
            self._scaling_at = now
            self._guarded("costs", lambda: self._measure(now, dt))
            self._guarded("scaling", lambda: scaling.tick(now))
        elif scaling.urgent:
            self._guarded("scaling", lambda: scaling.tick_urgent(now))
            self._want_status()

    def _measure(self, now: float, dt_seconds: float) -> None:
        for key in throughputs.tick(self.world, now, dt_seconds):
            self.queue.mark(key)

    def _publish(self) -> None:
        world = self.world
        state = assemble(world.state, world.drafts, f"{world.state.epoch}.{self._counter + 1}")
        world.dirty = False
        if state is None:
            if self.published:
                return
            state = world.state  # nothing declared: proxies are told so
        else:
            self._counter += 1
        world.state = state
        world.publisher.publish(state)
        self.published += 1
        self._metrics.publishes.inc()
        self._want_status()

    def _pass_statuses(self, now: float) -> None:
        begun = self._clock()
        written = 0
        try:
            written = self._status.run(self.world, now)
        finally:
            took = max(0.0, self._clock() - begun)
            spacing = max(self._pace.status_spacing_seconds, took / self._pace.status_share)
            self._status_earliest_at = now + spacing
            self._status_due_at = now + max(spacing, self._pace.status_seconds)
        self._metrics.status_seconds.observe(took)
        self._metrics.status_writes.inc(written)

    def info(self) -> dict[str, Any]:
        """The queue, the world and the statuses."""
        return {
            "queue": self.queue.info(),
            "published": self.published,
            **self.world.info(),
            "status": self._status.info(),
            "scaling": None if self._scaling is None else self._scaling.info(),
        }
