"""What reads other people's bytes, each as a function of bytes that fails where a promise is broken.

They are run by `python -m fuzz` with coverage as a guide, and by the tests over their seeds and over what was found.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import random
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any, Final

import msgspec
from tests.corpora.corpus import cases
from tests.fakes.proxy_bench import STREAM_BODY, config, post
from tests.fakes.raw_engine import reply, stream
from tests.fakes.wires import Got, Line, unchunked

from spillway_operator.discovery.auth import ANYONE
from spillway_operator.discovery.hub import Hub
from spillway_operator.discovery.session import Limits
from spillway_operator.loads.store import LoadStore
from spillway_sidecar.config.stream import BadFrameError, Stream
from spillway_sidecar.engines.exposition import read_samples
from spillway_sidecar.proxy.answers import retry_after_seconds
from spillway_sidecar.proxy.compat import COMPAT, parse_mended
from spillway_sidecar.proxy.errors import Refusal
from spillway_sidecar.proxy.exchange import _passed
from spillway_sidecar.proxy.framing import EVENT_ENDS, as_chunk, event_end, whole_events
from spillway_sidecar.proxy.head import parse_request
from spillway_sidecar.proxy.heads import RequestHead
from spillway_sidecar.proxy.listener import ClientLimits
from spillway_sidecar.proxy.route import RouteSite
from spillway_sidecar.proxy.swap import Swapper
from spillway_sidecar.proxy.tail import usage, whole_stream
from spillway_sidecar.routing.classify import BadRequest, classify
from spillway_sidecar.routing.continuation import Heard, continued, hear, rest
from spillway_sidecar.routing.rewrite import replace_model
from spillway_wire.loads import BackendTraffic, Load
from spillway_wire.messages import Hello, Nack, Node, Report, Update, decode_from_proxy, encode
from spillway_wire.names import RequestType, Role
from spillway_wire.orca import decode_load, encode_load
from spillway_wire.snapshot import encode_resource

Target = Callable[[bytes], None]
LIMIT: Final = 1 << 20
_NAME: Final = re.compile(rb"[!#$%&'*+.^`|~0-9a-z-]+")
_VALUE: Final = re.compile(rb"(?:[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?)?")
_LINES: Final = re.compile(rb"(?:[a-z-]+: [\x20-\x7e\t]*\r\n)*")
_UPSTREAM_HEAD: Final = re.compile(rb"POST [\x21-\x7e]+ HTTP/1\.1\r\n(?:[a-z-]+: [\x20-\x7e]+\r\n)+")
_OURS: Final = frozenset(
    (b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"proxy-authenticate", b"set-cookie", b"alt-svc", b"x-spillway-admission")
)  # fmt: skip


# --- a request's head


def _strict(data: bytes) -> RequestHead | int | None:
    try:
        return parse_request(data, max_body_bytes=LIMIT)
    except Refusal as refusal:
        return refusal.status if refusal.close else 0


def request_head(data: bytes) -> None:
    """A head is refused, waited for, or read as it stands; what follows it changes nothing; leniency changes no framing."""
    if not data:
        return
    head = _strict(data)
    if isinstance(head, int):
        assert head in {400, 413, 414, 431, 505}
        _mended(data)
        return
    if head is None:
        return
    assert data.find(b"\r\n\r\n") + 4 == head.length
    lines = data[: head.length - 4].split(b"\r\n")[1:]
    joined: dict[bytes, bytes] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        name, value = name.lower(), value.strip(b" \t")
        assert colon
        assert _NAME.fullmatch(name), name
        assert _VALUE.fullmatch(value), value
        joined[name] = joined[name] + b", " + value if name in joined else value
    assert head.fields == joined
    coding, length = joined.get(b"transfer-encoding"), joined.get(b"content-length")
    assert coding is None or (coding == b"chunked" and length is None and head.http11)
    assert head.content_length == (-1 if coding else 0 if length is None else int(length))
    for end in (head.length // 2, head.length - 1):
        assert _strict(data[:end]) is None
    again = _strict(data[: head.length] + b"\x00 more")
    assert isinstance(again, RequestHead)
    parts = ("method", "target", "http11", "fields", "length", "content_length", "keep_alive")
    assert all(getattr(again, part) == getattr(head, part) for part in parts)
    assert _LINES.fullmatch(_passed(head.fields))


def _mended(data: bytes) -> None:
    try:
        head = parse_mended(data, frozenset(COMPAT), max_body_bytes=LIMIT)
    except Refusal:
        return
    if head is None:
        return
    lines = data[: head.length].lower().split(b"\r\n")
    framing = [line for line in lines if re.match(rb"(?:content[-_]length|transfer[-_]encoding)\s*:", line)]
    assert len(framing) == (head.content_length != 0 or b"content-length" in head.fields), framing
    assert _LINES.fullmatch(_passed(head.fields))


# --- an engine's reply, through a whole exchange

_lines: dict[str, Line] = {}


def _carry(pieces: list[bytes], flags: int) -> Got | None:
    version = b"1.0" if flags & 1 else b"1.1"
    ends = ("", "close", "reset", "")[flags >> 1 & 3]
    request = post(STREAM_BODY if flags & 8 else b'{"model":"m"}', version=version)

    async def carry() -> Got | None:
        if "line" not in _lines:
            _lines["line"] = Line()
        line = _lines["line"]
        return line.carry(pieces, ends=ends, request=request, version=version)

    return LOOP.run_until_complete(carry())


def engine_reply(data: bytes) -> None:
    """The first byte chooses the client and how the connection ends, the second where the rest, an engine's bytes, is cut."""
    if len(data) < 3:
        return
    flags, cut, raw = data[0], data[1], data[2:]
    whole = _carry([raw], flags)
    size = cut % 50 + 1
    parted = _carry([raw[n : n + size] for n in range(0, len(raw), size)], flags)
    for got in (whole, parted):
        if got is None:
            continue
        names = [name for name, _ in got.headers if not (name == b"connection" and dict(got.headers)[name] == b"close")]
        assert _OURS.isdisjoint(names), names
        assert names.count(b"x-request-id") == 1
        assert got.status >= 200
        if got.told:
            assert got.whole or flags & 1
        if got.status < 300 and got.whole and not got.told:
            _is_all_of_it(got, raw)
    if whole is not None and parted is not None and whole.whole and parted.whole and not (whole.told or parted.told):
        assert (whole.status, whole.body) == (parted.status, parted.body)


