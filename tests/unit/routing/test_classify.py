"""What is read of a body, and what is said of one that cannot be routed."""

from __future__ import annotations

import pytest

from spillway_sidecar.routing.classify import BadRequest, classify, estimate_tokens
from spillway_sidecar.routing.rewrite import MAX_STRINGS, replace_model
from spillway_wire.names import RequestType


@pytest.mark.parametrize(
    ("body", "model", "stream"),
    [
        (b'{"model":"m"}', "m", False),
        (b' {"x":[{"model":1}],"model":"\\u00e9","stream":true}\n', "é", True),
        (b'{"model":"m","stream":null}', "m", False),
        (b'{"model":"m","stream":false}', "m", False),
        (b'{"model":"a","model":"b"}', "b", False),
        (b'{"model":"%b"}' % (b"m" * 256), "m" * 256, False),
    ],
)
def test_the_facts_of_a_body(body: bytes, model: str, stream: bool):
    facts = classify(RequestType.CHAT, body)
    assert (facts.type, facts.model, facts.stream) == (RequestType.CHAT, model, stream)
    assert facts.prompt_tokens == estimate_tokens(len(body))


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b"", None),
        (b"{", None),
        (b"[]", None),
        (b"7", None),
        (b'{"model":"m"}{}', None),
        (b'{"model":"\xff"}', None),
        (b'{"model":"m","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", None),
        (b"{}", "model"),
        (b'{"model":1}', "model"),
        (b'{"model":""}', "model"),
        (b'{"model":"%b"}' % (b"m" * 257), "model"),
        (b'{"model":"m","stream":0}', "stream"),
    ],
)
def test_a_body_that_cannot_be_routed_is_told_why_in_our_words(body: bytes, param: str | None):
    with pytest.raises(BadRequest) as caught:
        classify(RequestType.CHAT, body)
    assert caught.value.param == param
    assert caught.value.message.endswith(".")
    assert "$" not in caught.value.message


@pytest.mark.parametrize(("size", "tokens"), [(0, 1), (3, 1), (4, 1), (8, 2), (4003, 1000)])
def test_a_prompt_has_a_quarter_as_many_tokens_as_bytes_and_one_at_least(size: int, tokens: int):
    assert estimate_tokens(size) == tokens


@pytest.mark.parametrize(
    ("body", "changed"),
    [
        (b'{"model":"m"}', b'{"model":"x"}'),
        (b'{"a":{"model":"m"},"model" : "m"}', b'{"a":{"model":"m"},"model":"x"}'),
        (b'{"a":["model","m"],"model":"m","b":"model"}', b'{"a":["model","m"],"model":"x","b":"model"}'),
        (b'{"mod\\u0065l":"m","model2":"m"}', b'{"model":"x","model2":"m"}'),
        (b'{"model":"m","x":{},"model":"n"}', b'{"model":"x","x":{}}'),
        (b'{"p":"\\"model\\":\\"m\\"","model":"m\\"q"}', b'{"p":"\\"model\\":\\"m\\"","model":"x"}'),
        (b'{"p":"say \\"model","model":"m"}', b'{"p":"say \\"model","model":"x"}'),
    ],
)
def test_only_the_field_itself_is_replaced(body: bytes, changed: bytes):
    assert replace_model(body, "x") == changed


def test_a_body_of_very_many_members_is_not_taken_apart_for_its_models_name():
    def body(members: int, further: bytes) -> bytes:
        return b'{"model":"m",' + further + b"".join(b',"%d":0' % number for number in range(members)) + b"}"

    twice = b'"x":{"model":"m"}'
    assert replace_model(body(MAX_STRINGS + 10, b'"x":0'), "new").startswith(b'{"model":"new",'), "the usual way takes any"
    assert replace_model(body(1000, twice), "new").startswith(b'{"model":"new",')
    with pytest.raises(BadRequest):
        replace_model(body(MAX_STRINGS + 10, twice), "new")
    code = b'"p":"' + b'\\"' * (3 * MAX_STRINGS) + b'",' + twice
    assert replace_model(body(10, code), "new").startswith(b'{"model":"new",'), "quotes inside a text are no strings"
