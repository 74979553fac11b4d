"""A short seed of the rig: everything fails in turn under load, and no client loses, or sees, what it should not.

`make faults` runs the whole matrix with its figures; here only what must hold on any machine is asserted.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.faults.bench import Bench
from tests.faults.fate import Fate, Request
from tests.faults.load import Load, counts
from tests.faults.reply import GarbledError, Reply
from tests.faults.rows.chaos import slope, soaking, strike
from tests.faults.world import Shape, World, held

SEED = int(os.environ.get("FAULTS_SEED", "4"))
RATE = 50.0
SECONDS = 8.0
RIGHT = {Fate.OK, Fate.LEFT, Fate.SIGNALLED}
NO_TIME = "proxy_overloaded"  # said by a proxy that gets no time of its machine's


async def test_nothing_is_lost_doubled_or_crossed_while_everything_fails_in_turn(tmp_path: Path):
    async with World(tmp_path, SEED, Shape(gateways=2, first_token="3s", direct=False)) as world:
        load = Load(world.gateway_ports, random.Random(SEED))
        bench = Bench(world, load, random.Random(SEED), SECONDS, RATE)
        async with bench.sending(soaking) as requests:
            struck = await strike(bench, 0.1)
        load.close_idle()
        wrong = [request for request in requests if request.fate not in RIGHT and request.reason != NO_TIME]
        assert wrong == [], f"seed {SEED}: {struck}"
        assert counts(requests)["ok"] > 0.5 * RATE * SECONDS, struck
        assert await world.leaks() == [], f"seed {SEED}: {struck}"
        assert world.tracebacks() == {}, f"seed {SEED}: {struck}"
        assert not load.strays


def request(body: bytes, *, tokens: int = 2, stream: bool = True, whole: bool = True) -> Request:
    """A request with tag 2144df1c that has got this for an answer."""
    made = Request(1, "hi", tokens, stream=stream)
    made.tag = b"2144df1c"
    made.status, made.whole, made.first, made.ended, made.body = 200, whole, 1.0, 2.0, body
    return made


def test_the_fate_of_a_reply_tells_what_is_wrong_with_it():
    whole = b'data: {"id":"a"} 2144df1c.0 \n\ndata: {"id":"a"} 2144df1c.1 \n\ndata: [DONE]\n\n'
    told = b'data: 2144df1c.0 \n\ndata: {"error": {"code": "stream_interrupted"}}\n\n'.replace(b': "s', b':"s')
    for body, wanted in (
        (whole, Fate.OK),
        (whole.replace(b"2144df1c.1", b"2144df1d.1"), Fate.CROSSED),
        (whole.replace(b"2144df1c.1", b"2144df1c.0"), Fate.DOUBLED),
        (whole.replace(b'"a"} 2144df1c.1', b'"b"} 2144df1c.1'), Fate.DOUBLED),
        (whole.replace(b"2144df1c.1 ", b""), Fate.SILENT),
        (whole.replace(b"data: [DONE]", b""), Fate.SILENT),
        (told, Fate.SIGNALLED),
    ):
        assert request(body).settle() is wanted, body
    assert request(whole[:20], whole=False).settle() is Fate.SIGNALLED
    lost = request(b"")
    lost.status = 502
    assert lost.settle() is Fate.LOST
    lost.status, lost.retry_after = 503, "1"
    assert lost.settle() is Fate.REFUSED
    lost.ended = 0.0
    assert lost.settle() is Fate.HUNG


def test_a_reply_is_read_alike_however_it_comes():
    text = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"
    for size in (1, 2, 3, 7, len(text)):
        reply = Reply()
        body = b"".join(reply.feed(text[start : start + size]) for start in range(0, len(text), size))
        assert (reply.status, body, reply.whole) == (200, b"hello!", True), size
    reply = Reply()
    assert reply.feed(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP") == b"ok"
    assert reply.whole
    assert reply.rest == b"HTTP"


def test_what_is_no_http_is_told():
    for text in (
        b"HTTP/1.1 103 Early Hints\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
        b"garbage\r\n\r\n",
    ):
        try:
            Reply().feed(text)
        except GarbledError:
            continue
        raise AssertionError(text)


def test_what_is_held_is_found_wherever_it_is_in_the_state():
    info = {
        "route": {"in_flight": 0, "clusters": {"chat": [{"id": "a", "in_flight": 1}, {"id": "b", "in_flight": 0}]}},
        "guard": {"engine": {"waiting": 3}},
    }
    assert held(info) == ["route.clusters.chat.a.in_flight=1"]
    assert held({"route": {"in_flight": 0}}) == []


def test_a_slope_is_that_of_the_line_through_the_samples():
    assert slope([(0.0, 10), (1.0, 12), (2.0, 14)]) == 2.0
    assert slope([(0.0, 10)]) == 0.0
