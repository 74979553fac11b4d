"""An exception that nobody foresaw: its client is told, and nothing that the request held stays behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from tests.fakes.proxy_bench import Bench, config, post
from tests.fakes.raw_engine import answers, reply


@pytest.mark.parametrize("place", ["before", "in"])
async def test_a_defect_of_ours_is_an_error_of_ours_and_nothing_stays_behind(place: str):
    """`before` it is routed, and `in` the choice of its endpoint, when the request already holds places."""

    def broken() -> float:
        raise ZeroDivisionError

    defects: list[dict[str, Any]] = []
    async with Bench() as bench:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: defects.append(context))
        engines = [await bench.engine(answers(reply())) for _ in range(2)]
        router = await bench.router(config(*(engine.port for engine in engines)))
        chance, router.site.random = router.site.random, broken
        router.site.shed = 0.5 if place == "before" else 0.0
        client = await router.client()
        client.send(post())
        got = await client.reply()
        assert got.status == 500
        assert json.loads(got.body)["error"]["code"] == "internal_error"
        assert b"Zero" not in got.body
        assert got.header(b"connection") == b"close"
        assert await client.ended()
        assert [type(context["exception"]) for context in defects] == [ZeroDivisionError]
        assert router.idle()
        router.site.random, router.site.shed = chance, 0.0
        assert (await router.ask(post())).status == 200
