"""What a sidecar takes its engine for before a snapshot has said what it is."""

import random

import pytest

from spillway_sidecar.guard import Guard
from spillway_sidecar.settings import parse
from spillway_wire.names import Provider
from spillway_wire.snapshot import Cluster, Endpoint, Endpoints, Health


def guard(**environ: str) -> Guard:
    settings = parse(["--role", "sidecar", "--node-id", "ml/fast-0"], environ)
    return Guard(settings, "boot", lambda: 0.0, random.Random(1))


def test_without_a_path_it_passes_for_up() -> None:
    assert guard().probe._target is None


def test_with_a_path_it_is_asked_from_the_start() -> None:
    """A pod that has just started must not be ready while its engine loads the model."""
    target = guard(SPILLWAY_ENGINE_HEALTH="/v1/ready").probe._target
    assert target is not None
    assert (target.provider, target.health.path) == (Provider.OPENAI_COMPATIBLE, "/v1/ready")


@pytest.mark.parametrize("path", [None, "/v1/ready"])
def test_a_snapshot_has_the_last_word_as_long_as_it_names_the_engine(path: str | None) -> None:
    made = guard(**({"SPILLWAY_ENGINE_HEALTH": path} if path else {}))
    first = made.probe._target
    cluster = Cluster(name="ml/fast", provider=Provider.VLLM, model="m", health=Health(path="/health"))
    endpoints = Endpoints(name="ml/fast", endpoints=(Endpoint(id="ml/fast-0", host="10.0.0.1", port=19080, inbound=True),))
    made.follow({("cluster", "ml/fast"): cluster, ("endpoints", "ml/fast"): endpoints})
    target = made.probe._target
    assert target is not None
    assert (target.provider, target.health.path) == (Provider.VLLM, "/health")
    made.follow({})
    assert made.probe._target == first
