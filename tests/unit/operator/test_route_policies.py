"""Conditions of a route, claims on model names, and shares of traffic."""

from __future__ import annotations

import pytest

from spillway_operator.policies import route as policies
from spillway_operator.policies.conditions import Verdict
from spillway_operator.policies.facts import Conflict, NodeRefusal, Passed, RefFacts, RefState, RouteFacts, RuleFacts
from spillway_wire.messages import Fault

GOOD = RefFacts("fast", RefState.RESOLVED, ready=True)
IDLE = RefFacts("slow", RefState.RESOLVED)
LOST = RefFacts("nope", RefState.NOT_FOUND)
UNFIT = RefFacts("bad", RefState.NOT_ACCEPTED)
RULE = RuleFacts("all", (GOOD,))


def test_a_good_route_has_all_its_conditions():
    decisions = policies.decide(RouteFacts(rules=(RULE,), synced=("gateway-0",)))
    assert [(d.type, d.status.value) for d in decisions] == [
        ("Accepted", "True"), ("ResolvedRefs", "True"), ("Programmed", "True"), ("Ready", "True"),
    ]  # fmt: skip


def test_a_route_that_never_was_good_says_nothing_about_references():
    decisions = policies.decide(RouteFacts(in_force=False, invalid="a typo"))
    assert [(d.type, d.status.value) for d in decisions] == [("Accepted", "False"), ("Programmed", "False"), ("Ready", "False")]


@pytest.mark.parametrize(
    ("facts", "reason", "said"),
    [
        (RouteFacts(invalid="a.yaml:3: spec.models: empty"), "Invalid", "a.yaml:3"),
        (RouteFacts(conflicts=(Conflict("chat", "elder"),)), "Conflicted", "model chat is claimed by the older route elder"),
        (RouteFacts(failure="KeyError: x"), "ReconcileFailed", "KeyError"),
    ],
)
def test_why_a_route_is_not_accepted(facts: RouteFacts, reason: str, said: str):
    decision = policies.accepted(facts)
    assert (decision.status, decision.reason) == (Verdict.FALSE, reason)
    assert said in decision.message


def test_unresolved_references_are_named_with_their_rule():
    decision = policies.resolved_refs(RouteFacts(rules=(RuleFacts("all", (GOOD, LOST, UNFIT)),)))
    assert (decision.status, decision.reason) == (Verdict.FALSE, "BackendNotFound")
    assert decision.message == "backend nope of rule all: not found"
    decision = policies.resolved_refs(RouteFacts(rules=(RuleFacts("all", (GOOD, UNFIT)),)))
    assert decision.reason == "BackendNotAccepted"


REFUSAL = NodeRefusal("b", Fault(path="route/default/chat.rules[0]", reason="DanglingReference", message="no cluster"))


@pytest.mark.parametrize(
    ("facts", "status", "reason"),
    [
        (RouteFacts(), Verdict.UNKNOWN, "NoProxies"),
        (RouteFacts(in_force=False, synced=("a",)), Verdict.FALSE, "NotAccepted"),
        (RouteFacts(synced=("a",), lagging=("b",)), Verdict.FALSE, "Pending"),
        (RouteFacts(synced=("a",), lagging=("b",), refusals=(REFUSAL,)), Verdict.FALSE, "Rejected"),
        (RouteFacts(synced=("a",)), Verdict.TRUE, "Programmed"),
    ],
)
def test_programmed_needs_every_connected_proxy(facts: RouteFacts, status: Verdict, reason: str):
    decision = policies.programmed(facts)
    assert (decision.status, decision.reason) == (status, reason)


def test_laggards_and_refusals_are_named():
    assert policies.programmed(RouteFacts(synced=("a",), lagging=("b", "c"))).message == "1 of 3 proxies run it; waiting for b, c"
    message = policies.programmed(RouteFacts(lagging=("b",), refusals=(REFUSAL,))).message
    assert message == "Refused by b: route/default/chat.rules[0]: DanglingReference: no cluster"


