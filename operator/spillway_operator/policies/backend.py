"""Conditions of a ModelBackend, each one function of the facts.

An endpoint behind a sidecar is ready when that sidecar is connected, says that its engine is up and does not drain; without
its report it is not called ready, although proxies have it in their snapshot and judge for themselves. An endpoint that
nobody of ours watches (external, a Service) is taken for ready until proxies say otherwise.
"""

from __future__ import annotations

from typing import Final

from spillway_operator.policies import reasons
from spillway_operator.policies.conditions import Decision, Verdict, names
from spillway_operator.policies.facts import BackendFacts, EndpointFacts

MIN_REQUESTS_TO_JUDGE = 5
FAILING_RATIO = 0.5


def decide(facts: BackendFacts) -> tuple[Decision, ...]:
    """All conditions, in the order they are shown."""
    optional = (scaling_active(facts), injected(facts))
    return (accepted(facts), ready(facts), reachable(facts), saturated(facts), *(each for each in optional if each is not None))


def endpoint_ready(endpoint: EndpointFacts) -> bool:
    """Whether requests can go there, as far as the operator knows."""
    if endpoint.draining:
        return False
    return not endpoint.inbound or (endpoint.connected and endpoint.engine_up is True)


def ready_count(facts: BackendFacts) -> int:
    """How many endpoints are ready; none while no proxy can use the backend or it is not in use."""
    if not facts.in_force or (facts.complaints and not _usable_elsewhere(facts)):
        return 0
    return sum(endpoint_ready(endpoint) for endpoint in facts.endpoints)


def accepted(facts: BackendFacts) -> Decision:
    """Whether the document is good and may be used."""
    if facts.invalid is not None:
        return Decision(reasons.ACCEPTED, Verdict.FALSE, reasons.INVALID, facts.invalid)
    if facts.refused_host is not None:
        return Decision(reasons.ACCEPTED, Verdict.FALSE, reasons.HOST_NOT_ALLOWED, facts.refused_host)
    if facts.failure is not None:
        return Decision(reasons.ACCEPTED, Verdict.FALSE, reasons.RECONCILE_FAILED, facts.failure)
    return Decision(reasons.ACCEPTED, Verdict.TRUE, reasons.ACCEPTED, "The backend is in use")


def ready(facts: BackendFacts) -> Decision:
    """Whether at least one endpoint takes requests and some proxy can use it. Proxies that cannot are named all the same."""
    if not facts.in_force:
        return Decision(reasons.READY, Verdict.FALSE, reasons.NOT_ACCEPTED, "See the Accepted condition")
    if facts.complaints and not _usable_elsewhere(facts):
        return Decision(reasons.READY, Verdict.FALSE, facts.complaints[0].reason, _complaint(facts))
    total = len(facts.endpoints)
    if not total:
        if facts.scaling is not None and facts.scaling.active and not facts.scaling.desired:
            text = "There is no replica; the next request waits for the first, which is then started"
            return Decision(reasons.READY, Verdict.TRUE, reasons.SCALED_TO_ZERO, text)
        return Decision(reasons.READY, Verdict.FALSE, reasons.NO_ENDPOINTS, "The backend has no endpoints")
    count = ready_count(facts)
    text = f"{count} of {total} endpoints ready"
    if not count:
        missing = names(endpoint.id for endpoint in facts.endpoints)
        return Decision(reasons.READY, Verdict.FALSE, reasons.NO_READY_ENDPOINT, f"{text}; waiting for {missing}")
    if facts.complaints:
        text = f"{text}; {len(_complaining(facts))} of {facts.proxies} proxies cannot use it: {_complaint(facts)}"
    return Decision(reasons.READY, Verdict.TRUE, reasons.ENDPOINTS_READY, text)


def _complaining(facts: BackendFacts) -> list[str]:
    return sorted({complaint.node for complaint in facts.complaints})


def _usable_elsewhere(facts: BackendFacts) -> bool:
    """Whether some proxy has nothing to complain of."""
    return len(_complaining(facts)) < facts.proxies


def _complaint(facts: BackendFacts) -> str:
    return f"{facts.complaints[0].message} (said by {names(_complaining(facts))})"


