"""Resources as users declare them -> resources as proxies take them. One to one, defaults filled in, durations in seconds."""

from __future__ import annotations

from collections.abc import Callable

from spillway_operator.api import ModelBackend, ModelRoute, ObjectKey, RouteRule
from spillway_operator.api.backend import Cost
from spillway_operator.api.backend import External as DeclaredExternal
from spillway_operator.api.route import FlowControl
from spillway_operator.api.route import Match as DeclaredMatch
from spillway_operator.api.scheduling import Scheduling
from spillway_wire import snapshot as wire


def wire_name(key: ObjectKey) -> str:
    """The name of a route or cluster in snapshots: `namespace/name`."""
    return f"{key.namespace}/{key.name}"


def cluster_of(
    backend: ModelBackend,
    networks_for: Callable[[str], tuple[str, ...]] = lambda _: (),
    measured_per_million_tokens: float | None = None,
) -> wire.Cluster:
    """The cluster that a backend is to proxies.

    `networks_for`: where the addresses of an external host may be beside the internet. `measured_per_million_tokens`: what tokens of a
    backend cost that is paid by the hour.
    """
    spec = backend.spec
    health = spec.effective_health
    return wire.Cluster(
        name=wire_name(backend.key),
        provider=spec.provider,
        model=spec.model,
        capabilities=spec.capabilities,
        limits=wire.Limits(max_concurrency=spec.limits.max_concurrency, max_queue=spec.effective_max_queue),
        health=wire.Health()
        if health is None
        else wire.Health(path=health.path, interval_seconds=health.interval.seconds, timeout_seconds=health.timeout.seconds),
        external=None if spec.external is None else _external(spec.external, networks_for(spec.external.address.host)),
        cost=None if spec.cost is None else _cost(spec.cost, measured_per_million_tokens),
        hold_seconds=0.0 if spec.scaling is None else spec.scaling.hold_timeout.seconds,
    )


def _cost(cost: Cost, measured: float | None) -> wire.Cost | None:
    """Declared prices; where an hour is paid for, what a token was measured to cost, of a prompt or an answer."""
    if cost.gpu_hourly is not None:
        return None if measured is None else wire.Cost(input_per_million_tokens=measured, output_per_million_tokens=measured)
    return wire.Cost(
        input_per_million_tokens=float(cost.input_per_million_tokens or 0),
        output_per_million_tokens=float(cost.output_per_million_tokens or 0),
    )


def _external(external: DeclaredExternal, allowed_networks: tuple[str, ...]) -> wire.External:
    address = external.address
    secret = external.auth.secret_ref if external.auth is not None else None
    return wire.External(
        host=address.host,
        port=address.port,
        tls=address.tls,
        path_prefix=address.path_prefix,
        auth=None if secret is None else wire.SecretKeyRef(name=secret.name, key=secret.key),
        allowed_networks=allowed_networks,
    )


def external_endpoint(cluster: wire.Cluster) -> wire.Endpoint | None:
    """The one endpoint of an external cluster: its own host."""
    if cluster.external is None:
        return None
    return wire.Endpoint(id=f"{cluster.name}/external", host=cluster.external.host, port=cluster.external.port)


def route_of(route: ModelRoute) -> wire.Route:
    """The route with every backend that it names, whether there is one or not: `assemble` leaves out what does not resolve."""
    spec = route.spec
    namespace = route.metadata.namespace
    return wire.Route(
        name=wire_name(route.key),
        models=spec.models,
        rules=tuple(_rule(rule, namespace) for rule in spec.rules),
        generation=route.metadata.generation,
        timeouts=wire.Timeouts(
            first_token_seconds=spec.timeouts.first_token.seconds,
            stream_idle_seconds=spec.timeouts.stream_idle.seconds,
            request_seconds=spec.timeouts.request.seconds,
            connect_seconds=spec.timeouts.connect.seconds,
            admission_seconds=spec.timeouts.admission.seconds,
        ),
        retries=wire.Retries(
            max_attempts=spec.retries.max_attempts,
            budget_percent=spec.retries.budget_percent,
            hedge_percent=spec.retries.hedge_percent,
            continue_streams=spec.retries.continue_streams,
        ),
        flow_control=_flow_control(spec.flow_control),
        scheduling=_scheduling(spec.scheduling),
    )


def _scheduling(scheduling: Scheduling | None) -> wire.Scheduling | None:
    if scheduling is None:
        return None
    weights = tuple(wire.ScorerWeight(name=scorer.name, weight=scorer.weight) for scorer in scheduling.scorers)
    if scheduling.session_header is None:
        return wire.Scheduling(profile=scheduling.profile, scorers=weights)
    return wire.Scheduling(profile=scheduling.profile, scorers=weights, session_header=scheduling.session_header)


def _flow_control(flow: FlowControl) -> wire.FlowControl:
    return wire.FlowControl(
        max_requests=flow.max_requests,
        max_bytes=flow.max_bytes,
        max_wait_seconds=flow.max_wait.seconds,
        priority_header=flow.priority_header,
        priorities=tuple(wire.HeaderPriority(value=item.value, priority=item.priority) for item in flow.priorities),
        fairness_header=flow.fairness_header,
    )


def _rule(rule: RouteRule, namespace: str) -> wire.Rule:
    fallback = rule.fallback
    return wire.Rule(
        name=rule.name,
        matches=tuple(_match(match) for match in rule.matches),
        backends=tuple(
            wire.BackendRef(
                cluster=f"{namespace}/{ref.name}", priority=ref.priority, weight=ref.weight, model_override=ref.model_name_override
            )
            for ref in rule.backend_refs
        ),
        fallback=None
        if fallback is None
        else wire.Fallback(
            error_rate_percent=fallback.error_rate_percent,
            latency_p95_seconds=None if fallback.latency_p95 is None else fallback.latency_p95.seconds,
        ),
        spill=None if rule.spill is None else wire.Spill(max_wait_seconds=rule.spill.max_wait.seconds),
        scheduling=_scheduling(rule.scheduling),
    )


def _match(match: DeclaredMatch) -> wire.Match:
    tokens = match.prompt_tokens
    return wire.Match(
        request_types=match.request_types,
        headers=tuple(wire.HeaderMatch(name=header.name, value=header.value) for header in match.headers),
        prompt_tokens=None if tokens is None else wire.TokenRange(min=tokens.min, max=tokens.max),
    )
