"""One backend: its cluster and endpoints in the snapshot.

In force are the last good version, if its host is allowed, and the endpoints that the source sees (an external backend has
its own host). An endpoint whose sidecar said goodbye is marked as draining until a new process speaks for it.
"""

from __future__ import annotations

import msgspec

from spillway_operator.api import ModelBackend, ObjectKey
from spillway_operator.policies import hosts
from spillway_operator.reconcile.world import World
from spillway_operator.snapshot.translate import cluster_of, external_endpoint, wire_name
from spillway_wire.snapshot import Endpoint, Endpoints


def reconcile(world: World, key: ObjectKey) -> None:
    """Bring the drafts of one backend in line with the store."""
    name = wire_name(key)
    backend = world.backend(name)
    if backend is None or refused_host(world, backend) is not None:
        world.drop_draft(("cluster", name))
        world.drop_draft(("endpoints", name))
        return
    cluster = cluster_of(backend, world.allowed_hosts.networks_for, world.published_costs.get(name))
    outside = external_endpoint(cluster)
    endpoints = world.store.endpoints(name) if outside is None else (outside,)
    world.set_draft(cluster)
    world.set_draft(Endpoints(name=name, endpoints=tuple(_marked(world, endpoint) for endpoint in endpoints)))


def _marked(world: World, endpoint: Endpoint) -> Endpoint:
    if endpoint.inbound and endpoint.id in world.draining and not endpoint.draining:
        return msgspec.structs.replace(endpoint, draining=True)
    return endpoint


def refused_host(world: World, backend: ModelBackend) -> str | None:
    """Why the backend's external host may not be used; None if it may, or if there is none."""
    external = backend.spec.external
    if external is None:
        return None
    address = external.address
    return hosts.refused(address.host, tls=address.tls, allowed=world.allowed_hosts)