def reachable(facts: BackendFacts) -> Decision:
    """Whether engines answer: by what sidecars say, or by how requests fare where nobody of ours stands."""
    watched = [endpoint for endpoint in facts.endpoints if endpoint.inbound]
    if not watched:
        return _by_traffic(facts)
    connected = [endpoint for endpoint in watched if endpoint.connected]
    if not connected:
        away = names(endpoint.id for endpoint in watched)
        return Decision(reasons.REACHABLE, Verdict.UNKNOWN, reasons.SIDECAR_AWAY, f"No sidecar is connected of {away}")
    up = [endpoint for endpoint in connected if endpoint.engine_up]
    if up:
        return Decision(reasons.REACHABLE, Verdict.TRUE, reasons.ENGINES_UP, f"{len(up)} of {len(watched)} engines answer")
    down = [endpoint.id for endpoint in connected if endpoint.engine_up is False]
    if down:
        return Decision(reasons.REACHABLE, Verdict.FALSE, reasons.ENGINE_DOWN, f"The engine does not answer at {names(down)}")
    return Decision(reasons.REACHABLE, Verdict.UNKNOWN, reasons.LOAD_UNKNOWN, "No sidecar has reported lately")


def _by_traffic(facts: BackendFacts) -> Decision:
    if facts.recent_requests < MIN_REQUESTS_TO_JUDGE:
        return Decision(reasons.REACHABLE, Verdict.UNKNOWN, reasons.NO_TRAFFIC, "Too few requests lately to tell")
    # Whole tens, so that the message does not change with every report.
    if facts.error_ratio >= FAILING_RATIO:
        percent = round(facts.error_ratio * 10) * 10
        text = f"About {percent} % of the recent requests failed"
        return Decision(reasons.REACHABLE, Verdict.FALSE, reasons.REQUESTS_FAIL, text)
    return Decision(reasons.REACHABLE, Verdict.TRUE, reasons.REQUESTS_SUCCEED, "Recent requests were answered")


def saturated(facts: BackendFacts) -> Decision:
    """Whether the backend is over the bound; once over, it is so until the pressure is below `low_pressure`."""
    if facts.pressure is None:
        return Decision(reasons.SATURATED, Verdict.UNKNOWN, reasons.LOAD_UNKNOWN, "No fresh load report")
    bound = facts.low_pressure if facts.was_saturated else 1.0
    if facts.pressure > bound:
        return Decision(reasons.SATURATED, Verdict.TRUE, reasons.OVER_BOUND, "Requests wait, or nearly all slots are taken")
    return Decision(reasons.SATURATED, Verdict.FALSE, reasons.BELOW_BOUND, "There is room")


_SCALING_TEXTS: Final = {
    reasons.STEADY: "The load takes as many",
    reasons.RAISED: "The load takes more",
    reasons.PANIC: "The load takes twice as many, or did just now",
    reasons.LOWERED: "The load takes fewer",
    reasons.DELAYED: "The load takes fewer; fewer there will be when it has for long enough",
    reasons.FROM_ZERO: "Requests wait for the first",
    reasons.IDLE: "Nobody has asked for anything for as long as idleAfter; the next request starts one",
    reasons.AT_LEAST: "The fewest of this moment; the load takes fewer",
    reasons.AT_MOST: "The most of this moment; the load takes more: raise maxReplicas, or let requests spill",
    reasons.SCALING_LIMITED: "spec.scaling.behavior allows no more change for now",
    reasons.PINNED: "As spec.scaling.replicas says; remove it to follow the load",
    reasons.NO_DATA: "Nothing was measured, so what there is stays: see that proxies are connected, and that replicas have had some load",
    reasons.TARGET_UNKNOWN: "The target has not been read yet",
    reasons.TARGET_NOT_FOUND: "There is no such target: make it, or name another in spec.scaling.targetRef",
    reasons.TARGET_FORBIDDEN: "The operator may not read or set the target's scale: allow it in its ClusterRole",
    reasons.TARGET_TAKEN: "Another ModelBackend scales the same target: leave scaling to one of them",
    reasons.SCALE_FAILED: "The target's scale could not be set; it is tried again",
    reasons.CONFLICTING_AUTOSCALER: "Another autoscaler sets the target's replicas: remove it, or spec.scaling here",
}


def scaling_active(facts: BackendFacts) -> Decision | None:
    """Whether the replicas follow the load, and why there are so many; None where there is nothing to scale."""
    found = facts.scaling
    if found is None:
        return None
    text = _SCALING_TEXTS.get(found.reason, found.reason)
    if found.note:
        text = f"{text} ({found.note})"
    if found.active:
        return Decision(reasons.SCALING_ACTIVE, Verdict.TRUE, found.reason, f"{found.desired} replicas. {text}")
    return Decision(reasons.SCALING_ACTIVE, Verdict.FALSE, found.reason, text)


def injected(facts: BackendFacts) -> Decision | None:
    """Which pods have no sidecar; None where there is nothing to say."""
    bare = [endpoint.id for endpoint in facts.endpoints if not endpoint.inbound]
    if not facts.in_pods or not bare:
        return None
    text = f"No sidecar in {names(bare)}: nothing limits or measures what is sent there; label the pods for injection and make them anew"
    return Decision(reasons.INJECTED, Verdict.FALSE, reasons.SIDECAR_MISSING, text)
