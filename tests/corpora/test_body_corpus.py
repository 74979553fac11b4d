"""JSON bodies that are taken, and reach the engine as they came, and bodies that are refused before it.

A case of `accepted` may have the `model` that is asked for (`m` else) and whether it is a `stream`; one of `refused` has its status and
the field at fault (`param`).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from tests.corpora.corpus import cases, wire
from tests.fakes.proxy_bench import Bench, assert_error, config, post
from tests.fakes.raw_engine import answers, reply

from spillway_sidecar.routing.classify import classify
from spillway_sidecar.routing.rewrite import replace_model
from spillway_wire.names import RequestType

ACCEPTED = cases("bodies", "accepted")
REFUSED = cases("bodies", "refused")
NAME = 'other "name"/\\é'


def _model(case: dict[str, Any]) -> str:
    return wire(case["model"]).decode("latin-1") if "model" in case else "m"


@pytest.mark.parametrize("name", ACCEPTED)
def test_what_is_asked_for_is_read(name: str):
    case = ACCEPTED[name]
    facts = classify(RequestType.CHAT, case["bytes"])
    assert (facts.model, facts.stream) == (_model(case), case.get("stream", False))


@pytest.mark.parametrize("name", ACCEPTED)
def test_another_name_is_all_that_changes(name: str):
    body = ACCEPTED[name]["bytes"]
    before, after = (json.loads(one.decode("utf-8", "replace")) for one in (body, replace_model(body, NAME)))
    assert after == {**before, "model": NAME}
    assert replace_model(body, NAME).count(json.dumps(NAME, ensure_ascii=False).encode()) == 1


async def test_what_is_taken_reaches_the_engine_as_it_came():
    async with Bench() as bench:
        engine = await bench.engine(answers(reply()))
        router = await bench.router(config(engine.port))
        client = await router.client()
        taken = [case["bytes"] for case in ACCEPTED.values() if _model(case) == "m"]
        for body in taken:
            client.send(post(body))
            assert (await client.reply()).status == 200, body[:200]
        assert [call.body for call in engine.calls] == taken
        assert router.idle()


async def test_what_is_refused_reaches_no_engine_and_the_connection_goes_on():
    async with Bench() as bench:
        engine = await bench.engine(answers(reply()))
        router = await bench.router(config(engine.port))
        client = await router.client()
        for name, case in REFUSED.items():
            client.send(post(case["bytes"]))
            error = assert_error(await client.reply(), case["status"])
            assert error["param"] == case.get("param"), (name, error)
        assert not engine.connections
        client.send(post())
        assert (await client.reply()).status == 200
        assert router.idle()


@pytest.mark.parametrize("depth", range(960, 1000, 3))
async def test_nesting_at_the_limit_is_served_or_refused_and_leaks_nothing(depth: int):
    """How deep is too deep depends on the calls around a decoder: what one has read may be too deep for the next."""
    bodies = [b'{"mod\\u0065l":"m","x":' + b"[" * n + b"]" * n + b"}" for n in range(depth, depth + 3)]
    async with Bench() as bench:
        engine = await bench.engine(answers(reply()))
        router = await bench.router(config(engine.port, override="other"))
        for body in bodies:
            got = await router.ask(post(body))
            assert got.status in {200, 400}, got.body
            assert router.idle()
