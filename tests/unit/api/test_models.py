"""The models: what they refuse, what they fill in, how they go out again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError
from tests.fakes.resources import backend, external, route, rule

from spillway_operator.api import (
    BackendSummary,
    Condition,
    EndpointCounts,
    ModelBackend,
    ModelRoute,
    ObjectKey,
    ProxyCounts,
    RouteBackend,
    RouteSummary,
    Traffic,
    condition_of,
)
from spillway_operator.api.backend import Address, External
from spillway_operator.api.meta import format_timestamp


def test_pods_get_the_defaults_of_the_sidecar_before_them() -> None:
    spec = ModelBackend.model_validate(backend()).spec
    assert spec.effective_health is not None
    assert (spec.effective_health.path, spec.effective_health.interval.seconds) == ("/health", 5)
    assert spec.effective_max_queue == 128
    assert spec.limits.max_concurrency == 256
    assert len(spec.capabilities) == 3


def test_what_is_declared_wins_over_defaults() -> None:
    spec = ModelBackend.model_validate(backend(health={"path": "/ok"}, limits={"maxQueue": 0})).spec
    assert spec.effective_health is not None
    assert spec.effective_health.path == "/ok"
    assert spec.effective_max_queue == 0


def test_nobody_checks_a_server_outside() -> None:
    assert ModelBackend.model_validate(external()).spec.effective_health is None


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://api.openai.com/v1", Address(tls=True, host="api.openai.com", port=443, path_prefix="/v1")),
        ("http://127.0.0.1:11434/v1/", Address(tls=False, host="127.0.0.1", port=11434, path_prefix="/v1")),
        ("http://[::1]:8000", Address(tls=False, host="::1", port=8000, path_prefix="")),
        ("http://localhost/", Address(tls=False, host="localhost", port=80, path_prefix="")),
    ],
)
def test_a_url_in_its_parts(url: str, address: Address) -> None:
    assert External(url=url).address == address


def test_every_broken_rule_is_named() -> None:
    with pytest.raises(ValidationError) as caught:
        ModelBackend.model_validate(backend(provider="VLLM", pods=None, external={"url": "ftp://a@b"}, health={}))
    (error,) = caught.value.errors()
    for part in ("spec.health: ", "spec.provider: ", "spec.external.url: "):
        assert part in error["msg"]


def test_a_spec_is_frozen_and_closed() -> None:
    made = ModelRoute.model_validate(route())
    with pytest.raises(ValidationError, match="frozen"):
        made.spec.models = ()  # type: ignore[misc]
    with pytest.raises(ValidationError, match="not permitted"):
        ModelRoute.model_validate(route(fallback={}))


def test_fields_of_the_server_are_skipped() -> None:
    document = route()
    document["metadata"] |= {"managedFields": [{}], "generation": 4, "creationTimestamp": "2026-01-02T03:04:05Z", "uid": "u"}
    document["status"] = {"observedGeneration": 3, "ofAnotherRelease": 1}
    made = ModelRoute.model_validate(document)
    assert made.metadata.generation == 4
    assert made.metadata.creation_timestamp == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert made.status.observed_generation == 3
    assert made.key == ObjectKey("ModelRoute", "default", "chat")
    assert str(made.key) == "ModelRoute default/chat"


def test_metadata_goes_out_without_empty_parts() -> None:
    document = ModelRoute.model_validate(route()).to_document()
    assert document["metadata"] == {"name": "chat", "namespace": "default"}
    assert list(document) == ["apiVersion", "kind", "metadata", "spec", "status"]


def test_a_condition_has_kubernetes_time() -> None:
    moment = datetime(2026, 1, 1, 1, 0, 0, 999_999, tzinfo=timezone(timedelta(hours=1)))
    condition = Condition(type="Ready", status="True", reason="Serving", last_transition_time=moment)
    assert condition.model_dump(mode="json", by_alias=True)["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert format_timestamp(moment) == "2026-01-01T00:00:00Z"
    assert condition_of((condition,), "Ready") is condition
    assert condition_of((condition,), "Accepted") is None


@pytest.mark.parametrize(
    "spec",
    [
        {"models": ["a", "a"]},
        {"rules": [rule("a", {"name": "x"}, {"name": "x"})]},
        {"rules": [rule("a", matches=[{"headers": [{"name": "x", "value": "1"}, {"name": "x", "value": "2"}]}])]},
    ],
)
def test_repeats_are_refused(spec: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="listed twice: remove one"):
        ModelRoute.model_validate(route(**spec))


def summary(models: list[str], *backends: RouteBackend, ttft: int | None = None) -> RouteSummary:
    spec = ModelRoute.model_validate(route(models=models)).spec
    return RouteSummary.of(spec, backends, ProxyCounts(synced=2, total=3), Traffic(ttft_p95_milliseconds=ttft))


def test_the_summary_has_what_columns_show() -> None:
    made = summary(
        ["chat", "gpt-4o"],
        RouteBackend(name="a", weight_percent=93, ready=True),
        RouteBackend(name="b", weight_percent=7),
        ttft=310,
    )
    assert made == RouteSummary(models="chat,gpt-4o", backends="1/2", synced="2/3", ttft_p95="310ms", weights="a=93%,b=7%")
    assert BackendSummary.of(EndpointCounts(ready=3, total=4)).endpoints == "3/4"


def test_what_nobody_measured_is_not_shown() -> None:
    assert summary(["chat"]).ttft_p95 == ""


@pytest.mark.parametrize(
    ("models", "shown"),
    [
        (["m" * 40], "m" * 40),
        (["m" * 41], "m" * 37 + "..."),
        (["a" * 20, "b" * 19], "a" * 20 + "," + "b" * 19),
        (["a" * 20, "b" * 20], "a" * 20 + ",+1"),
        (["a" * 50, "b", "c"], "a" * 34 + "...,+2"),
    ],
)
def test_a_list_that_is_too_long_says_how_much_is_left_out(models: list[str], shown: str) -> None:
    assert summary(models).models == shown
    assert len(shown) <= 40