def _is_all_of_it(got: Got, raw: bytes) -> None:
    """What the client takes for whole is what the engine's framing says, read by the plainest of means."""
    while True:
        head, _, body = raw.partition(b"\r\n\r\n")
        status = int(head[9:12])
        if status >= 200:
            break
        raw = body
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    fields = {name.strip().lower(): value.strip() for name, _, value in lines}
    if status in {204, 304}:
        body = b""
    elif b"transfer-encoding" in fields:
        body = _first_chunked(body)
    elif b"content-length" in fields:
        body = body[: int(fields[b"content-length"])]
        assert len(body) == int(fields[b"content-length"])
    assert (got.status, got.body) == (status, body)


def _first_chunked(body: bytes) -> bytes:
    for end in re.finditer(rb"\r\n\r\n", body):
        with contextlib.suppress(AssertionError, ValueError):
            payload, whole = unchunked(body[: end.end()])
            if whole:
                return payload
    raise AssertionError("taken for whole without a last chunk")


# --- a stream's text


def stream_text(data: bytes) -> None:
    """Any text, parted into events, chunked anew, heard and continued."""
    end = event_end(data)
    text = data[:end]
    assert not end or text.endswith(EVENT_ENDS)
    assert all(mark not in data[end:] for mark in EVENT_ENDS)
    size = (data[0] if data else 0) % 30 + 1
    chunks = b"".join(as_chunk(data[n : n + size]) for n in range(0, len(data), size))
    assert unchunked(whole_events(chunks) + b"0\r\n\r\n") == (text if not data.endswith(EVENT_ENDS) else data, True)
    said = whole_stream(data, chunked=False)
    if len(data) < 1000:
        assert said is False or whole_stream(chunks + b"0\r\n\r\n", chunked=True)
    heard = hear(text)
    if heard is not None:
        for kind, body in (
            (RequestType.CHAT, b'{"model":"m","messages":[]}'),
            (RequestType.COMPLETIONS, b'{"model":"m","prompt":"p"}'),
        ):
            again = continued(body, kind, heard)
            assert again is None or json.loads(again)["model"] == "m"
    given = rest(text, Heard("", 0, {"id": "x"}))
    assert not given or given.endswith(b"\n\n")
    for told in (data, text):
        prompt, completion = usage(told[-2048:])
        assert all(count is None or 0 <= count < 10**9 for count in (prompt, completion))


