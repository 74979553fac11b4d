"""What is read off objects, and the endpoints that are made of it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.fakes import resources

from spillway_operator.api import ModelBackend
from spillway_operator.sources.kubernetes_endpoints import EndpointBook, pod_endpoint, service_endpoints
from spillway_operator.sources.kubernetes_listing import resource_of
from spillway_operator.sources.kubernetes_objects import (
    PodFacts,
    ServiceFacts,
    SliceEndpoint,
    SliceFacts,
    object_facts,
    pod_facts,
    service_facts,
    slice_facts,
)
from spillway_operator.store import BACKEND, ROUTE
from spillway_wire.snapshot import Endpoint


def raw_pod(**status: Any) -> dict[str, Any]:
    return {
        "metadata": {"namespace": "ml", "name": "one", "labels": {"app": "fast"}},
        "spec": {"containers": [{"name": "engine", "ports": [{"containerPort": 8000}]}]},
        "status": {"phase": "Running", "podIP": "10.1.0.1", "conditions": [{"type": "Ready", "status": "True"}], **status},
    }


def test_a_pod_without_a_sidecar():
    facts = pod_facts(raw_pod())
    assert facts == PodFacts(namespace="ml", name="one", labels={"app": "fast"}, ip="10.1.0.1", ready=True)
    assert pod_endpoint(facts, 8000) == Endpoint(id="ml/one", host="10.1.0.1", port=8000)


def test_a_pod_with_a_sidecar_is_asked_at_the_sidecar():
    raw = raw_pod()
    raw["spec"]["initContainers"] = [
        {"name": "p", "restartPolicy": "Always", "ports": [{"name": "spillway", "containerPort": 19080}]}
    ]
    assert pod_endpoint(pod_facts(raw), 8000) == Endpoint(id="ml/one", host="10.1.0.1", port=19080, inbound=True)


@pytest.mark.parametrize("change", [{"conditions": [{"type": "Ready", "status": "False"}]}, {"conditions": None}])
def test_a_pod_that_is_not_ready_is_there_and_takes_nothing(change: dict[str, Any]):
    made = pod_endpoint(pod_facts(raw_pod(**change)), 8000)
    assert made is not None
    assert made.draining


def test_a_pod_that_ends_drains_and_one_that_has_ended_is_none():
    raw = raw_pod()
    raw["metadata"]["deletionTimestamp"] = "2026-01-31T12:00:00Z"
    made = pod_endpoint(pod_facts(raw), 8000)
    assert made is not None
    assert made.draining
    assert pod_endpoint(pod_facts(raw_pod(phase="Succeeded")), 8000) is None
    assert pod_endpoint(pod_facts(raw_pod(podIP="")), 8000) is None


@pytest.mark.parametrize(
    "raw", [{}, {"metadata": None, "spec": 3, "status": []}, {"metadata": {"labels": []}, "endpoints": [1, {}]}]
)
def test_strange_shapes_raise_nothing(raw: dict[str, Any]):
    assert pod_facts(raw).ip == ""
    assert slice_facts(raw).endpoints == ()
    assert service_facts(raw).ports == ()


def listed(*endpoints: SliceEndpoint, name: str = "s", family: str = "IPv4", **ports: int) -> SliceFacts:
    return SliceFacts("ml", name, "web", family, tuple((ports or {"http": 8080}).items()), endpoints)


def at(address: str, *, ready: bool = True, leaving: bool = False, pod: str = "") -> SliceEndpoint:
    return SliceEndpoint(address, ready=ready, leaving=leaving, pod=pod)


WEB = ServiceFacts("ml", "web", ((80, "http"), (90, "metrics")))


def test_a_services_port_leads_to_the_port_of_its_slices():
    found = service_endpoints(80, WEB, [listed(at("10.0.0.1"), at("10.0.0.2", ready=False), http=8080, metrics=9090)], {})
    assert found == (
        Endpoint(id="ml/10.0.0.1:8080", host="10.0.0.1", port=8080),
        Endpoint(id="ml/10.0.0.2:8080", host="10.0.0.2", port=8080, draining=True),
    )
    assert service_endpoints(81, WEB, [listed(at("10.0.0.1"))], {}) == ()


def test_a_slice_with_one_port_needs_no_service():
    assert [each.port for each in service_endpoints(80, None, [listed(at("10.0.0.1"))], {})] == [8080]
    assert service_endpoints(80, None, [listed(at("10.0.0.1"), a=1, b=2)], {}) == ()


def test_a_service_that_leads_to_sidecars_has_them_as_endpoints():
    pods = {"one": PodFacts("ml", "one", inbound_port=19080), "two": PodFacts("ml", "two")}
    found = service_endpoints(80, WEB, [listed(at("10.0.0.1", pod="one"), at("10.0.0.2", pod="two"), http=19080)], pods)
    assert [(each.id, each.inbound) for each in found] == [("ml/10.0.0.2:19080", False), ("ml/one", True)]


def test_one_family_of_addresses_is_used_and_an_endpoint_in_two_slices_counts_once():
    slices = [
        listed(at("fd00::1"), name="six", family="IPv6"),
        listed(at("10.0.0.1", ready=False), name="a"),
        listed(at("10.0.0.1"), name="b"),
    ]
    (one,) = service_endpoints(80, WEB, slices, {})
    assert (one.host, one.draining) == ("10.0.0.1", False)


def in_pods(name: str = "fast", namespace: str = "ml") -> ModelBackend:
    document = resources.backend(name)
    document["metadata"]["namespace"] = namespace
    document["spec"]["pods"]["selector"]["matchLabels"] = {"app": name}
    return ModelBackend.model_validate(document)


def test_only_what_a_change_touches_is_worked_out_again():
    book = EndpointBook()
    book.set_backend(("ml", "fast"), in_pods())
    book.set_backend(("ml", "slow"), in_pods("slow"))
    book.set_backend(("other", "fast"), in_pods(namespace="other"))
    assert len(book.take_touched()) == 3
    pod = PodFacts("ml", "one", {"app": "fast"}, "10.0.0.1", None, ready=True)
    book.set_pod(("ml", "one"), pod)
    assert book.take_touched() == {("ml", "fast")}
    book.set_pod(("ml", "one"), pod)
    assert book.take_touched() == set()
    moved = PodFacts("ml", "one", {"app": "slow"}, "10.0.0.1", None, ready=True)
    book.set_pod(("ml", "one"), moved)
    assert book.take_touched() == {("ml", "fast"), ("ml", "slow")}
    assert [each.id for each in book.endpoints(("ml", "slow")) or ()] == ["ml/one"]
    assert book.endpoints(("ml", "fast")) == ()
    book.set_backend(("ml", "slow"), None)
    assert book.endpoints(("ml", "slow")) is None


def test_a_slice_that_moves_to_another_service_leaves_the_first():
    book = EndpointBook()
    document = resources.backend(pods=None, service={"name": "web", "port": 80})
    document["metadata"]["namespace"] = "ml"
    book.set_backend(("ml", "fast"), ModelBackend.model_validate(document))
    book.set_service(("ml", "web"), WEB)
    book.set_slice(("ml", "s"), listed(at("10.0.0.1")))
    assert len(book.endpoints(("ml", "fast")) or ()) == 1
    book.take_touched()
    book.set_slice(("ml", "s"), SliceFacts("ml", "s", "another", "IPv4", (("http", 1),), (at("10.0.0.1"),)))
    assert book.take_touched() == {("ml", "fast")}
    assert book.endpoints(("ml", "fast")) == ()
    book.set_slice(("ml", "s"), None)
    assert book.info()["slices"] == 0


def raw_route(**changes: Any) -> dict[str, Any]:
    document = resources.route("chat")
    document["metadata"] |= {
        "namespace": "ml", "uid": "u", "generation": 3, "resourceVersion": "77", "creationTimestamp": "2026-01-31T12:00:00Z",
        "managedFields": [{}], "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "x"},
    }  # fmt: skip
    return {**document, **changes}


def test_an_object_becomes_an_entry_that_a_status_does_not_change():
    one = object_facts(ROUTE, raw_route(), None)
    assert one.status is None
    assert one.entry.generation == 3
    assert one.entry.age == ("2026-01-31T12:00:00Z", "", 0)
    assert one.entry.object is not None
    assert one.entry.object.metadata.annotations == {"mine": "x"}
    later = raw_route(status={"observedGeneration": 3, "conditions": []})
    later["metadata"]["resourceVersion"] = "78"
    two = object_facts(ROUTE, later, one.entry)
    assert two.entry == one.entry
    assert two.status is not None


def test_what_passes_the_api_server_and_fails_our_models_keeps_the_last_good_version():
    good = object_facts(ROUTE, raw_route(), None).entry
    newer = raw_route()
    newer["spec"] = {**newer["spec"], "fromTheFuture": True}
    bad = object_facts(ROUTE, newer, good).entry
    assert bad.object is good.object
    assert "fromTheFuture" in str(bad.problems[0])
    assert not str(bad.problems[0]).startswith(":")
    never = object_facts(ROUTE, newer, None).entry
    assert never.object is None
    assert never.problems


def test_a_status_that_we_cannot_have_written_is_none():
    assert object_facts(ROUTE, raw_route(status={"conditions": [{"type": "?"}]}), None).status is None
    backend = resources.backend("fast")
    backend["metadata"]["namespace"] = "ml"
    assert object_facts(BACKEND, {**backend, "status": {}}, None).status is None


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/api/v1/pods", ("Pod", "")),
        ("/api/v1/namespaces/ml/pods", ("Pod", "ml")),
        ("/apis/spillway.dev/v1alpha1/modelroutes", ("ModelRoute", "")),
        ("/apis/discovery.k8s.io/v1/namespaces/ml/endpointslices", ("EndpointSlice", "ml")),
        ("/api/v1/namespaces/ml/pods/one", None),
        ("/apis/metrics.k8s.io/v1/pods", None),
        ("/api/v1", None),
        ("/version", None),
        ("/", None),
    ],
)
def test_which_list_a_request_is_about(path: str, found: tuple[str, str] | None):
    assert resource_of(path) == found
