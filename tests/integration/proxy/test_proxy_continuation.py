"""Streams whose engine dies: they go on elsewhere where the route says so, once, and the client sees one stream."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.fakes.proxy_bench import Bench, Reply, Router, config, post, until
from tests.fakes.raw_engine import DONE, LAST, SSE_HEAD, Call, answers, chunk, reply, resets, silent

from spillway_wire.names import Provider
from spillway_wire.snapshot import Timeouts

BODY = b'{"model":"m","stream":true,"messages":[{"role":"user","content":"count"}]}'


def event(text: str, id_: str, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": {"content": text, **delta}}
    return b"data: %b\n\n" % json.dumps({"id": id_, "choices": [choice]}).encode()


def texts(got: Reply) -> list[str]:
    """What the client reads, of one stream by its id."""
    events = [block[6:] for block in got.body.split(b"\n\n") if block]
    objects = [json.loads(block) for block in events if block != b"[DONE]"]
    assert len({o["id"] for o in objects if "id" in o}) == 1
    return ["error" if "error" in o else o["choices"][0]["delta"]["content"] for o in objects]


class Counting:
    """An engine that counts from where it is told to, and dies after so many words, the first time."""

    def __init__(self, dies_after: int | None, *, by: str = "reset") -> None:
        self.dies_after = dies_after
        self.by = by

    async def __call__(self, call: Call) -> None:
        messages = json.loads(call.body)["messages"]
        said = messages[-1]["content"] if messages[-1]["role"] == "assistant" else ""
        name = f"id-{id(call)}"
        await call.write(SSE_HEAD + chunk(event("", name, role="assistant")))
        for number in range(len(said.split()), 6):
            if number == self.dies_after:
                await asyncio.sleep(0.01)
                if self.by == "reset":
                    call.reset()
                elif self.by == "end":
                    await call.write(LAST)
                return
            await call.write(chunk(event(f"{number} ", name)))
        await call.write(chunk(DONE) + LAST)


WHOLE = ["", *(f"{n} " for n in range(6))]


async def _ask(bench: Bench, *scripts: Any, **options: Any) -> tuple[Router, list[Any], Reply]:
    """The reply of a request that went to the first engine first."""
    engines = [await bench.engine(script) for script in scripts]
    router = await bench.router(config(*(engine.port for engine in engines), continues=True, **options))
    for target in router.site.clusters["default/a"].targets[1:]:
        target.factor = 9.0
    return router, engines, await router.ask(post(BODY))


@pytest.mark.parametrize("dies_after", [0, 1, 3, 5])
@pytest.mark.parametrize("by", ["reset", "end"])
async def test_a_stream_goes_on_where_it_broke_off(dies_after: int, by: str):
    async with Bench() as bench:
        router, (first, second), got = await _ask(bench, Counting(dies_after, by=by), Counting(None))
        assert texts(got) == WHOLE
        assert got.body.endswith(DONE)
        assert got.whole
        assert (len(first.calls), len(second.calls)) == (1, 1)
        asked = json.loads(second.calls[0].body)
        assert asked.get("continue_final_message") is (True if dies_after else None)
        assert router.idle()
        stats = router.site.stats.backend("default/r", "all", "default/a")
        assert (stats.outcomes, stats.retries) == ({"ok": 1}, 1)
        assert router.target(0).failures == 1


async def test_a_stream_that_has_gone_silent_goes_on_too():
    async with Bench() as bench:
        engines = [await bench.engine(Counting(3, by="hang")), await bench.engine(Counting(None))]
        router = await bench.router(config(*(e.port for e in engines), continues=True, timeouts=Timeouts(stream_idle_seconds=5.0)))
        router.target(1).factor = 9.0
        client = await router.client()
        client.send(post(BODY))
        await until(lambda: engines[0].calls and router.target(0).awaiting_tokens == 0)
        await asyncio.sleep(0.03)
        router.sweep()
        router.advance(5.1)
        got = await client.reply()
        assert texts(got) == WHOLE
        assert router.idle()


@pytest.mark.parametrize(
    "second", [resets, answers(reply(b"{}", status=500)), answers(reply(b"{}", status=400)), answers(reply(b"{}")), Counting(4)]
)
async def test_it_goes_on_once_and_is_interrupted_when_that_fails(second: Any):
    async with Bench() as bench:
        router, _, got = await _ask(bench, Counting(2), second)
        said = texts(got)
        assert said[:3] == WHOLE[:3]
        assert said[-1] == "error"
        assert said[:-1] == WHOLE[: len(said) - 1]
        assert got.whole
        assert b"[DONE]" not in got.body
        assert router.idle()
        client = await router.client()
        client.leave()


async def test_a_client_that_leaves_meanwhile_takes_the_second_along():
    async with Bench() as bench:
        engines = [await bench.engine(Counting(2)), await bench.engine(silent)]
        router = await bench.router(config(*(engine.port for engine in engines), continues=True))
        router.target(1).factor = 9.0
        client = await router.client()
        client.send(post(BODY))
        await until(lambda: engines[1].calls)
        client.leave()
        await asyncio.wait_for(engines[1].connections[0].closed.wait(), 5.0)
        await until(router.idle)


@pytest.mark.parametrize("options", [{"budget": 0}, {"provider": Provider.TGI}])
async def test_without_leave_or_an_engine_that_can_it_is_interrupted(options: dict[str, Any]):
    async with Bench() as bench:
        router, (_, second), got = await _ask(bench, Counting(2), Counting(None), **options)
        assert texts(got) == [*WHOLE[:3], "error"]
        assert not second.calls
        assert router.idle()


async def test_a_route_that_does_not_ask_for_it_does_not_go_on():
    async with Bench() as bench:
        engines = [await bench.engine(Counting(2)), await bench.engine(Counting(None))]
        router = await bench.router(config(*(engine.port for engine in engines)))
        router.target(1).factor = 9.0
        assert texts(await router.ask(post(BODY))) == [*WHOLE[:3], "error"]
        assert not engines[1].calls