@pytest.mark.parametrize(
    ("facts", "status", "reason"),
    [
        (RouteFacts(in_force=False, rules=(RULE,), synced=("a",)), Verdict.FALSE, "NotAccepted"),
        (RouteFacts(rules=(RuleFacts("all", (IDLE,)),), synced=("a",)), Verdict.FALSE, "NoReadyBackend"),
        (RouteFacts(rules=(RULE,)), Verdict.FALSE, "NoProxies"),
        (RouteFacts(rules=(RULE,), lagging=("a",)), Verdict.FALSE, "NotProgrammed"),
        (RouteFacts(rules=(RULE,), lagging=("a",), was_ready=True), Verdict.TRUE, "BackendsReady"),
        (RouteFacts(rules=(RULE,), was_ready=True), Verdict.FALSE, "NoProxies"),
        (RouteFacts(rules=(RULE,), synced=("a",), lagging=("b",)), Verdict.TRUE, "BackendsReady"),
    ],
)
def test_ready_needs_somewhere_to_go_and_a_proxy_that_knows(facts: RouteFacts, status: Verdict, reason: str):
    decision = policies.ready(facts)
    assert (decision.status, decision.reason) == (status, reason)


def test_rules_without_a_ready_backend_are_named_though_the_route_is_ready():
    rules = (RULE, RuleFacts("embed", (IDLE,)), RuleFacts("dead", (LOST,)))
    assert policies.ready(RouteFacts(rules=rules, synced=("a",))).message == "No backend is ready for rule embed, dead"


# -- claims


def test_the_older_route_keeps_a_model_and_the_younger_loses_as_a_whole():
    lost = policies.conflicts([(2, "young", ["chat", "other"]), (1, "old", ["chat"])])
    assert lost == {"young": (Conflict("chat", "old"),)}


def test_what_a_loser_claims_is_free_for_the_next():
    lost = policies.conflicts([(1, "a", ["x"]), (2, "b", ["x", "y"]), (3, "c", ["y"])])
    assert list(lost) == ["b"]


def test_the_name_breaks_ties_of_age():
    assert list(policies.conflicts([(1, "b", ["x"]), (1, "a", ["x"])])) == ["b"]


def test_a_loser_is_told_every_model_and_its_holder():
    lost = policies.conflicts([(1, "a", ["x"]), (2, "b", ["y"]), (3, "c", ["x", "y", "z"])])
    assert lost["c"] == (Conflict("x", "a"), Conflict("y", "b"))


def test_nobody_loses_without_an_overlap():
    assert policies.conflicts([(1, "a", ["x"]), (2, "b", ["y"])]) == {}


# -- shares


def test_shares_follow_effective_weights_within_the_lowest_ready_priority():
    rule = RuleFacts(
        "all",
        (
            RefFacts("a", RefState.RESOLVED, ready=True, weight=30.0),
            RefFacts("b", RefState.RESOLVED, ready=True, weight=10.0),
            RefFacts("c", RefState.RESOLVED, ready=True, priority=1),
        ),
    )
    assert policies.backend_shares([rule]) == {"a": (0.75, True, True), "b": (0.25, True, True), "c": (0.0, True, False)}


def test_the_next_priority_takes_over_when_the_first_is_not_ready():
    rule = RuleFacts("all", (RefFacts("a", RefState.RESOLVED), RefFacts("c", RefState.RESOLVED, ready=True, priority=1)))
    assert policies.backend_shares([rule]) == {"a": (0.0, False, False), "c": (1.0, True, True)}


def test_where_none_is_ready_shares_are_those_of_the_first_priority():
    rule = RuleFacts("all", (RefFacts("a", RefState.RESOLVED), RefFacts("c", RefState.RESOLVED, priority=1), LOST))
    assert policies.backend_shares([rule]) == {
        "a": (1.0, False, True), "c": (0.0, False, False), "nope": (0.0, False, False),
    }  # fmt: skip


def test_a_share_is_the_mean_over_rules_that_name_the_backend():
    rules = [RuleFacts("one", (GOOD,)), RuleFacts("two", (GOOD, RefFacts("b", RefState.RESOLVED, ready=True)))]
    assert policies.backend_shares(rules)["fast"][0] == pytest.approx(0.75)


