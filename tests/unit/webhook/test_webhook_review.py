"""Reviews in, answers out: never a no, and a patch that makes the pod."""

from __future__ import annotations

import base64
import copy
import json
from typing import Any

import jsonpatch
import pytest
from tests.unit.injection.pods import CONFIG, POD, pod

from spillway_operator.injection import BackendPods, inbound_port
from spillway_operator.webhook.review import NotAReviewError, answer


def nobody(_: str) -> list[BackendPods]:
    return []


def review(made: Any, **request: Any) -> bytes:
    about = {"uid": "u-1", "operation": "CREATE", "namespace": "ml", "object": made, **request}
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": about}).encode()


def patched(response: dict[str, Any]) -> Any:
    assert response["patchType"] == "JSONPatch"
    return jsonpatch.apply_patch(copy.deepcopy(POD), json.loads(base64.b64decode(response["patch"])))


def test_a_pod_that_asks_is_patched() -> None:
    answered = answer(review(POD), CONFIG, nobody)
    assert answered.outcome == "injected"
    assert {key: answered.document[key] for key in ("apiVersion", "kind")} == {
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
    }
    response = answered.document["response"]
    assert (response["uid"], response["allowed"]) == ("u-1", True)
    assert inbound_port(patched(response)) == CONFIG.inbound_port


def test_a_pod_that_was_patched_is_left_at_the_next_call() -> None:
    """An API server asks again when another webhook changed the pod after us."""
    made = patched(answer(review(POD), CONFIG, nobody).document["response"])
    again = answer(review(made), CONFIG, nobody).document["response"]
    assert again == {"uid": "u-1", "allowed": True}


def test_the_backends_of_the_pods_namespace_are_asked_for_its_port() -> None:
    """A pod that is made by a template carries no namespace of its own yet: the request says it."""
    asked: list[str] = []

    def backends(namespace: str) -> list[BackendPods]:
        asked.append(namespace)
        return [BackendPods("llama", (("app", "llama"),), 9000)]

    made = pod()
    del made["metadata"]["namespace"]
    response = answer(review(made), CONFIG, backends).document["response"]
    assert asked == ["ml"]
    assert "9000" in base64.b64decode(response["patch"]).decode()


def test_a_warning_reaches_who_applies_the_pod() -> None:
    answered = answer(review(pod(hostNetwork=True)), CONFIG, nobody)
    assert answered.outcome == "host_network"
    response = answered.document["response"]
    assert response["allowed"]
    assert "patch" not in response
    assert "hostNetwork" in response["warnings"][0]


@pytest.mark.parametrize("request_", [{"operation": "UPDATE"}, {"subResource": "ephemeralcontainers"}, {"object": None}])
def test_only_pods_that_are_made_are_touched(request_: dict[str, Any]) -> None:
    assert answer(review(POD, **request_), CONFIG, nobody).document["response"] == {"uid": "u-1", "allowed": True}


@pytest.mark.parametrize("namespace", ["spillway-system", "kube-system"])
def test_the_request_says_where_the_pod_is_made(namespace: str) -> None:
    assert answer(review(POD, namespace=namespace), CONFIG, nobody).outcome == "excluded_namespace"


def test_whatever_goes_wrong_the_pod_is_admitted() -> None:
    def broken(_: str) -> list[BackendPods]:
        raise RuntimeError("secret detail")

    answered = answer(review(POD), CONFIG, broken)
    assert answered.outcome == "failed"
    assert isinstance(answered.error, RuntimeError)
    assert answered.document["response"]["allowed"]
    assert "secret" not in json.dumps(answered.document)


@pytest.mark.parametrize("env", [3, "x", [None], [3]])
def test_a_pod_of_a_shape_that_the_api_would_refuse_is_its_to_refuse(env: Any) -> None:
    made = pod()
    made["spec"]["containers"][0]["env"] = env
    assert answer(review(made), CONFIG, nobody).document["response"]["allowed"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1beta1", "request": {"uid": "u"}}',
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1"}',
        b'{"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "request": {}}',
    ],
    ids=lambda body: body[:20].decode("latin-1"),
)
def test_what_is_no_review_is_refused(body: bytes) -> None:
    with pytest.raises(NotAReviewError):
        answer(body, CONFIG, nobody)
