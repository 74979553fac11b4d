"""Which pods get a sidecar, before which port, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.unit.injection.pods import CONFIG, noted, pod

from spillway_operator.injection import BackendPods, Engine, Outcome, decide, injected
from spillway_operator.injection.pods import matches

LLAMA = BackendPods("llama", (("app", "llama"),), 8001)


def test_a_labelled_pod_gets_one_before_its_only_port() -> None:
    assert decide(pod(), "ml", CONFIG).engine == Engine(0, 8000)


@pytest.mark.parametrize("label", [None, "True", "yes", ""])
def test_a_pod_that_does_not_ask_gets_none_and_no_word(label: str | None) -> None:
    made = pod()
    made["metadata"]["labels"] = {} if label is None else {"spillway.dev/inject": label}
    decision = decide(made, "ml", CONFIG)
    assert (decision.outcome, decision.engine, decision.warning) == (Outcome.NOT_ASKED, None, "")
    assert decide(made, "ml", CONFIG, by_hand=True).engine is not None, "who does it by hand asks"


def test_a_pod_that_refuses_gets_none_also_by_hand() -> None:
    made = pod()
    made["metadata"]["labels"]["spillway.dev/inject"] = "false"
    assert decide(made, "ml", CONFIG, by_hand=True).outcome is Outcome.REFUSED


@pytest.mark.parametrize("namespace", ["spillway-system", "kube-system", "kube-public", "kube-node-lease"])
def test_never_in_our_own_namespace_nor_in_those_of_kubernetes(namespace: str) -> None:
    assert decide(pod(), namespace, CONFIG).outcome is Outcome.EXCLUDED_NAMESPACE
    assert decide(pod(), namespace, CONFIG, by_hand=True).outcome is Outcome.EXCLUDED_NAMESPACE


@pytest.mark.parametrize(
    ("spec", "outcome", "words"),
    [
        ({"hostNetwork": True}, Outcome.HOST_NETWORK, "hostNetwork"),
        ({"os": {"name": "windows"}}, Outcome.NOT_LINUX, "Linux"),
        ({"containers": []}, Outcome.NO_CONTAINER, "containers"),
        ({"containers": [{"name": "a"}]}, Outcome.NO_PORT, "spillway.dev/engine-port"),
        ({"containers": [{"name": "a", "ports": [{"containerPort": 1}, {"containerPort": 2}]}]}, Outcome.NO_PORT, "containerPort"),
        ({"containers": [{"name": "a", "ports": [{"containerPort": 19081}]}]}, Outcome.PORT_TAKEN, "19081"),
    ],
)
def test_what_cannot_be_injected_is_left_alone_and_says_why(spec: dict[str, Any], outcome: Outcome, words: str) -> None:
    decision = decide(pod(**spec), "ml", CONFIG)
    assert decision.outcome is outcome
    assert decision.engine is None
    assert words in decision.warning


def test_the_engines_port_comes_from_the_annotation_then_the_backend_then_the_container() -> None:
    made = pod()
    assert decide(made, "ml", CONFIG, [LLAMA]).engine == Engine(0, 8001)
    assert decide(made, "ml", CONFIG, [BackendPods("other", (("app", "other"),), 9)]).engine == Engine(0, 8000)
    assert decide(noted(made, engine_port="8002"), "ml", CONFIG, [LLAMA]).engine == Engine(0, 8002)


@pytest.mark.parametrize("text", ["0", "65536", "http", "-1", "", "999999999999", "\u0668\u0660\u0660\u0660"])
def test_an_annotation_that_is_no_port_is_not_guessed_around(text: str) -> None:
    assert decide(noted(pod(), engine_port=text), "ml", CONFIG, [LLAMA]).outcome is Outcome.NO_PORT


def test_backends_that_disagree_leave_the_port_open() -> None:
    assert decide(pod(), "ml", CONFIG, [LLAMA, replace(LLAMA, name="b", port=1)]).outcome is Outcome.NO_PORT
    assert decide(pod(), "ml", CONFIG, [LLAMA, replace(LLAMA, name="b")]).engine == Engine(0, 8001)


def test_the_engines_container_is_the_one_that_has_the_port_or_is_named() -> None:
    two = [{"name": "web", "ports": [{"containerPort": 80}]}, {"name": "engine", "ports": [{"containerPort": 8001}]}]
    assert decide(pod(containers=two), "ml", CONFIG, [LLAMA]).engine == Engine(1, 8001)
    assert decide(noted(pod(containers=two), engine_container="engine"), "ml", CONFIG).engine == Engine(1, 8001)
    assert decide(noted(pod(containers=two), engine_container="gone"), "ml", CONFIG).outcome is Outcome.NO_CONTAINER


def test_a_pod_with_a_sidecar_keeps_it() -> None:
    by_hand = pod()
    by_hand["spec"]["containers"].append({"name": "proxy", "ports": [{"name": "spillway", "containerPort": 7000}]})
    assert decide(by_hand, "ml", CONFIG).outcome is Outcome.HAS_SIDECAR
    assert decide(by_hand, "ml", CONFIG, by_hand=True).outcome is Outcome.HAS_SIDECAR
    older = injected(pod(), Engine(0, 8000), replace(CONFIG, image="spillway-sidecar:0"))
    assert decide(older, "ml", CONFIG).outcome is Outcome.HAS_SIDECAR
    assert decide(older, "ml", CONFIG, by_hand=True).outcome is Outcome.INJECTED, "by hand it is renewed"


def test_no_labels_select_no_pod() -> None:
    assert not matches((), pod())
    assert not matches((("app", "llama"), ("tier", "x")), pod())
