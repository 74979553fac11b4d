"""Rules: where they look, what they do with broken data, how places are written."""

from __future__ import annotations

import pytest
from tests.fakes import resources

from spillway_operator.api import backend, route
from spillway_operator.api.rules import nodes_at, render, violations


def broken(document: resources.Document) -> list[tuple[str, str]]:
    rules = backend.RULES if document["kind"] == "ModelBackend" else route.RULES
    return [(each.rule.name, render(each.location)) for each in violations(rules, document)]


def rules_of(*rules: resources.Document) -> resources.Document:
    made = resources.route(rules=list(rules))
    for rule in rules:
        for ref in rule["backendRefs"]:
            ref.setdefault("priority", 0)
            ref.setdefault("weight", 1)
    return made


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        (resources.backend(), []),
        (resources.backend(pods=None), [("one-place", "spec")]),
        (resources.backend(service={}), [("one-place", "spec.service")]),
        (resources.external(health={}), [("health-needs-pods", "spec.health")]),
        (resources.external(limits={"maxQueue": 1}), [("queue-needs-pods", "spec.limits.maxQueue")]),
        (resources.external() | {"spec": {"provider": "TGI", "external": {}}}, [("external-speaks-openai", "spec.provider")]),
        (resources.external("api.example.com"), [("url-scheme", "spec.external.url")]),
        (resources.external("https://a@b"), [("url-without-user", "spec.external.url")]),
        (resources.external("https://a?b"), [("url-without-query", "spec.external.url")]),
        (resources.external("https://a#b"), [("url-without-query", "spec.external.url")]),
        (resources.external("https://"), [("url-form", "spec.external.url")]),
        (resources.external("https://a:0"), [("url-form", "spec.external.url")]),
        (resources.external("https://a/b\n"), [("url-form", "spec.external.url")]),
        (rules_of(resources.rule("a"), resources.rule("b")), [("rest-is-last", "spec.rules[0]")]),
        (
            rules_of(resources.rule("a", matches=[{"requestTypes": ["Chat"]}]), resources.rule("a")),
            [("unique-rule-names", "spec.rules[1].name")],
        ),
        (
            rules_of(resources.rule("a", {"name": "x", "weight": 0}, {"name": "y", "weight": 0}, {"name": "z", "priority": 1})),
            [("some-weight", "spec.rules[0].backendRefs[0].weight")],
        ),
        (rules_of(resources.rule("a", {"name": "x", "weight": 0}, {"name": "y"})), []),
        (rules_of(resources.rule("a", matches=[{"headers": []}])), [("match-says-something", "spec.rules[0].matches[0]")]),
        (
            rules_of(resources.rule("a", matches=[{"promptTokens": {}}])),
            [("range-has-an-end", "spec.rules[0].matches[0].promptTokens")],
        ),
        (
            rules_of(resources.rule("a", matches=[{"promptTokens": {"min": 2, "max": 1}}])),
            [("range-is-forward", "spec.rules[0].matches[0].promptTokens.min")],
        ),
        (rules_of(resources.rule("a", matches=[{"promptTokens": {"min": 2, "max": 2}}])), []),
        (
            rules_of(resources.rule("a", {"name": "x"}, {"name": "y"}, spill={"maxWait": "2s"}, fallback={"latencyP95": "1s"})),
            [("somewhere-to-go-on", "spec.rules[0].fallback"), ("somewhere-to-go-on", "spec.rules[0].spill")],
        ),
        (
            rules_of(
                resources.rule(
                    "a", {"name": "x"}, {"name": "y", "priority": 1}, {"name": "z", "weight": 0}, spill={"maxWait": "2s"}
                )
            ),
            [],
        ),
        (
            rules_of(resources.rule("a", {"name": "x"}, {"name": "y", "priority": 1}, fallback={})),
            [("fallback-has-a-bound", "spec.rules[0].fallback")],
        ),
    ],
)
def test_a_rule_finds_what_breaks_it_and_nothing_else(document: resources.Document, expected: list[tuple[str, str]]) -> None:
    assert broken(document) == expected


def test_what_a_rule_cannot_read_it_does_not_judge() -> None:
    assert broken(resources.backend() | {"spec": "text"}) == []
    assert broken(resources.route(rules=[5, {"matches": 5, "backendRefs": [{}]}])) == []


def test_a_rules_path_leads_to_each_node() -> None:
    data = {"a": [{"b": [1]}, {"c": 2}, 5, {"b": {}}]}
    assert list(nodes_at(data, "a[].b")) == [(("a", 0, "b"), [1]), (("a", 3, "b"), {})]
    assert list(nodes_at(data, "a[].b[]")) == [(("a", 0, "b", 0), 1)]
    assert list(nodes_at(data, "x.y")) == []


@pytest.mark.parametrize(
    ("location", "text"),
    [((), ""), (("spec", "rules", 0, "name"), "spec.rules[0].name"), (("labels", "a/b"), 'labels["a/b"]'), ((0, "x"), "[0].x")],
)
def test_a_place_is_written_as_a_person_would(location: tuple[str | int, ...], text: str) -> None:
    assert render(location) == text
