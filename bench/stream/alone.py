"""The stream without the rest of the operator: the discovery server and the load store, changes on command.

`python -m bench.stream.alone CLUSTERS ENDPOINTS_PER_CLUSTER`: prints its port; each line on stdin changes one endpoint and is
answered with the version and the monotonic nanoseconds of the publication.
"""

from __future__ import annotations

import asyncio
import sys
import time
from random import Random

from spillway_operator.discovery.auth import LoopbackAuthenticator
from spillway_operator.discovery.server import DiscoveryServer
from spillway_operator.loads.store import LoadStore
from spillway_operator.snapshot.state import EncodedResource, SnapshotState, encode
from spillway_wire.messages import Node, Report
from spillway_wire.names import Provider
from spillway_wire.snapshot import BackendRef, Cluster, Endpoint, Endpoints, Resource, ResourceKey, Route, Rule, key_of


class Core:
    def __init__(self) -> None:
        self.loads = LoadStore()

    def on_report(self, node: Node, report: Report, received_at: float) -> None:
        self.loads.accept(node, report, received_at)

    def on_node_change(self) -> None:
        pass


def endpoints(cluster: int, count: int, changed: int) -> Endpoints:
    return Endpoints(
        name=f"default/b{cluster}",
        endpoints=tuple(
            Endpoint(id=f"b{cluster}-{n}", host=f"10.0.{cluster}.{n}", port=8000 + (changed if n == 0 else 0), inbound=True)
            for n in range(count)
        ),
    )


async def main(clusters: int, per_cluster: int) -> None:
    server = DiscoveryServer(authenticator=LoopbackAuthenticator(), clock=time.monotonic, rng=Random())
    core = Core()
    server.attach(core)
    items: list[Resource] = []
    for n in range(clusters):
        rule = Rule(name="all", backends=(BackendRef(cluster=f"default/b{n}"),))
        items.append(Route(name=f"default/r{n}", models=(f"m{n}",), rules=(rule,)))
        items.append(Cluster(name=f"default/b{n}", provider=Provider.VLLM, model="m"))
        items.append(endpoints(n, per_cluster, 0))
    resources: dict[ResourceKey, EncodedResource] = {key_of(item): encode(item, {}) for item in items}
    server.publish(SnapshotState(version="1.0", epoch=1, resources=resources))
    print(await server.start("127.0.0.1", 0), flush=True)
    loop = asyncio.get_running_loop()
    number = 0
    while (await loop.run_in_executor(None, sys.stdin.readline)).strip():
        number += 1
        changed = endpoints(number % clusters, per_cluster, number)
        resources = {**resources, key_of(changed): encode(changed, resources)}
        now = time.monotonic_ns()
        server.publish(SnapshotState(version=f"1.{number}", epoch=1, resources=resources))
        print(f"1.{number}", now, flush=True)
    print(server.info(), file=sys.stderr)
    await server.stop()


if __name__ == "__main__":
    import uvloop

    if len(sys.argv) > 3:
        import cProfile

        cProfile.run("uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))", sys.argv[3])
    else:
        uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
