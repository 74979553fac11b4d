"""Requests of every kind that makes two parsers disagree, before a recording engine: it sees a well-formed request, or nothing.

Each case has the `status` of its answer, or of each of its answers, and where that is 200 the `bodies` that the engine sees (the usual
body where none are given). The connection is closed behind the last answer unless the case says `open`. Behind a single bad
request another is sent, which must not be read as one.
"""

from __future__ import annotations

import pytest
from tests.corpora.corpus import cases
from tests.fakes.proxy_bench import BODY, Bench, assert_error, config, post
from tests.fakes.raw_engine import answers, reply

from spillway_sidecar.proxy.listener import ClientLimits

MAX_BODY_BYTES = 65536
SMUGGLED = b"POST /v1/embeddings HTTP/1.1\r\nHost: proxy\r\nContent-Length: 0\r\n\r\n"
CASES = cases("requests")


@pytest.mark.parametrize("name", CASES)
async def test_an_engine_sees_a_well_formed_request_or_none(name: str):
    case = CASES[name]
    wanted = case["status"] if isinstance(case["status"], list) else [case["status"]]
    bodies = [body.encode() for body in case["bodies"]] if "bodies" in case else [BODY] * wanted.count(200)
    smuggled = SMUGGLED if wanted == [400] and not case.get("open") else b""
    async with Bench() as bench:
        engine = await bench.engine(answers(reply()))
        router = await bench.router(config(engine.port), limits=ClientLimits(max_body_bytes=MAX_BODY_BYTES))
        client = await router.client()
        client.send(case["bytes"] + smuggled)
        for index, status in enumerate(wanted):
            got = await client.reply()
            assert got.status == status, (index, got.body)
            if status >= 400:
                assert_error(got, status)
        if case.get("open"):
            client.send(post(b'{"model":"m","last":true}'))
            assert (await client.reply()).status == 200
            bodies.append(b'{"model":"m","last":true}')
        else:
            assert got.header(b"connection") == b"close" or (case["file"] == "sound" and got.status == 200)
            assert got.header(b"connection") != b"close" or await client.ended()
        assert [call.body for call in engine.calls] == bodies
        assert {call.line for call in engine.calls} <= {b"POST /v1/chat/completions HTTP/1.1"}
        assert sum(len(call.body) for call in engine.calls) <= len(engine.received), "nothing beside its requests"
        assert router.idle()
