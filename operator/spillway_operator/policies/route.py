"""Conditions of a ModelRoute, each one function of the facts, and who holds a model name.

A route whose newest document is invalid stays in force as its last good version: Accepted is False and says what is wrong,
the other conditions speak of the version in force.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from spillway_operator.policies import reasons
from spillway_operator.policies.conditions import Decision, Verdict, names
from spillway_operator.policies.facts import Conflict, RefState, RouteFacts, RuleFacts

_REASON_OF_STATE: Mapping[RefState, str] = {
    RefState.NOT_FOUND: reasons.BACKEND_NOT_FOUND,
    RefState.NOT_ACCEPTED: reasons.BACKEND_NOT_ACCEPTED,
}


def decide(facts: RouteFacts) -> tuple[Decision, ...]:
    """All conditions, in the order they are shown. Of a route without a good version there are no references to speak of."""
    if not facts.rules:
        return (accepted(facts), programmed(facts), ready(facts))
    decisions = [accepted(facts), resolved_refs(facts), programmed(facts), ready(facts)]
    if any(rule.falls_back for rule in facts.rules):
        decisions.append(diverted(facts, reasons.FALLBACK_ACTIVE, "leaves", "No priority is left", spilled=False))
    if any(rule.spills for rule in facts.rules):
        decisions.append(diverted(facts, reasons.SPILL_ACTIVE, "spills past", "No excess goes on", spilled=True))
    return tuple(decisions)


def accepted(facts: RouteFacts) -> Decision:
    """Whether the document is good and its model names are free."""
    if facts.invalid is not None:
        return Decision(reasons.ACCEPTED, Verdict.FALSE, reasons.INVALID, facts.invalid)
    if facts.conflicts:
        held = names(f"model {conflict.model} is claimed by the older route {conflict.holder}" for conflict in facts.conflicts)
        text = f"{held}; remove it here or there"
        return Decision(reasons.ACCEPTED, Verdict.FALSE, reasons.CONFLICTED, text)
    if facts.failure is not None:
        return Decision(reasons.ACCEPTED, Verdict.FALSE, reasons.RECONCILE_FAILED, facts.failure)
    return Decision(reasons.ACCEPTED, Verdict.TRUE, reasons.ACCEPTED, "The route is in use")


def resolved_refs(facts: RouteFacts) -> Decision:
    """Whether every backend reference resolves; those that do are served all the same."""
    for state in (RefState.NOT_FOUND, RefState.NOT_ACCEPTED):
        bad = {ref.backend: rule.name for rule in facts.rules for ref in rule.refs if ref.state is state}
        if bad:
            text = names(f"backend {backend} of rule {rule}" for backend, rule in bad.items())
            return Decision(reasons.RESOLVED_REFS, Verdict.FALSE, _REASON_OF_STATE[state], f"{text}: {state.value}")
    if (lacking := _costs(facts.rules)) is not None:
        return lacking
    return Decision(reasons.RESOLVED_REFS, Verdict.TRUE, reasons.RESOLVED_REFS, "Every backend is found")


def _costs(rules: Iterable[RuleFacts]) -> Decision | None:
    """What hinders rules that go by cost: a backend that declares none counts as an average one, and currencies cannot be compared."""
    for rule in rules:
        if not rule.by_cost:
            continue
        lacking = [ref.backend for ref in rule.refs if ref.currency is None]
        if lacking:
            text = f"Rule {rule.name} goes by Cost, and backend {names(lacking)} declares none: add spec.cost to it"
            return Decision(reasons.RESOLVED_REFS, Verdict.FALSE, reasons.COST_MISSING, text)
        currencies = {str(ref.currency): ref.backend for ref in rule.refs}
        if len(currencies) > 1:
            held = names(f"{backend} in {currency}" for currency, backend in currencies.items())
            text = f"Rule {rule.name} goes by Cost, and its backends declare different currencies: {held}; declare one currency"
            return Decision(reasons.RESOLVED_REFS, Verdict.FALSE, reasons.CURRENCIES_DIFFER, text)
    return None


def programmed(facts: RouteFacts) -> Decision:
    """Whether every connected proxy runs this content."""
    if not facts.in_force:
        return Decision(reasons.PROGRAMMED, Verdict.FALSE, reasons.NOT_ACCEPTED, "See the Accepted condition")
    total = len(facts.synced) + len(facts.lagging)
    if not total:
        return Decision(reasons.PROGRAMMED, Verdict.UNKNOWN, reasons.NO_PROXIES, "No proxy is connected")
    if facts.refusals:
        fault = facts.refusals[0].fault
        who = names(sorted({refusal.node for refusal in facts.refusals}))
        text = f"Refused by {who}: {fault.path}: {fault.reason}: {fault.message}"
        return Decision(reasons.PROGRAMMED, Verdict.FALSE, reasons.REJECTED, text)
    if facts.lagging:
        text = f"{len(facts.synced)} of {total} proxies run it; waiting for {names(facts.lagging)}"
        return Decision(reasons.PROGRAMMED, Verdict.FALSE, reasons.PENDING, text)
    return Decision(reasons.PROGRAMMED, Verdict.TRUE, reasons.PROGRAMMED, "Every connected proxy runs it")


def ready(facts: RouteFacts) -> Decision:
    """Whether a request has somewhere to go: some rule has a ready backend and some proxy runs the route.

    While an edit is on its way to proxies they serve what they had, so a route that was ready stays it.
    """
    if not facts.in_force:
        return Decision(reasons.READY, Verdict.FALSE, reasons.NOT_ACCEPTED, "See the Accepted condition")
    if not any(_serves(rule) for rule in facts.rules):
        return Decision(reasons.READY, Verdict.FALSE, reasons.NO_READY_BACKEND, "No rule has a backend that is ready")
    if not facts.synced and not facts.lagging:
        return Decision(reasons.READY, Verdict.FALSE, reasons.NO_PROXIES, "No proxy is connected")
    if not facts.synced and not facts.was_ready:
        return Decision(reasons.READY, Verdict.FALSE, reasons.NOT_PROGRAMMED, "No proxy runs it yet")
    idle = [rule.name for rule in facts.rules if not _serves(rule)]
    text = f"No backend is ready for rule {names(idle)}" if idle else "Every rule has a ready backend"
    return Decision(reasons.READY, Verdict.TRUE, reasons.BACKENDS_READY, text)


def diverted(facts: RouteFacts, name: str, does: str, rest: str, *, spilled: bool) -> Decision:
    """Whether some proxy sends requests past a priority by `fallback` or by `spill`, and the figures that it began with."""
    found = [(rule.name, passed) for rule in facts.rules for passed in rule.passed if passed.spilled is spilled]
    if not found:
        return Decision(name, Verdict.FALSE, reasons.WITHIN_BOUNDS, rest)
    text = names(
        f"rule {rule} {does} priority {passed.priority} ({passed.message}{f'; on {passed.nodes} proxies' if passed.nodes > 1 else ''})"
        for rule, passed in found
    )
    return Decision(name, Verdict.TRUE, found[0][1].cause, text)


def _serves(rule: RuleFacts) -> bool:
    return any(ref.ready and ref.state is RefState.RESOLVED for ref in rule.refs)


def conflicts(claims: Iterable[tuple[Any, str, Iterable[str]]]) -> dict[str, tuple[Conflict, ...]]:
    """Which routes of one namespace lose model names to older ones: route name -> what it lost, losers only.

    `claims` are (age, name, models), `age` sorting the oldest first; the name breaks ties. A route that loses claims
    nothing, so a third one may hold its other names.
    """
    holders: dict[str, str] = {}
    lost: dict[str, tuple[Conflict, ...]] = {}
    for _, name, models in sorted(claims, key=lambda claim: (claim[0], claim[1])):
        wanted = tuple(models)
        taken = tuple(Conflict(model=model, holder=holders[model]) for model in wanted if model in holders)
        if taken:
            lost[name] = taken
        else:
            holders.update(dict.fromkeys(wanted, name))
    return lost


def backend_shares(rules: Iterable[RuleFacts], routed: Mapping[str, int] | None = None) -> dict[str, tuple[float, bool, bool]]:
    """For each backend of a route: (share of 0..1, ready, active).

    The share is what it got of the requests in `routed`, by backend. Without any it is what it is meant to get: the mean over the rules that
    name it, of its share where rules send to the lowest priority that has a ready backend; where none is ready, the lowest of
    all. Active: it is meant to get some of a rule's traffic, be it the excess of the priority before it.
    """
    shares: dict[str, list[float]] = {}
    is_ready: dict[str, bool] = {}
    active: set[str] = set()
    for rule in rules:
        resolved = [ref for ref in rule.refs if ref.state is RefState.RESOLVED]
        candidates = [ref for ref in resolved if ref.ready] or resolved
        left = {passed.priority for passed in rule.passed if not passed.spilled}
        spilling = {passed.priority for passed in rule.passed if passed.spilled}
        levels = sorted({ref.priority for ref in candidates})
        # What a fallback has left takes nothing, unless there is nothing after it.
        takes = [next((level for level in levels if level not in left), levels[0] if levels else 0)]
        while takes[-1] in spilling and (after := [level for level in levels if level > takes[-1] and level not in left]):
            takes.append(after[0])
        total = sum(ref.weight for ref in candidates if ref.priority == takes[0])
        for ref in rule.refs:
            share = ref.weight / total if ref in candidates and ref.priority == takes[0] and total > 0 else 0.0
            shares.setdefault(ref.backend, []).append(share)
            is_ready[ref.backend] = is_ready.get(ref.backend, False) or ref.ready
            if ref in candidates and ref.priority in takes and ref.weight > 0:
                active.add(ref.backend)
    requests = sum(routed.values()) if routed else 0
    return {
        name: (routed.get(name, 0) / requests if routed and requests else sum(parts) / len(parts), is_ready[name], name in active)
        for name, parts in shares.items()
    }
