"""Conditions of a backend."""

from __future__ import annotations

from typing import Any

import pytest

from spillway_operator.policies import backend as policies
from spillway_operator.policies.conditions import Verdict
from spillway_operator.policies.facts import BackendFacts, Complaint, EndpointFacts


def _endpoint(name: str = "a", **fields: Any) -> EndpointFacts:
    return EndpointFacts(**{"id": name, "inbound": True, "connected": True, "engine_up": True, **fields})


UP = _endpoint("up")
DOWN = _endpoint("down", engine_up=False)
AWAY = _endpoint("away", connected=False, engine_up=None)
SILENT = _endpoint("silent", engine_up=None)
LEAVING = _endpoint("leaving", draining=True)
OUTSIDE = _endpoint("outside", inbound=False, connected=False, engine_up=None)


@pytest.mark.parametrize(
    ("endpoint", "ready"),
    [(UP, True), (DOWN, False), (AWAY, False), (SILENT, False), (LEAVING, False), (OUTSIDE, True)],
    ids=lambda value: value.id if isinstance(value, EndpointFacts) else "",
)
def test_which_endpoints_are_ready(endpoint: EndpointFacts, ready: bool):
    assert policies.endpoint_ready(endpoint) is ready


def test_a_good_backend_has_all_its_conditions():
    decisions = policies.decide(BackendFacts(endpoints=(UP,), pressure=0.1))
    assert [(d.type, d.status.value) for d in decisions] == [
        ("Accepted", "True"), ("Ready", "True"), ("Reachable", "True"), ("Saturated", "False"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (BackendFacts(invalid="a.yaml:3: spec.model: missing"), "Invalid"),
        (BackendFacts(in_force=False, refused_host="plain http"), "HostNotAllowed"),
        (BackendFacts(failure="KeyError: x"), "ReconcileFailed"),
        (BackendFacts(invalid="x", refused_host="y", failure="z"), "Invalid"),
    ],
)
def test_why_a_backend_is_not_accepted(facts: BackendFacts, reason: str):
    decision = policies.accepted(facts)
    assert (decision.status, decision.reason) == (Verdict.FALSE, reason)
    assert decision.message


def test_an_invalid_edit_leaves_the_version_in_force_ready():
    facts = BackendFacts(invalid="a typo", endpoints=(UP, DOWN))
    decision = policies.ready(facts)
    assert (decision.status, decision.message) == (Verdict.TRUE, "1 of 2 endpoints ready")
    assert policies.ready_count(facts) == 1


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        (BackendFacts(in_force=False, endpoints=(UP,)), "NotAccepted"),
        (BackendFacts(), "NoEndpoints"),
        (BackendFacts(endpoints=(DOWN, AWAY)), "NoReadyEndpoint"),
        (BackendFacts(endpoints=(OUTSIDE,), complaints=(Complaint("gateway-0", "SecretMissing", "no key"),)), "SecretMissing"),
    ],
)
def test_why_a_backend_is_not_ready(facts: BackendFacts, reason: str):
    decision = policies.ready(facts)
    assert (decision.status, decision.reason) == (Verdict.FALSE, reason)


def test_a_complaint_names_who_says_it():
    complaints = (Complaint("g0", "SecretMissing", "no key"), Complaint("g1", "SecretMissing", "no key"))
    assert policies.ready(BackendFacts(endpoints=(OUTSIDE,), complaints=complaints)).message == "no key (said by g0, g1)"


def test_a_backend_that_one_proxy_cannot_use_is_ready_for_the_others():
    complaints = (Complaint("g1", "SecretMissing", "no key"), Complaint("g1", "SecretMissing", "no other key"))
    facts = BackendFacts(endpoints=(OUTSIDE,), complaints=complaints, proxies=3)
    decision = policies.ready(facts)
    assert (decision.status, decision.reason) == (Verdict.TRUE, "EndpointsReady")
    assert decision.message == "1 of 1 endpoints ready; 1 of 3 proxies cannot use it: no key (said by g1)"
    assert policies.ready_count(facts) == 1


def test_nothing_out_of_force_is_counted_ready():
    assert policies.ready_count(BackendFacts(in_force=False, endpoints=(UP,))) == 0
    complaint = Complaint(node="gateway-0", reason="SecretMissing", message="")
    assert policies.ready_count(BackendFacts(endpoints=(OUTSIDE,), complaints=(complaint,))) == 0


@pytest.mark.parametrize(
    ("facts", "status", "reason"),
    [
        (BackendFacts(endpoints=(UP, DOWN)), Verdict.TRUE, "EnginesUp"),
        (BackendFacts(endpoints=(DOWN, SILENT)), Verdict.FALSE, "EngineDown"),
        (BackendFacts(endpoints=(SILENT,)), Verdict.UNKNOWN, "LoadUnknown"),
        (BackendFacts(endpoints=(AWAY,)), Verdict.UNKNOWN, "SidecarAway"),
        (BackendFacts(endpoints=(OUTSIDE,), recent_requests=4, error_ratio=1.0), Verdict.UNKNOWN, "NoTraffic"),
        (BackendFacts(endpoints=(OUTSIDE,), recent_requests=5, error_ratio=0.5), Verdict.FALSE, "RequestsFail"),
        (BackendFacts(endpoints=(OUTSIDE,), recent_requests=5, error_ratio=0.49), Verdict.TRUE, "RequestsSucceed"),
    ],
)
def test_reachable_is_what_sidecars_say_or_how_requests_fare(facts: BackendFacts, status: Verdict, reason: str):
    decision = policies.reachable(facts)
    assert (decision.status, decision.reason) == (status, reason)


@pytest.mark.parametrize(
    ("pressure", "was", "status"),
    [
        (None, False, Verdict.UNKNOWN),
        (0.9, False, Verdict.FALSE),
        (1.01, False, Verdict.TRUE),
        (0.9, True, Verdict.TRUE),
        (0.7, True, Verdict.FALSE),
    ],
)
def test_saturation_has_a_high_and_a_low_mark(pressure: float | None, was: bool, status: Verdict):
    assert policies.saturated(BackendFacts(pressure=pressure, was_saturated=was)).status is status


def test_pods_without_a_sidecar_are_named():
    facts = BackendFacts(in_pods=True, endpoints=(UP, OUTSIDE))
    last = policies.decide(facts)[-1]
    assert (last.type, last.status, last.reason) == ("Injected", Verdict.FALSE, "SidecarMissing")
    assert "outside" in last.message
    assert "up" not in last.message.split(":")[0]


@pytest.mark.parametrize("facts", [BackendFacts(in_pods=True, endpoints=(UP,)), BackendFacts(endpoints=(OUTSIDE,))])
def test_nothing_is_said_where_none_is_missing(facts: BackendFacts):
    assert "Injected" not in {decision.type for decision in policies.decide(facts)}
