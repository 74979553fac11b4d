"""Puts a validated snapshot in force: compiles it, then replaces what the sites look at, all in one step of the loop.

Targets (connections, learned speed, counts) live on as long as their cluster and address do. Requests under way keep the
table and the targets that they began with; connections of targets that are gone are closed when idle.

The keys of external servers are looked up by `credential(cluster, ref)` and put into the heads made ready here; `refresh`
does that again when a key may have changed.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from spillway_sidecar.balancing.choose import endpoints as targets_of
from spillway_sidecar.flow.budget import RetryBudget
from spillway_sidecar.proxy.route import RouteSite
from spillway_sidecar.proxy.upstream import Target
from spillway_sidecar.routing.table import compile_table
from spillway_sidecar.scheduling.arrivals import Arrivals
from spillway_sidecar.scheduling.health import Peers
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.recurrence import Recurrence
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.wait import Turn
from spillway_wire.loads import ClusterProblem
from spillway_wire.names import Provider, RequestType
from spillway_wire.snapshot import Cluster, Endpoint, Endpoints, Resource, ResourceKey, Route, SecretKeyRef, Weights

SUFFIXES: Final = {
    RequestType.CHAT: "/chat/completions",
    RequestType.COMPLETIONS: "/completions",
    RequestType.EMBEDDINGS: "/embeddings",
}
ASK_FOR_LOAD: Final = b"endpoint-load-metrics-format: JSON\r\n"  # vLLM and Triton then tell it with each reply
CONTINUING: Final = frozenset((Provider.VLLM, Provider.SGLANG))  # `continue_final_message`
Credential = Callable[[str, SecretKeyRef], str | None]


def request_heads(
    host: str, port: int, *, tls: bool, prefix: str, extra: bytes = b"", bearer: str | None = None
) -> dict[RequestType, bytes]:
    """The first lines of a request of each type to one address. `extra` holds whole header lines."""
    authority = f"[{host}]" if ":" in host else host
    if port != (443 if tls else 80):
        authority += f":{port}"
    authorization = b"authorization: Bearer %b\r\n" % bearer.encode("ascii") if bearer is not None else b""
    return {
        request_type: b"POST %b HTTP/1.1\r\nhost: %b\r\ncontent-type: application/json\r\n%b%b"
        % ((prefix + suffix).encode("ascii"), authority.encode("ascii"), authorization, extra)
        for request_type, suffix in SUFFIXES.items()
    }


class Swapper:
    """Compiles snapshots for one route site."""

    def __init__(self, site: RouteSite, credential: Credential, tls: Callable[[], ssl.SSLContext]) -> None:
        self._site = site
        self._credential = credential
        self._tls = tls
        self._clusters: dict[str, Cluster] = {}

    def swap(self, version: str, resources: Mapping[ResourceKey, Resource]) -> None:
        """Puts the resources in force. Raises KeyError or ValueError where they are not consistent; then nothing changes."""
        site = self._site
        clusters = {r.name: r for r in resources.values() if isinstance(r, Cluster)}
        routes = [r for r in resources.values() if isinstance(r, Route)]
        weights = {r.name: r for r in resources.values() if isinstance(r, Weights)}
        endpoints = {r.name: r for r in resources.values() if isinstance(r, Endpoints)}
        runtimes = {
            name: self._runtime(cluster, endpoints[name].endpoints if name in endpoints else ())
            for name, cluster in clusters.items()
        }

        def cluster_of(name: str) -> tuple[Pool[Target], str, tuple[RequestType, ...]]:
            cluster = clusters[name]
            return runtimes[name], cluster.model, cluster.capabilities

        site.conditions.begin()
        try:
            holding = {name for name, runtime in runtimes.items() if runtime.hold_seconds > 0.0}
            table = compile_table(version, routes, weights, cluster_of, site.conditions.of, holding)
        except (KeyError, ValueError):
            site.conditions.abandon()
            raise
        for rule in (rule for route in table.routes.values() for rule in route.rules):
            if any(group.spill is not None for group in rule.groups):
                for target in targets_of(rule):
                    target.turn = target.turn or Turn()
        budgets = {route.name: site.budgets.get(route.name) or RetryBudget(route.retries.budget_percent) for route in routes}
        for route in routes:
            budgets[route.name].percent = route.retries.budget_percent
            budgets[route.name].hedge_percent = route.retries.hedge_percent
        kept = {id(target) for runtime in runtimes.values() for target in runtime.targets}
        gone = [target for runtime in site.clusters.values() for target in runtime.targets if id(target) not in kept]
        site.clusters, site.budgets, site.table, site.version = runtimes, budgets, table, version
        site.waiting.follow(table)
        self._clusters = clusters
        site.stats.keep_only({route.name for route in routes})
        for target in gone:
            target.mark(draining=True)
            target.close_idle()

    def problems(self) -> tuple[ClusterProblem, ...]:
        """What hinders external servers that a person has to mend: a certificate that is not trusted, a key that is refused."""
        return tuple(
            ClusterProblem(name, reason, message[:1024])
            for name, runtime in self._site.clusters.items()
            for reason, message in [target.trouble for target in runtime.targets if target.trouble is not None]
        )

    def refresh(self) -> None:
        """Looks keys up again and lets limits follow the mean request; called each few seconds."""
        for name, runtime in self._site.clusters.items():
            cluster = self._clusters[name]
            for target in runtime.targets:
                target.limit(cluster.limits.max_concurrency, cluster.limits.max_queue)
                if cluster.external is not None and cluster.external.auth is not None:
                    self._arm(target, cluster)

    def _runtime(self, cluster: Cluster, endpoints: Iterable[Endpoint]) -> Pool[Target]:
        before = self._site.clusters.get(cluster.name)
        speed = before.speed if before is not None else ClusterSpeed()
        known = {(t.id, t.host, t.port, t.inbound, t.tls is not None): t for t in before.targets} if before is not None else {}
        external = cluster.external
        targets = []
        for endpoint in endpoints:
            key = (endpoint.id, endpoint.host, endpoint.port, endpoint.inbound, external is not None and external.tls)
            target = known.get(key)
            if target is None:
                target = Target(endpoint.id, endpoint.host, endpoint.port, endpoint.inbound, speed)
                target.external = external is not None
                if external is not None and external.tls:
                    target.tls = self._tls()
                    target.server_name = external.host
            target.mark(draining=endpoint.draining)
            target.limit(cluster.limits.max_concurrency, cluster.limits.max_queue)
            self._arm(target, cluster)
            targets.append(target)
        cost = cluster.cost
        arrivals = before.arrivals or Arrivals() if before is not None else Arrivals()
        return Pool(
            cluster.name,
            targets,
            speed,
            before.peers if before is not None else Peers(),
            before.prefixes if before is not None else Recurrence(),
            None if cost is None else (cost.input_per_million_tokens, cost.output_per_million_tokens),
            cluster.hold_seconds,
            arrivals if cluster.hold_seconds > 0.0 else None,
        )

    def _arm(self, target: Target, cluster: Cluster) -> None:
        """Makes the request heads ready, with the key if one is asked for."""
        external = cluster.external
        target.continues = external is None and cluster.provider in CONTINUING
        if external is None:
            ask = b"" if target.inbound else ASK_FOR_LOAD  # a sidecar tells it unasked
            target.heads = request_heads(target.host, target.port, tls=False, prefix="/v1", extra=ask)
            target.mark(blocked=False)
            return
        target.allowed_networks = external.allowed_networks
        bearer = self._credential(cluster.name, external.auth) if external.auth is not None else None
        target.mark(blocked=external.auth is not None and bearer is None)
        target.heads = request_heads(external.host, external.port, tls=external.tls, prefix=external.path_prefix, bearer=bearer)
