"""Which rule takes a request, and which backends it then has."""

from __future__ import annotations

import pytest

from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.routing.table import RoutingTable, compile_table
from spillway_wire.names import RequestType
from spillway_wire.snapshot import BackendRef, HeaderMatch, Match, Route, Rule, RuleWeights, TokenRange, Weights

CHAT, EMBEDDINGS = RequestType.CHAT, RequestType.EMBEDDINGS


def facts(model: str = "m", *, kind: RequestType = CHAT, tokens: int = 10) -> Facts:
    """A classified request."""
    return Facts(kind, model, False, tokens)


def table(*routes: Route, weights: dict[str, Weights] | None = None) -> RoutingTable[str]:
    """Compiled, with each cluster standing for itself."""
    return compile_table("1", routes, weights or {}, lambda name: (name.upper(), f"{name}-model", tuple(RequestType)))


def rule(name: str, *matches: Match, backends: tuple[BackendRef, ...] = (BackendRef("a"),)) -> Rule:
    """A rule."""
    return Rule(name=name, backends=backends, matches=matches)


def taken(*matches: Match, of: Facts, headers: dict[bytes, bytes] | None = None) -> bool:
    """Whether a rule with these matches takes a request."""
    route = table(Route("r", ("m",), (rule("x", *matches),))).routes["m"]
    return route.rule_for(of, headers or {}) is not None


def test_models_lead_to_their_route_and_the_first_by_name_wins():
    compiled = table(Route("b", ("m", "n"), (rule("x"),)), Route("a", ("m",), (rule("x"),)))
    assert compiled.models == ("m", "n")
    assert compiled.routes["m"].name == "a"
    assert compiled.routes["n"].name == "b"
    assert "x" not in compiled.routes


def test_the_first_rule_that_matches_takes_the_request():
    route = table(
        Route("r", ("m",), (rule("emb", Match((EMBEDDINGS,))), rule("long", Match(prompt_tokens=TokenRange(min=100))), rule("rest")))
    ).routes["m"]  # fmt: skip
    for request, name in ((facts(kind=EMBEDDINGS, tokens=500), "emb"), (facts(tokens=100), "long"), (facts(tokens=99), "rest")):
        found = route.rule_for(request, {})
        assert found is not None
        assert found.name == name


@pytest.mark.parametrize(
    ("range_", "inside", "outside"),
    [
        (TokenRange(5, 9), (5, 9), (4, 10)),
        (TokenRange(min=5), (5, 10**7), (4, 0)),
        (TokenRange(max=9), (0, 9), (10, 11)),
        (TokenRange(max=0), (0, 0), (1, 2)),
        (TokenRange(), (0, 10**9), ()),
    ],
)
def test_token_ranges_have_both_ends(range_: TokenRange, inside: tuple[int, ...], outside: tuple[int, ...]):
    assert all(taken(Match(prompt_tokens=range_), of=facts(tokens=n)) for n in inside)
    assert not any(taken(Match(prompt_tokens=range_), of=facts(tokens=n)) for n in outside)


def test_headers_match_by_exact_value_and_any_case_of_name():
    match = Match(headers=(HeaderMatch("X-Team", "a"), HeaderMatch("x-env", "é")))
    assert taken(match, of=facts(), headers={b"x-team": b"a", b"x-env": b"\xe9"})
    assert not taken(match, of=facts(), headers={b"x-team": b"A", b"x-env": b"\xe9"})
    assert not taken(match, of=facts(), headers={b"x-team": b"a"})


def test_all_of_a_match_and_any_of_several():
    both = Match((EMBEDDINGS,), (HeaderMatch("x-a", "1"),))
    other = Match((CHAT,), (HeaderMatch("x-a", "2"),))
    assert taken(both, other, of=facts(), headers={b"x-a": b"2"})
    assert not taken(both, other, of=facts(), headers={b"x-a": b"1"})
    assert taken(Match(), of=facts())


def test_backends_are_grouped_by_priority_without_those_of_no_weight():
    refs = (
        BackendRef("c", 5, 1),
        BackendRef("a", 0, 3),
        BackendRef("z", 0, 0),
        BackendRef("b", 0, 1, "renamed"),
        BackendRef("y", 2, 0),
    )
    (compiled,) = table(Route("r", ("m",), (rule("x", backends=refs),))).routes["m"].rules
    assert [(g.priority, [(b.name, b.cluster, b.weight, b.model) for b in g.backends]) for g in compiled.groups] == [
        (0, [("a", "A", 3.0, "a-model"), ("b", "B", 1.0, "renamed")]),
        (5, [("c", "C", 1.0, "c-model")]),
    ]


def test_effective_weights_replace_declared_ones_of_their_rule_only():
    refs = (BackendRef("a", 0, 3), BackendRef("b", 0, 1))
    weights = {"r": Weights("r", (RuleWeights("x", {"a": 0.5}), RuleWeights("gone", {"b": 9.0})))}
    first, second = (
        table(Route("r", ("m",), (rule("x", backends=refs), rule("y", backends=refs))), weights=weights).routes["m"].rules
    )
    assert [b.weight for b in first.groups[0].backends] == [0.5, 1.0]
    assert [b.weight for b in second.groups[0].backends] == [3.0, 1.0]


def test_a_cluster_that_is_not_there_is_no_configuration():
    def cluster_of(name: str) -> tuple[str, str, tuple[RequestType, ...]]:
        raise KeyError(name)

    with pytest.raises(KeyError):
        compile_table("1", [Route("r", ("m",), (rule("x"),))], {}, cluster_of)
