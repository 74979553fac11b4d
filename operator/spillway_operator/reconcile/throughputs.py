"""What replicas do and what that costs: learned at each scaling tick, for backends that declare scaling or a cost.

A price that is measured goes into the snapshot when it has moved by a tenth, so proxies hear of it rarely.
"""

from __future__ import annotations

from spillway_operator.api import BackendStatus, ModelBackend, ObjectKey
from spillway_operator.policies.backend import endpoint_ready
from spillway_operator.reconcile import gather
from spillway_operator.reconcile.world import World
from spillway_operator.scaling.cost import Spending, per_million_tokens, worth_telling
from spillway_operator.scaling.throughput import Throughput
from spillway_operator.snapshot.translate import wire_name
from spillway_operator.store import BACKEND


def tick(world: World, now: float, dt_seconds: float) -> list[ObjectKey]:
    """One look at all of them; the backends whose measured price proxies should hear of."""
    moved = []
    measured = set()
    for entry in world.store.entries(BACKEND):
        backend, cluster = entry.object, wire_name(entry.key)
        if not isinstance(backend, ModelBackend) or (backend.spec.scaling is None and backend.spec.cost is None):
            continue
        measured.add(cluster)
        _observe(world, backend, cluster, now, dt_seconds)
        if _tell(world, backend, cluster):
            moved.append(entry.key)
    for kept in (world.throughputs, world.spending, world.published_costs):
        for gone in kept.keys() - measured:
            del kept[gone]
    return moved


def of(world: World, cluster: str) -> Throughput:
    """What a replica does; at first as the status has it, where the one who led before left it."""
    found = world.throughputs.get(cluster)
    if found is None:
        backend = world.backend(cluster)
        status = world.store.status(backend.key) if backend is not None else None
        known = status.replicas.tokens_per_second if isinstance(status, BackendStatus) and status.replicas else None
        found = world.throughputs[cluster] = Throughput(None if known is None else float(known))
    return found


def replicas(world: World, cluster: str, now: float) -> tuple[list[str], int]:
    """The endpoints whose sidecars should report, and how many of all take requests."""
    endpoints = world.endpoints(cluster)
    listed = endpoints.endpoints if endpoints is not None else ()
    ready = sum(endpoint_ready(gather.endpoint_facts(world, each, now)) for each in listed)
    return [each.id for each in listed if each.inbound and not each.draining], ready


def _observe(world: World, backend: ModelBackend, cluster: str, now: float, dt_seconds: float) -> None:
    watched, ready = replicas(world, cluster, now)
    load = world.loads.backend(watched, now)
    traffic = world.loads.backend_traffic(cluster, now)
    prompts, answers = traffic.input_tokens_per_second, traffic.output_tokens_per_second
    if load.known and 2 * load.known >= ready:
        of(world, cluster).observe(now, prompts + answers, ready, load.saturated / load.known)
    cost = backend.spec.cost
    if cost is None:
        world.spending.pop(cluster, None)
        return
    if cost.gpu_hourly is not None:
        spent = float(cost.gpu_hourly) / 3600.0 * ready
    else:
        spent = (prompts * float(cost.input_per_million_tokens or 0) + answers * float(cost.output_per_million_tokens or 0)) / 1e6
    world.spending.setdefault(cluster, Spending()).add(dt_seconds, spent, prompts + answers)


def _tell(world: World, backend: ModelBackend, cluster: str) -> bool:
    cost = backend.spec.cost
    each = of(world, cluster).learned
    price = None if cost is None or cost.gpu_hourly is None or not each else per_million_tokens(float(cost.gpu_hourly), each)
    if not worth_telling(world.published_costs.get(cluster), price):
        return False
    if price is None:
        world.published_costs.pop(cluster, None)
    else:
        world.published_costs[cluster] = float(f"{price:.3g}")
    return True