def _three(*passed: Passed) -> RuleFacts:
    refs = tuple(RefFacts(name, RefState.RESOLVED, ready=True, priority=priority) for priority, name in enumerate("abc"))
    return RuleFacts("all", refs, falls_back=True, spills=True, passed=passed)


SPILLED = Passed(0, "PredictedWait", "predicted wait 3.1 s > 2 s", 2)
LEFT = Passed(0, "ErrorRate", "error rate 22 % > 5 %", 1)


def test_a_share_is_what_the_backend_got_where_there_was_traffic():
    shares = policies.backend_shares([_three()], {"a": 30, "b": 10})
    assert shares == {"a": (0.75, True, True), "b": (0.25, True, False), "c": (0.0, True, False)}


@pytest.mark.parametrize(
    ("passed", "active"),
    [
        ((), "a"),
        ((SPILLED,), "ab"),
        ((SPILLED, Passed(1, "PredictedWait", "", 1)), "abc"),
        ((LEFT,), "b"),
        ((LEFT, Passed(1, "PredictedWait", "", 1)), "bc"),
        ((LEFT, Passed(1, "Latency", "", 1)), "c"),
    ],
)
def test_active_is_what_requests_are_sent_to(passed: tuple[Passed, ...], active: str):
    assert "".join(name for name, share in policies.backend_shares([_three(*passed)]).items() if share[2]) == active


def test_where_a_fallback_has_nowhere_to_go_the_first_stays():
    only = RuleFacts(
        "all", (RefFacts("a", RefState.RESOLVED, ready=True), RefFacts("b", RefState.RESOLVED, priority=1)), passed=(LEFT,)
    )
    assert policies.backend_shares([only]) == {"a": (1.0, True, True), "b": (0.0, False, False)}


def test_conditions_of_fallback_and_spill_are_there_where_they_are_declared():
    (*_, fallback, spill) = policies.decide(RouteFacts(rules=(RULE, _three(SPILLED))))
    assert (fallback.type, fallback.status.value, fallback.reason) == ("FallbackActive", "False", "WithinBounds")
    assert (spill.type, spill.status.value, spill.reason) == ("SpillActive", "True", "PredictedWait")
    assert spill.message == "rule all spills past priority 0 (predicted wait 3.1 s > 2 s; on 2 proxies)"
    (*_, fallback, _) = policies.decide(RouteFacts(rules=(_three(LEFT),)))
    assert fallback.message == "rule all leaves priority 0 (error rate 22 % > 5 %)"
    assert {decision.type for decision in policies.decide(RouteFacts(rules=(RULE,)))}.isdisjoint({"FallbackActive", "SpillActive"})


def test_weights_of_zero_share_nothing():
    rule = RuleFacts("all", (RefFacts("a", RefState.RESOLVED, ready=True, weight=0.0),))
    assert policies.backend_shares([rule]) == {"a": (0.0, True, False)}


def test_a_rule_that_goes_by_cost_needs_the_cost_of_each_backend_in_one_currency():
    dollars = RefFacts("a", RefState.RESOLVED, ready=True, currency="USD")
    euros = RefFacts("b", RefState.RESOLVED, ready=True, currency="EUR")
    free = RefFacts("c", RefState.RESOLVED, ready=True)

    def found(*refs: RefFacts, by_cost: bool = True) -> tuple[Verdict, str]:
        decision = policies.resolved_refs(RouteFacts(rules=(RuleFacts("r", refs, by_cost=by_cost),)))
        return decision.status, decision.reason

    assert found(dollars, free) == (Verdict.FALSE, "CostMissing")
    assert found(dollars, euros) == (Verdict.FALSE, "CurrenciesDiffer")
    assert found(dollars, dollars) == (Verdict.TRUE, "ResolvedRefs")
    assert found(dollars, euros, free, by_cost=False) == (Verdict.TRUE, "ResolvedRefs")
