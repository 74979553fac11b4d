"""Golden documents of v1alpha1: what a release says, every later one understands.

The files are never edited once released; a version that adds fields gets documents beside them. The values here have no
defaults in them, so that a field which is renamed or dropped shows.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from spillway_wire.loads import TTFT_BUCKETS_SECONDS, BackendTraffic, ClusterProblem, Demand, Diversion, Load, RouteErrors
from spillway_wire.messages import (
    Ack,
    Bye,
    EndpointRemoval,
    Fault,
    Hello,
    Nack,
    Node,
    Ping,
    Pong,
    Report,
    ResourceName,
    Update,
    decode_from_operator,
    decode_from_proxy,
    encode,
)
from spillway_wire.names import DiversionCause, Provider, RequestType, Role
from spillway_wire.snapshot import (
    BackendRef,
    Cluster,
    Endpoint,
    Endpoints,
    External,
    Fallback,
    HeaderMatch,
    Health,
    Limits,
    Match,
    Resource,
    Retries,
    Route,
    Rule,
    RuleWeights,
    SecretKeyRef,
    Spill,
    Timeouts,
    TokenRange,
    Weights,
    decode_resource,
    encode_resource,
)

GOLDEN = Path(__file__).parent / "golden" / "v1alpha1"

RESOURCES: dict[str, Resource] = {
    "route": Route(
        name="ml/chat",
        models=("llama-70b", "chat"),
        rules=(
            Rule(
                name="long",
                matches=(
                    Match(
                        request_types=(RequestType.CHAT, RequestType.COMPLETIONS),
                        headers=(HeaderMatch(name="x-tier", value="gold"),),
                        prompt_tokens=TokenRange(min=4000, max=100_000),
                    ),
                ),
                backends=(
                    BackendRef(cluster="ml/big", priority=1, weight=90, model_override="meta-llama/Llama-3.3-70B"),
                    BackendRef(cluster="ml/cloud", priority=2, weight=10),
                ),
            ),
            Rule(name="rest", backends=(BackendRef(cluster="ml/big"),)),
        ),
        generation=7,
        timeouts=Timeouts(first_token_seconds=30.0, stream_idle_seconds=20.0, request_seconds=300.0),
        retries=Retries(max_attempts=3, budget_percent=20),
    ),
    "route_patience": Route(
        name="ml/patient",
        models=("m",),
        rules=(Rule(name="all", backends=(BackendRef(cluster="ml/big"),)),),
        timeouts=Timeouts(connect_seconds=1.5, admission_seconds=0.25),
        retries=Retries(hedge_percent=5, continue_streams=True),
    ),
    "route_conditions": Route(
        name="ml/spilling",
        models=("m",),
        rules=(
            Rule(
                name="all",
                backends=(BackendRef(cluster="ml/big"), BackendRef(cluster="ml/cloud", priority=1)),
                fallback=Fallback(error_rate_percent=5, latency_p95_seconds=3.0),
                spill=Spill(max_wait_seconds=2.5),
            ),
        ),
    ),
    "cluster": Cluster(
        name="ml/big",
        provider=Provider.VLLM,
        model="llama-70b",
        capabilities=(RequestType.CHAT, RequestType.EMBEDDINGS),
        limits=Limits(max_concurrency=64, max_queue=32),
        health=Health(path="/healthz", interval_seconds=2.5, timeout_seconds=0.5),
    ),
    "cluster_external": Cluster(
        name="ml/cloud",
        provider=Provider.OPENAI_COMPATIBLE,
        model="gpt-x",
        external=External(
            host="api.example.com", port=8443, tls=False, path_prefix="/openai/v1", auth=SecretKeyRef(name="cloud", key="token")
        ),
    ),
    "cluster_held": Cluster(name="ml/asleep", provider=Provider.SGLANG, model="m", hold_seconds=120.5),
    "endpoints": Endpoints(
        name="ml/big",
        endpoints=(
            Endpoint(id="big-0", host="10.0.0.1", port=8000, inbound=True, draining=True),
            Endpoint(id="big-1", host="10.0.0.2", port=8001),
        ),
    ),
    "weights": Weights(name="ml/chat", rules=(RuleWeights(rule="long", weights={"ml/big": 72.5, "ml/cloud": 0.0}),)),
}

FROM_PROXY: dict[str, Hello | Ack | Nack | Report | Pong | Bye] = {
    "hello": Hello(
        node=Node(id="big-0", role=Role.SIDECAR, boot_id="5f3a", namespace="ml", pod="big-0", version="0.1.0"),
        resume_version="1790000000000.41",
    ),
    "ack": Ack(version="1790000000000.42", nonce="17"),
    "nack": Nack(
        version="1790000000000.41",
        nonce="17",
        errors=(Fault(path="route/ml/chat.rules[0].backends[1].cluster", reason="DanglingReference", message="there is none"),),
    ),
    "report": Report(
        boot_id="5f3a",
        sequence=9,
        load=Load(
            in_flight=5,
            queued=2,
            in_flight_tokens=12_000,
            max_concurrency=64,
            tokens_per_second=850.5,
            engine_up=False,
            draining=True,
            engine_waiting=3,
            engine_running=4,
            kv_cache_ratio=0.5,
            gpu_ratio=0.75,
            gpu_memory_ratio=0.875,
        ),
        traffic=(
            BackendTraffic(
                route="ml/chat",
                rule="long",
                cluster="ml/big",
                requests=10,
                errors=1,
                retries=2,
                input_tokens=50_000,
                output_tokens=2_000,
                ttft=tuple(range(len(TTFT_BUCKETS_SECONDS) + 1)),
            ),
        ),
        refused=(RouteErrors(route="ml/chat", requests=3),),
        demand=(Demand(cluster="ml/big", in_flight=6, in_flight_tokens=9_000),),
        problems=(ClusterProblem(cluster="ml/cloud", reason="SecretMissing", message="no key token in secret cloud"),),
    ),
    "report_diversions": Report(
        boot_id="5f3a",
        sequence=10,
        diversions=(
            Diversion(
                route="ml/spilling", rule="all", priority=0, cause=DiversionCause.WAIT, message="predicted wait 3.1 s > 2.5 s"
            ),
        ),
    ),
    "report_held": Report(
        boot_id="5f3a",
        sequence=11,
        demand=(Demand(cluster="ml/asleep", held=200, held_tokens=160_000, arrived_tokens=170_000),),
    ),
    "pong": Pong(id=3),
    "bye": Bye(reason="SIGTERM", draining=False),
}

PING = Ping(id=3, routers=12)


def read(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes()


def with_unknown_fields(node: Any) -> Any:
    """The document as a later release might send it: something new in every object that has fields (not in maps)."""
    if isinstance(node, dict):
        grown = {name: with_unknown_fields(value) if name != "weights" else value for name, value in node.items()}
        return {"added_later": {"deep": [1]}, **grown}
    return [with_unknown_fields(item) for item in node] if isinstance(node, list) else node


def as_if_newer(frame: bytes) -> bytes:
    return json.dumps(with_unknown_fields(json.loads(frame))).encode()


def holds(written: Any, golden: Any) -> bool:
    """Whether all of a golden document is in what is written today, which may say more."""
    if isinstance(golden, dict):
        return isinstance(written, dict) and all(name in written and holds(written[name], value) for name, value in golden.items())
    if isinstance(golden, list):
        return isinstance(written, list) and len(written) == len(golden) and all(map(holds, written, golden))
    return bool(written == golden)


def test_every_golden_document_is_read_here() -> None:
    """No document is left over, none is missing."""
    assert {path.stem for path in GOLDEN.glob("*.json")} == {*RESOURCES, *FROM_PROXY, "ping", "update"}


@pytest.mark.parametrize("name", RESOURCES)
def test_resources(name: str) -> None:
    """Each resource reads as it was meant, with and without fields of a later release; ours say the same."""
    assert decode_resource(read(name)) == RESOURCES[name]
    assert decode_resource(as_if_newer(read(name))) == RESOURCES[name]
    assert holds(json.loads(encode_resource(RESOURCES[name])), json.loads(read(name)))


@pytest.mark.parametrize("name", FROM_PROXY)
def test_messages_from_a_proxy(name: str) -> None:
    """An operator understands the proxies of an earlier and of a later release."""
    assert decode_from_proxy(read(name)) == FROM_PROXY[name]
    assert decode_from_proxy(as_if_newer(read(name))) == FROM_PROXY[name]
    assert holds(json.loads(encode(FROM_PROXY[name])), json.loads(read(name)))


def test_ping() -> None:
    """A proxy understands a ping."""
    assert decode_from_operator(read("ping")) == decode_from_operator(as_if_newer(read("ping"))) == PING


@pytest.mark.parametrize("change", [bytes, as_if_newer])
def test_update(change: Any) -> None:
    """A proxy understands an update and each resource in it."""
    update = decode_from_operator(change(read("update")))
    assert isinstance(update, Update)
    assert tuple(decode_resource(raw) for raw in update.resources) == (
        RESOURCES["route"],
        RESOURCES["cluster"],
        RESOURCES["cluster_external"],
        RESOURCES["endpoints"],
        RESOURCES["weights"],
    )
    assert msgspec.structs.replace(update, resources=()) == Update(
        version="1790000000000.42",
        nonce="17",
        epoch=1_790_000_000_000,
        removed=(ResourceName(kind="cluster", name="ml/old"),),
        removed_endpoints=(EndpointRemoval(cluster="ml/big", ids=("big-2", "big-3")),),
        base="1790000000000.41",
        full=False,
        settled=False,
        routers=12,
    )


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [("endpoints", "name", ""), ("weights", "rules", [{"rule": "long", "weights": {"ml/big": -1}}]), ("route", "models", [])],
)
def test_values_out_of_bounds_are_refused(name: str, field: str, value: Any) -> None:
    """Bounds are part of the contract."""
    with pytest.raises(msgspec.ValidationError):
        decode_resource(json.dumps({**json.loads(read(name)), field: value}).encode())


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999", "-1"])
def test_weights_that_are_not_finite_or_negative_do_not_decode(number: str) -> None:
    """JSON has no NaN, and what overflows a double is refused too."""
    with pytest.raises(msgspec.DecodeError):
        decode_resource(read("weights").replace(b"72.5", number.encode()))
