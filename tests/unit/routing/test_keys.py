"""What ties a request to others."""

from __future__ import annotations

import json

import pytest

from spillway_sidecar.routing.classify import classify
from spillway_sidecar.routing.keys import PREFIX_BYTES, prefix_key, read_keys, session_key
from spillway_sidecar.scheduling.profile import DEFAULT, compile_profile
from spillway_wire.names import RequestType, SchedulingProfile, Scorer
from spillway_wire.snapshot import Scheduling, ScorerWeight

LONG = "You are a helpful assistant. " * 100


def chat(system: str, text: str, **fields: object) -> bytes:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return json.dumps({**fields, "model": "m", "messages": messages}).encode()


def test_prompts_that_begin_alike_have_one_key_whatever_stands_before_them():
    key = prefix_key(chat(LONG, "one"))
    assert key
    assert key == prefix_key(chat(LONG, "two", temperature=0.5))
    assert key != prefix_key(chat("Answer in French. " + LONG, "one"))
    assert prefix_key(json.dumps({"model": "m", "prompt": LONG}).encode())


@pytest.mark.parametrize(
    "body", [b"{}", b'{"input": "' + b"x" * 4000 + b'"}', chat("short", "x"), chat("", "y" * (PREFIX_BYTES // 2))]
)
def test_there_is_no_key_where_there_is_no_long_prompt(body: bytes):
    assert prefix_key(body) == 0


def test_a_session_is_named_by_its_header_else_by_the_body():
    body = chat("a", "b", user="u1", prompt_cache_key="k1")
    by_header = session_key(b"x-session-id", {b"x-session-id": b"s1"}, body)
    assert by_header == session_key(b"x-session-id", {b"x-session-id": b"s1"}, b"{}")
    assert session_key(b"x-session-id", {}, body) == session_key(b"x-session-id", {b"x-session-id": b"k1"}, b"{}")
    assert session_key(b"x-session-id", {}, chat("a", "b", user="u1")) == session_key(b"x", {b"x": b"u1"}, b"{}")
    assert session_key(b"x-session-id", {}, chat("a", "b")) == 0
    assert session_key(b"x-session-id", {}, b'{"user": 7}') == 0


def test_keys_are_read_for_those_who_go_by_them():
    body = chat(LONG, "x", user="u")
    facts = classify(RequestType.CHAT, body)
    assert (facts.prefix, facts.session) == (0, 0)
    read_keys(facts, DEFAULT, {}, body)
    assert facts.prefix
    assert facts.session == 0
    embeddings = classify(RequestType.EMBEDDINGS, body)
    read_keys(embeddings, DEFAULT, {}, body)
    assert embeddings.prefix == 0
    by_session = compile_profile(Scheduling(SchedulingProfile.DEFAULT, (ScorerWeight(Scorer.SESSION_AFFINITY),)))
    facts = classify(RequestType.CHAT, body)
    read_keys(facts, by_session, {}, body)
    assert facts.prefix == 0
    assert facts.session