# --- a body


def body(data: bytes) -> None:
    """What is taken is JSON to a common parser too, with the model that was read; replacing that leaves all else."""
    try:
        facts = classify(RequestType.CHAT, data)
    except BadRequest:
        return
    members = json.loads(data.decode("utf-8", "replace"))
    assert members["model"] == facts.model
    assert members.get("stream") in {True, False, None}
    assert facts.stream is (members.get("stream") is True)
    try:
        changed = replace_model(data, "other")
    except BadRequest:
        return
    found = json.loads(changed.decode("utf-8", "replace"))
    assert classify(RequestType.CHAT, changed).model == "other"
    assert repr(found) == repr({**members, "model": "other"})


# --- a snapshot


def snapshot(data: bytes) -> None:
    """A frame of the operator's is answered, or ends the stream; it is in force whole, or nothing has changed."""
    site = RouteSite(clock=lambda: 0.0, id_prefix="t-", limits=ClientLimits(), rng=random.Random(1))
    swapper = Swapper(site, lambda *_: None, lambda: None)  # type: ignore[arg-type,return-value]
    held = Stream(
        Node(id="p", role=Role.GATEWAY, boot_id="b"), lambda one: swapper.swap(one.version, one.resources), lambda _: None
    )
    first = held.receive(_GOOD)
    assert first is not None
    before = (site.table, site.version, dict(site.clusters))
    try:
        answer = held.receive(data)
    except BadFrameError:
        answer = None
    if answer is not None and isinstance(decode_from_proxy(answer), Nack):
        assert (site.table, site.version, dict(site.clusters)) == before
    assert held.snapshot is not None
    assert site.version == held.snapshot.version
    json.dumps(held.info())
    for cluster in site.clusters.values():
        for target in cluster.targets:
            for head in target.heads.values():
                assert _UPSTREAM_HEAD.fullmatch(head), head


# --- what proxies and engines tell


class _Transport:
    def __init__(self) -> None:
        self.closed = False

    def send(self, wire: bytes) -> None:
        pass

    def close(self, reason: object) -> None:
        self.closed = True


