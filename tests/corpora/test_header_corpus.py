"""Headers: what of a client's reaches the engine, and what of an engine's reaches the client, beside the lines that are always there."""

from __future__ import annotations

import pytest
from tests.corpora.corpus import cases
from tests.fakes.proxy_bench import BODY, post
from tests.fakes.raw_engine import reply
from tests.fakes.wires import Line

REQUESTS = cases("headers", "requests")
REPLIES = cases("headers", "replies")
TO_ENGINE = ("host: 127.0.0.1:1", "content-type: application/json", "endpoint-load-metrics-format: JSON", "content-length: 27")


@pytest.mark.parametrize("name", REQUESTS)
async def test_what_an_engine_is_told(name: str):
    case = REQUESTS[name]
    lines = [line for line in case["bytes"].split(b"\r\n") if line]
    got = Line().carry([reply()], request=post(BODY, *lines))
    assert got is not None
    assert got.status == 200
    head, _, body = got.requests.partition(b"\r\n\r\n")
    first, *told = head.decode("latin-1").split("\r\n")
    assert first == "POST /v1/chat/completions HTTP/1.1"
    assert body == BODY
    ours = [line for line in told if line.startswith("x-request-id: t-")]
    assert len(ours) == 1
    assert sorted(told) == sorted([*TO_ENGINE, *ours, *case["engine"]])


@pytest.mark.parametrize("kind", [b"length", b"chunked"])
@pytest.mark.parametrize("name", REPLIES)
async def test_what_a_client_is_told(name: str, kind: bytes):
    case = REPLIES[name]
    head = b"HTTP/1.1 200 OK\r\n" + case["bytes"] + b"content-type: application/json\r\n"
    framing = b"content-length: 2" if kind == b"length" else b"transfer-encoding: chunked"
    raw = head + framing + b"\r\n\r\n" + (b"{}" if kind == b"length" else b"2\r\n{}\r\n0\r\n\r\n")
    got = Line().carry([raw], request=post())
    assert got is not None
    assert (got.status, got.body, got.whole) == (200, b"{}", True)
    told = sorted(name.decode() + ": " + value.decode("latin-1") for name, value in got.headers if name != b"x-request-id")
    wanted = [*case["client"], "content-type: application/json", framing.decode()]
    lines = [line.partition(":") for line in wanted]
    assert told == sorted(f"{name.lower()}: {value.strip()}" for name, _, value in lines)
    assert [value.startswith(b"t-") for name, value in got.headers if name == b"x-request-id"] == [True]
