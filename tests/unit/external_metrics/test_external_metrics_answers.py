"""The external metrics API: values by selector, numbers as Kubernetes writes them, and an error where a figure is missing."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.external_metrics.answers import RefusedError, matcher, quantity, resources, values
from spillway_operator.external_metrics.front_proxy import FrontProxy, front_proxy
from spillway_operator.reconcile.signals import SIGNALS, Signals

MOMENT = datetime(2026, 1, 31, 12, 0, 0, tzinfo=UTC)
WAITING = "spillway_operator_backend_waiting_requests"
GPU = "spillway_operator_backend_gpu_utilization_ratio"
FAST = Signals("ml/fast", {WAITING: 7.0, GPU: 0.915})
SLOW = Signals("ml/slow", {WAITING: 0.0})
LOST = Signals("ml/lost", {}, "1 of 3 replicas of ml/lost report their load")


def test_the_values_of_those_that_are_meant():
    assert values(WAITING, "backend=fast", [FAST, SLOW, LOST], MOMENT) == {
        "kind": "ExternalMetricValueList",
        "apiVersion": "external.metrics.k8s.io/v1beta1",
        "metadata": {},
        "items": [{"metricName": WAITING, "metricLabels": {"backend": "fast"}, "timestamp": "2026-01-31T12:00:00Z", "value": "7"}],
    }
    both = values(WAITING, "backend in (fast, slow)", [FAST, SLOW, LOST], MOMENT)["items"]
    assert [item["value"] for item in both] == ["7", "0"]
    assert values(GPU, "", [FAST, SLOW], MOMENT)["items"][0]["value"] == "915m"
    assert values(WAITING, "backend=another", [FAST], MOMENT)["items"] == [], "which an autoscaler takes for an error"


@pytest.mark.parametrize(
    ("metric", "selector", "status", "message"),
    [
        (WAITING, "backend=lost", 503, "1 of 3 replicas of ml/lost report their load"),
        (WAITING, "", 503, "1 of 3 replicas of ml/lost report their load"),
        (GPU, "backend=slow", 503, f"{GPU} of ml/slow is not known"),
        ("requests", "", 404, "there is no metric requests"),
        (WAITING, "backend=(", 400, "is no label selector"),
    ],
)
def test_what_is_missing_is_an_error_and_not_a_zero(metric: str, selector: str, status: int, message: str):
    with pytest.raises(RefusedError, match=message.replace("(", r"\(")) as refused:
        values(metric, selector, [FAST, SLOW, LOST], MOMENT)
    document = refused.value.document
    assert (document["kind"], document["status"], document["code"], refused.value.status) == ("Status", "Failure", status, status)


@pytest.mark.parametrize(
    ("selector", "means"),
    [
        ("", True),
        ("a=1", True),
        ("a==1,b = 2", True),
        ("a!=1", False),
        ("c!=1", True),
        ("a in (0, 1)", True),
        ("a notin (0,1)", False),
        ("a,!c", True),
        ("!a", False),
        ("c", False),
        ("a in (1),b=3", False),
    ],
)
def test_selectors(selector: str, means: bool):
    assert matcher(selector)({"a": "1", "b": "2"}) is means


@given(st.text(max_size=30))
def test_any_text_is_a_selector_or_is_refused(text: str):
    with contextlib.suppress(RefusedError):
        matcher(text)({"backend": "fast"})


@given(st.floats(0, 1e9))
def test_numbers_are_right_to_a_thousandth(value: float):
    text = quantity(value)
    read = Decimal(text[:-1]) / 1000 if text.endswith("m") else Decimal(text)
    assert abs(read - Decimal(value)) <= Decimal("0.00051")


def test_every_figure_is_a_resource():
    assert [each["name"] for each in resources()["resources"]] == list(SIGNALS)


def certificate(name: str) -> dict[str, Any]:
    return {"subject": ((("organizationName", "kubernetes"),), (("commonName", name),))}


def test_who_is_believed():
    found = front_proxy({"data": {"requestheader-client-ca-file": "PEM", "requestheader-allowed-names": '["front-proxy-client"]'}})
    assert found == FrontProxy("PEM", frozenset({"front-proxy-client"}))
    assert found.knows(certificate("front-proxy-client"))
    assert not found.knows(certificate("kubelet"))
    assert not found.knows({"subject": ()})
    assert not found.knows(None)
    anyone = front_proxy({"data": {"requestheader-client-ca-file": "PEM", "requestheader-allowed-names": "[]"}})
    assert anyone.knows(certificate("kubelet"))
    assert not anyone.knows(None)


@pytest.mark.parametrize("data", [None, {}, {"requestheader-client-ca-file": "PEM", "requestheader-allowed-names": '"x"'}])
def test_a_cluster_that_names_nobody_lets_nobody_be_believed(data: Any):
    with pytest.raises(ValueError, match=r"front proxies|no list"):
        front_proxy({"data": data})
