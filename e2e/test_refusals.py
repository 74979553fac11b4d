"""What the API server refuses, and what the user who applied it is told: every rule of the schema, with an example."""

from typing import Any

import pytest
from e2e.kubectl import Kubectl
from tests.fakes import resources

from spillway_operator.api.durations import RANGE_MESSAGE
from spillway_operator.api.schema import KINDS

Document = dict[str, Any]
CHAT = [{"requestTypes": ["Chat"]}]
WEIGHTLESS = [{"name": "a", "weight": 0}, {"name": "b", "weight": 0}, {"name": "c", "priority": 1}]


def with_rules(*rules: Document) -> Document:
    return resources.route(rules=list(rules))


def with_match(match: Document) -> Document:
    return with_rules(resources.rule("all", matches=[match]))


# Each breaks the rule that it stands under, and no other.
EXAMPLES: dict[tuple[str, str], Document] = {
    ("ModelBackend", "one-place"): resources.backend(service={"name": "llama", "port": 80}),
    ("ModelBackend", "health-needs-pods"): resources.external(health={"path": "/health"}),
    ("ModelBackend", "queue-needs-pods"): resources.external(limits={"maxQueue": 1}),
    ("ModelBackend", "external-speaks-openai"): resources.backend(
        pods=None, provider="TGI", external={"url": "https://api.example.com/v1"}
    ),
    ("ModelBackend", "label-keys"): resources.backend(pods={"selector": {"matchLabels": {"a b": "c"}}, "port": 1}),
    ("ModelBackend", "url-scheme"): resources.external("api.example.com/v1"),
    ("ModelBackend", "url-without-user"): resources.external("https://key@api.example.com/v1"),
    ("ModelBackend", "url-without-query"): resources.external("https://api.example.com/v1?version=1"),
    ("ModelBackend", "url-form"): resources.external("https://api.example.com:0/v1"),
    ("ModelRoute", "unique-rule-names"): with_rules(resources.rule("a", matches=CHAT), resources.rule("a")),
    ("ModelRoute", "rest-is-last"): with_rules(resources.rule("a"), resources.rule("b")),
    ("ModelRoute", "some-weight"): with_rules(resources.rule("a", *WEIGHTLESS)),
    ("ModelRoute", "match-says-something"): with_match({"headers": []}),
    ("ModelRoute", "range-has-an-end"): with_match({"promptTokens": {}}),
    ("ModelRoute", "range-is-forward"): with_match({"promptTokens": {"min": 2, "max": 1}}),
}
RULES = {(kind, rule.name): rule for kind in KINDS for rule in KINDS[kind].rules}


def test_each_rule_has_an_example() -> None:
    assert set(EXAMPLES) == set(RULES)


@pytest.mark.parametrize(("kind", "name"), EXAMPLES, ids=lambda value: value)
def test_a_broken_rule_is_refused_with_its_message(ours: Kubectl, kind: str, name: str) -> None:
    document = EXAMPLES[kind, name]
    for how in ("--server-side", "--server-side=false"):
        said = ours.said("apply", how, "--filename=-", given=document)
        assert said.code == 1
        messages = [line for line in said.err.splitlines() if "Invalid value" in line]
        assert len(messages) == 1, said.err
        assert messages[0].endswith(RULES[kind, name].message), said.err
        assert f'The {kind} "{document["metadata"]["name"]}" is invalid' in said.err


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (resources.route(timeouts={"request": "25h"}), RANGE_MESSAGE),
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
    assert RULES["ModelBackend", "external-speaks-openai"].message in said.err
    assert "external" not in ours.get("modelbackend", "fast")["spec"]
