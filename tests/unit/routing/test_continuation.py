"""What of a broken stream can be asked for again, how, and how the rest looks to the client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.routing.continuation import Heard, continued, hear, rest
from spillway_wire.names import RequestType

CHAT, COMPLETIONS = RequestType.CHAT, RequestType.COMPLETIONS
HEARD = Heard("Once upon", 2, {"id": "one", "created": 1})


def event(delta: dict[str, Any], **fields: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps({"id": "one", "created": 1, "choices": [{"index": 0, "delta": delta}], **fields}).encode()


def test_the_text_so_far_is_gathered():
    stream = event({"role": "assistant", "content": ""}) + b": ping\n\n" + event({"content": "Once"}) + event({"content": " upon"})
    assert hear(stream) == HEARD
    assert hear(stream.replace(b"\n", b"\r\n")) == HEARD
    plain = b'data: {"id":"one","created":1,"choices":[{"text":"Once"}]}\n\ndata: {"id":"one","created":1,"choices":[{"text":" upon"}]}\n\n'
    assert hear(plain) == HEARD


@pytest.mark.parametrize(
    "delta", [{"tool_calls": [{"index": 0}]}, {"reasoning_content": "hm"}, {"content": 7}, {"content": "x", "audio": {"id": 1}}]
)
def test_what_is_not_plain_text_is_not_continued(delta: dict[str, Any]):
    assert hear(event({"content": "a"}) + event(delta)) is None


@pytest.mark.parametrize("choice", [{"finish_reason": "stop"}, {"index": 1, "delta": {"content": "b"}}, 5, {"delta": [1]}])
def test_nor_what_has_ended_or_has_several_choices(choice: Any):
    assert hear(event({"content": "a"}) + b"data: %b\n\n" % json.dumps({"choices": [choice]}).encode()) is None


def asked(request: dict[str, Any], request_type: RequestType = CHAT, heard: Heard = HEARD) -> Any:
    body = continued(json.dumps(request).encode(), request_type, heard)
    return None if body is None else json.loads(body)


def test_chat_goes_on_by_a_message_of_the_assistant():
    messages = [{"role": "user", "content": "Tell"}]
    got = asked({"model": "m", "messages": messages, "max_tokens": 10, "stream": True})
    assert got == {
        "model": "m", "messages": [*messages, {"role": "assistant", "content": "Once upon"}], "max_tokens": 8, "stream": True,
        "add_generation_prompt": False, "continue_final_message": True,
    }  # fmt: skip


def test_completions_go_on_by_a_longer_prompt():
    assert asked({"model": "m", "prompt": "Tell: "}, COMPLETIONS) == {"model": "m", "prompt": "Tell: Once upon"}
    assert asked({"model": "m", "prompt": ["a", "b"]}, COMPLETIONS) is None


def test_before_any_text_the_request_is_made_as_it_was():
    request = {"model": "m", "messages": []}
    assert asked(request, heard=Heard("", 0, {})) == request


@pytest.mark.parametrize(
    "more",
    [
        {"n": 2}, {"tools": [{}]}, {"logprobs": True}, {"response_format": {"type": "json_object"}}, {"max_tokens": 2}, {"echo": True},
        {"max_completion_tokens": 1}, {"guided_json": {}, "guided_regex": "a"}, {"response_format": "odd"}, {"continue_final_message": True},
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for_again(more: dict[str, Any]):
    assert asked({"model": "m", "messages": [], **more}) is None


def test_the_rest_has_the_names_of_the_first_and_no_beginning():
    stream = (
        event({"role": "assistant", "content": ""}, id="two")
        + event({"role": "assistant", "content": " a"}, id="two")
        + b'data: {"id":"two","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
        + b'data: {"id":"two","choices":[],"usage":{"prompt_tokens":3}}\n\n'
        + b"data: [DONE]\n\n"
    )
    blocks = rest(stream, HEARD).split(b"\n\n")
    assert [json.loads(block[6:]) for block in blocks[:3]] == [
        {"id": "one", "created": 1, "choices": [{"index": 0, "delta": {"content": " a"}}]},
        {"id": "one", "created": 1, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        {"id": "one", "created": 1, "choices": [], "usage": {"prompt_tokens": 3}},
    ]
    assert blocks[3:] == [b"data: [DONE]", b""]


@given(st.binary(max_size=300), st.binary(max_size=100))
def test_no_stream_and_no_odd_event_raises(noise: bytes, more: bytes):
    for stream in (noise, b"data: " + noise + b"\n\n" + more, b'data: {"choices":[' + more + b"]}\n\n"):
        heard = hear(stream)
        rest(stream, heard or HEARD)
