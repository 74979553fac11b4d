"""The route listener's site: reads what a request is, finds its route and rule, and lets a `RouteExchange` carry it.

It owns what all requests share: the routing table in force, the clusters and their endpoints as this router sees them, the
retry budgets, the counters.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Final

from spillway_sidecar.balancing.conditions import Conditions
from spillway_sidecar.flow.budget import RetryBudget
from spillway_sidecar.proxy.answers import RETRY_AFTER_SECONDS
from spillway_sidecar.proxy.attempt import NOT_ERRORS, RouteExchange
from spillway_sidecar.proxy.continuation import ContinuedExchange
from spillway_sidecar.proxy.downstream import Downstream
from spillway_sidecar.proxy.errors import Outcome, Refusal
from spillway_sidecar.proxy.heads import RequestHead
from spillway_sidecar.proxy.held import HeldExchange
from spillway_sidecar.proxy.listener import ClientLimits, Listener
from spillway_sidecar.proxy.models import models_response
from spillway_sidecar.proxy.upstream import Target
from spillway_sidecar.proxy.waiting import WaitingRoom
from spillway_sidecar.routing.classify import PATHS, BadRequest, classify
from spillway_sidecar.routing.keys import read_keys
from spillway_sidecar.routing.table import RoutingTable
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.telemetry.accesslog import AccessLog
from spillway_sidecar.telemetry.decisions import DecisionRing
from spillway_sidecar.telemetry.stats import TrafficStats
from spillway_wire.loads import Demand, Diversion
from spillway_wire.names import RequestType

_MODELS: Final = b"/v1/models"


class RouteSite(Listener):
    """What stands behind a route listener. One per process; `swap` is the only way its configuration changes."""

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        id_prefix: str,
        limits: ClientLimits | None = None,
        decisions: DecisionRing | None = None,
        access_log: AccessLog | None = None,
        wall_clock: Callable[[], float] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(clock, limits or ClientLimits(), idle_seconds=120.0)
        self.shed = 0.0  # the share of new requests that is refused since the proxy itself has too much to do
        self.table: RoutingTable[Pool[Target]] | None = None
        self.clusters: dict[str, Pool[Target]] = {}
        self.budgets: dict[str, RetryBudget] = {}
        self.conditions = Conditions()
        self.waiting = WaitingRoom(self)
        self.routers = 1
        self.version = ""
        self.decisions = decisions
        self.access_log = access_log
        self.wall_clock = wall_clock
        self.random = (rng or random.Random()).random  # noqa: S311 - spreads load, guards nothing
        self.stats = TrafficStats(NOT_ERRORS)
        # By the limit, so that each is in the order of its deadlines.
        self.waiting_admission: defaultdict[float, deque[tuple[float, RouteExchange, int]]] = defaultdict(deque)
        self._id_prefix = id_prefix.encode()
        self._counter = 0

    # --- Site

    def precheck(self, head: RequestHead) -> None:
        """Path, method and coding, by the head alone."""
        self._request_type(head)

    def handle(self, client: Downstream, head: RequestHead, body: bytes) -> None:
        """Routes one request."""
        if self.shed and self.random() < self.shed:
            raise Refusal(503, Outcome.PROXY_OVERLOADED, "This proxy has too much to do.", retry_after=RETRY_AFTER_SECONDS)
        request_type = PATHS.get(head.target)
        if request_type is None or head.method != b"POST" or b"content-encoding" in head.fields:
            request_type = self._request_type(head)
        now = self.now = self.clock()
        self._counter += 1
        request_id = b"%b%x" % (self._id_prefix, self._counter)
        if request_type is None:
            self._models(client, head, request_id)
            return
        try:
            facts = classify(request_type, body)
        except BadRequest as error:
            raise Refusal(400, Outcome.BAD_REQUEST, error.message, param=error.param) from None
        table = self.table
        if table is None:
            raise Refusal(503, Outcome.NO_ENDPOINT, "This gateway has no configuration yet.", retry_after=RETRY_AFTER_SECONDS)
        route = table.routes.get(facts.model)
        if route is None:
            raise Refusal(
                404,
                Outcome.MODEL_NOT_FOUND,
                f"The model '{facts.model}' does not exist here.",
                param="model",
                code="model_not_found",
            )
        rule = route.rule_for(facts, head.fields)
        if rule is None:
            self.stats.refuse(route.name, Outcome.NO_RULE)
            message = f"No rule of the model '{facts.model}' takes this request."
            refusal = Refusal(404, Outcome.NO_RULE, message, param="model", code="no_matching_rule")
            client.answer(refusal, request_id=request_id, keep_alive=head.keep_alive, extra=b"")
            return
        if len(body) >= rule.profile.keys_from:
            read_keys(facts, rule.profile, head.fields, body)
        if facts.stream and route.retries.continue_streams:
            exchange: RouteExchange = ContinuedExchange(self, client, head, request_id, now).keep()
        elif rule.wakes and facts.stream:
            exchange = HeldExchange(self, client, head, request_id, now)
        else:
            exchange = RouteExchange(self, client, head, request_id, now)
        exchange.begin(facts, body, route, rule, head.fields)

    def refused(self, refusal: Refusal) -> None:
        """Counts a refusal that no exchange has counted."""
        self.stats.refuse("", refusal.outcome)

    def _request_type(self, head: RequestHead) -> RequestType | None:
        """The type a path asks for; None is the list of models."""
        path = head.target.partition(b"?")[0]
        request_type = PATHS.get(path)
        if request_type is not None:
            if head.method != b"POST":
                raise Refusal(405, Outcome.METHOD, "This endpoint takes POST.", allow="POST")
            coding = head.fields.get(b"content-encoding")
            if coding is not None and coding.strip().lower() != b"identity":
                raise Refusal(415, Outcome.ENCODING, "Compressed request bodies are not accepted.", close=True)
            return request_type
        if path == _MODELS or path.startswith(_MODELS + b"/"):
            if head.method != b"GET":
                raise Refusal(405, Outcome.METHOD, "This endpoint takes GET.", allow="GET")
            return None
        raise Refusal(404, Outcome.NOT_FOUND, "There is no such endpoint here.", code="not_found")

    def _models(self, client: Downstream, head: RequestHead, request_id: bytes) -> None:
        names = self.table.models if self.table is not None else ()
        client.transport.write(models_response(head.target.partition(b"?")[0], names, request_id))
        client.finished(head.keep_alive)

    def demand(self) -> tuple[Demand, ...]:
        """What this router has under way at each cluster, holds for it, and has been asked of it since the last call."""
        held = self.waiting.held() if self.waiting.count else {}
        found: list[Demand] = []
        for name, cluster in self.clusters.items():
            in_flight = sum(target.in_flight for target in cluster.targets)
            tokens = sum(target.in_flight_tokens for target in cluster.targets)
            arrived = cluster.arrivals.drain() if cluster.arrivals is not None else 0
            requests, held_tokens = held.get(name, (0, 0))
            if in_flight or tokens or requests or arrived:
                found.append(Demand(name, in_flight, tokens, requests, held_tokens, arrived))
        return tuple(found)

    def diversions(self) -> tuple[Diversion, ...]:
        """What this router sends past a priority at the moment."""
        return tuple(
            Diversion(route, rule, priority, because.cause, because.text())
            for (route, rule, priority), because in self.conditions.diversions(self.clock())
        )

    def ejections(self) -> Iterator[tuple[str, str, int, int]]:
        """For each cluster and reason how often endpoints were put out, and how many are."""
        for name, cluster in self.clusters.items():
            for reason, count in cluster.peers.ejections.items():
                yield name, reason, count, sum(target.ejected is reason for target in cluster.targets)

    def info(self) -> dict[str, object]:
        """Connections, clusters and budgets."""
        return {
            "connections": len(self.connections),
            "in_flight": sum(1 for c in self.connections if c.exchange is not None),
            "draining": self.draining,
            "snapshot": self.table.version if self.table else None,
            "routers": self.routers,
            "clusters": {name: [target.info() for target in cluster.targets] for name, cluster in self.clusters.items()},
            "conditions": self.conditions.info(self.clock()),
            "waiting": self.waiting.info(),
            "retry_budgets": {name: budget.info() for name, budget in self.budgets.items()},
        }
