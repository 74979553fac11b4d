"""What the API server refuses, and what the user who applied it is told: every rule of the schema, with an example."""

import pytest
from e2e.kubectl import Kubectl
from tests.fakes import resources
from tests.fakes.refusals import EXAMPLES, broken_by
from tests.fakes.resources import Document

EXAMPLE_IDS = [f"{one.kind} {one.path}: {one.message[:40]}" for example in EXAMPLES for one in broken_by(example)]


def with_rules(*rules: Document) -> Document:
    return resources.route(rules=list(rules))


@pytest.mark.parametrize("document", EXAMPLES, ids=EXAMPLE_IDS)
def test_a_broken_rule_is_refused_with_its_message(ours: Kubectl, document: Document) -> None:
    """`tests/contract` sees to it that each rule has its example."""
    (broken,) = broken_by(document)
    for how in ("--server-side", "--server-side=false"):
        said = ours.said("apply", how, "--filename=-", given=document)
        assert said.code == 1
        messages = [line for line in said.err.splitlines() if "Invalid value" in line]
        assert len(messages) == 1, said.err
        assert messages[0].endswith(broken.message), said.err
        assert f'The {broken.kind} "{document["metadata"]["name"]}" is invalid' in said.err
    print(messages[0])


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (resources.route(timeouts={"request": "10"}), "spec.timeouts.request in body should match"),
        (resources.backend(provider="vllm"), 'Unsupported value: "vllm": supported values: "VLLM"'),
        (resources.backend(model=None), "spec.model: Required value"),
        (resources.route(models=["a", "a"]), '.spec.models: duplicate entries for key [="a"]'),
        (
            with_rules(resources.rule("a", {"name": "x"}, {"name": "x"})),
            '.spec.rules[0].backendRefs: duplicate entries for key [name="x"]',
        ),
        (with_rules(resources.rule("a", {"name": "other/fast"})), "spec.rules[0].backendRefs[0].name in body should match"),
        (with_rules(resources.rule("a", {"name": "fast", "namespace": "other"})), "field not declared in schema"),
        (resources.route(modles=["a"]), ".spec.modles: field not declared in schema"),
    ],
)
def test_what_the_schema_does_not_have_is_refused(ours: Kubectl, document: Document, words: str) -> None:
    said = ours.said("apply", "--server-side", "--filename=-", given=document)
    assert said.code == 1
    assert words in said.err


def test_an_update_is_held_to_the_rules_too(ours: Kubectl) -> None:
    ours.apply(resources.backend("fast"))
    patch = '{"spec": {"pods": null, "external": {"url": "https://api.example.com"}}}'
    said = ours.said("patch", "modelbackend", "fast", "--type=merge", f"--patch={patch}")
    assert said.code == 1
    assert "an external server is spoken to in OpenAI style: set provider to OpenAICompatible" in said.err
    assert "external" not in ours.get("modelbackend", "fast")["spec"]