class _Reports:
    def __init__(self, store: LoadStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None

    def on_report(self, node: Node, report: Report, now: float) -> None:
        self.store.accept(node, report, now)


def report(data: bytes) -> None:
    """A frame of a proxy's closes its stream, or is taken; every figure is finite and within its bounds."""
    store = LoadStore()
    hub = Hub(clock=lambda: 1.0, schedule=lambda *_: None, rng=Random(0), limits=Limits(), settle_seconds=0)
    hub.attach(_Reports(store))
    transport = _Transport()
    link = hub.open(transport, ANYONE)
    hub.frame(link, _HELLO)
    hub.frame(link, data)
    json.dumps(hub.info())
    json.dumps(store.info())
    with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = decode_from_proxy(data)
        if isinstance(message, Report):
            store.accept(Node(id="p", role=Role.SIDECAR, boot_id=message.boot_id), message, 1.0)
            for one in message.traffic:
                for rates in (store.route_traffic(one.route, 1.5), store.backend_traffic(one.cluster, 1.5)):
                    assert all(math.isfinite(value) and value >= 0 for value in _numbers(rates)), rates
            load = store.backend(["p"], 1.5)
            assert all(math.isfinite(value) and value >= 0 for value in _numbers(load)), load
    store.sweep(100.0)


def _numbers(value: object) -> Iterator[float]:
    for name in dir(value):
        if not name.startswith("_"):
            one = getattr(value, name)
            if isinstance(one, (int, float)):
                yield one


def load_header(data: bytes) -> None:
    """A load in a header is none, or within its bounds and the same when it is told on; a pause is a time that is not negative."""
    load = decode_load(data)
    if load is not None:
        for name in Load.__struct_fields__:
            value = getattr(load, name)
            assert not isinstance(value, float) or (math.isfinite(value) and value >= 0), name
        again = decode_load(encode_load(load))
        assert again is not None
        assert (again.in_flight, again.queued, again.draining, again.engine_up) == (
            load.in_flight,
            load.queued,
            load.draining,
            load.engine_up,
        )
    seconds = retry_after_seconds(data, 1.8e9)
    assert math.isfinite(seconds)
    assert seconds >= 0


def exposition(data: bytes) -> None:
    """Metrics of an engine's are samples or none."""
    for name in ("vllm:num_requests_running", "a"):
        samples = read_samples(data, name)
        assert samples is None or all(isinstance(sample.value, float) for sample in samples)


LOOP: Final = asyncio.new_event_loop()
_HELLO: Final = encode(Hello(node=Node(id="p", role=Role.SIDECAR, boot_id="b")))
_RESOURCES: Final = tuple(msgspec.Raw(encode_resource(one)) for one in config(1, 2).values())
_GOOD: Final = encode(Update(version="1", nonce="0", epoch=1, full=True, settled=True, resources=_RESOURCES))
TARGETS: Final[dict[str, Target]] = {
    "request-head": request_head,
    "engine-reply": engine_reply,
    "stream-text": stream_text,
    "body": body,
    "snapshot": snapshot,
    "report": report,
    "load-header": load_header,
    "exposition": exposition,
}


def seeds(target: str) -> list[bytes]:  # noqa: PLR0911 - one for each
    """Where to begin: cases of the corpora, and a good one of each kind of message."""
    match target:
        case "request-head":
            return [case["bytes"] for case in cases("requests").values() if len(case["bytes"]) < 4000]
        case "engine-reply":
            files = (cases("replies", file) for file in ("broken", "whole", "corrupt"))
            raw = [case["bytes"] for found in files for case in found.values() if len(case["bytes"]) < 4000]
            return [bytes((flags, 7)) + one for flags in (0, 2, 8, 9, 10, 12) for one in (*raw, stream("a", "b"), reply())]
        case "stream-text":
            return [case["bytes"] for case in cases("streams").values() if len(case["bytes"]) < 4000]
        case "body":
            return [case["bytes"] for case in cases("bodies").values() if len(case["bytes"]) < 4000]
        case "snapshot":
            update = Update(version="2", nonce="1", epoch=1, base="1", resources=_RESOURCES)
            return [
                _GOOD,
                encode(update),
                encode(msgspec.structs.replace(update, full=True)),
                b'{"type":"ping","id":1,"routers":2}',
            ]
        case "report":
            traffic = BackendTraffic(route="d/r", rule="all", cluster="d/c", requests=5, errors=1)
            return [_HELLO, encode(Report("b", 1, Load(in_flight=3), traffic=(traffic,))), encode(Report("b", 0))]
        case "load-header":
            return [
                encode_load(Load(in_flight=3, kv_cache_ratio=0.5)),
                b"TEXT named_metrics.a=1",
                b"120",
                b"Wed, 21 Oct 2026 07:28:00 GMT",
            ]
        case _:
            return [b'# TYPE a gauge\na{b="c",d="e\\n"} 1.5e3 17\na NaN\n', b"vllm:num_requests_running 3\n"]
