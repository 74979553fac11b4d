"""An AdmissionReview in, an AdmissionReview out, without the network.

The answer is always *allowed*: what cannot be injected is admitted as it is, with a warning that `kubectl` shows. Only a body
that is no review at all is refused, with `NotAReviewError`, since there is no request to answer.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from spillway_operator.injection import BackendPods, InjectionConfig, Operation, Outcome, pod_patch

API_VERSION: Final = "admission.k8s.io/v1"
KIND: Final = "AdmissionReview"
MAX_WARNING_CHARACTERS: Final = 256  # the API server cuts longer ones
FAILED: Final = "failed"

Backends = Callable[[str], Sequence[BackendPods]]


class NotAReviewError(ValueError):
    """The body is no AdmissionReview of a version that we speak: 400."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What to send back, what became of the pod (a metric's label), and the error where we failed."""

    document: dict[str, Any]
    outcome: str
    error: Exception | None = None


def answer(body: bytes, config: InjectionConfig, backends: Backends) -> Answer:
    """The answer to one review. Raises `NotAReviewError`."""
    request = _request(body)
    uid = request["uid"]
    try:
        outcome, operations, warning = _look(request, config, backends)
    except Exception as error:  # noqa: BLE001 - a pod of a shape that we did not think of must still start
        return Answer(_review(uid, [], "spillway: this pod gets no sidecar: the webhook failed on it"), FAILED, error)
    return Answer(_review(uid, operations, warning), outcome)


def _look(request: Mapping[str, Any], config: InjectionConfig, backends: Backends) -> tuple[str, list[Operation], str]:
    pod = request.get("object")
    if request.get("operation") != "CREATE" or request.get("subResource") or not isinstance(pod, Mapping):
        return Outcome.NOT_ASKED, [], ""
    namespace = str(request.get("namespace") or "")
    decision, operations = pod_patch(pod, namespace, config, backends(namespace))
    return decision.outcome, operations, decision.warning


def _request(body: bytes) -> Mapping[str, Any]:
    try:
        review = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise NotAReviewError("the body is not JSON") from error
    if not isinstance(review, Mapping) or (review.get("apiVersion"), review.get("kind")) != (API_VERSION, KIND):
        raise NotAReviewError(f"the body is not an {KIND} of {API_VERSION}")
    request = review.get("request")
    if not isinstance(request, Mapping) or not isinstance(request.get("uid"), str):
        raise NotAReviewError("the review has no request with a uid")
    return request


def _review(uid: str, operations: list[Operation], warning: str) -> dict[str, Any]:
    response: dict[str, Any] = {"uid": uid, "allowed": True}
    if operations:
        response["patchType"] = "JSONPatch"
        response["patch"] = base64.b64encode(msgspec.json.encode(operations)).decode("ascii")
    if warning:
        response["warnings"] = [warning[:MAX_WARNING_CHARACTERS]]
    return {"apiVersion": API_VERSION, "kind": KIND, "response": response}
