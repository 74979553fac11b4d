"""An endpoint's connections under any order of events: a reply reaches the request that it answers, and a kept connection is in nobody's hands."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from tests.fakes.raw_engine import LAST, chunk, reply
from tests.fakes.wires import Wire

from spillway_sidecar.proxy.call import Call
from spillway_sidecar.proxy.errors import Outcome
from spillway_sidecar.proxy.heads import ResponseHead
from spillway_sidecar.proxy.upstream import Target, Upstream
from spillway_sidecar.scheduling.speed import ClusterSpeed

HEAD = b"HTTP/1.1 200 OK\r\n"
# Of a body: the reply, and whether its connection may carry another one.
REPLIES = {
    "length": lambda body: (reply(body), True),
    "chunked": lambda body: (HEAD + b"transfer-encoding: chunked\r\n\r\n" + chunk(body[:2]) + chunk(body[2:]) + LAST, True),
    "interim": lambda body: (b"HTTP/1.1 103 E\r\n\r\n" + reply(body), True),
    "closes": lambda body: (reply(body, head=b"connection: close\r\n"), False),
    "HTTP/1.0": lambda body: (reply(body).replace(b"1.1", b"1.0"), False),
    "and more": lambda body: (reply(body) + b"x", False),
    "twice": lambda body: (reply(body) + reply(b"poison"), False),
}


class Asked(Call):
    """A request that remembers what came for it."""

    __slots__ = ("body", "ends", "got", "rest")

    def __init__(self, number: int, site: Any) -> None:
        super().__init__(site)
        self.body = b"<%08d>" % number
        self.got = b""
        self.ends: list[str] = []
        self.rest = b""  # of its reply, not yet sent

    def replied(self, head: ResponseHead) -> bool:
        assert not self.ends
        self.unframed = True
        return True

    def relay(self, data: bytes) -> None:
        assert not self.ends
        self.got += data

    def completed(self, data: bytes, boundary: int | None = None) -> None:
        assert not self.ends
        self.got += data
        self.ends.append("completed")

    def lost(self, upstream: Upstream, outcome: Outcome) -> None:
        assert not self.ends
        self.ends.append(outcome)


class ConnectionsModel(RuleBasedStateMachine):
    """Requests come, engines answer in pieces, add to it, close and reset; clients leave; idle connections grow old."""

    def __init__(self) -> None:
        super().__init__()
        self.site = SimpleNamespace(now=0.0)
        self.target = Target("a", "127.0.0.1", 1, False, ClusterSpeed())
        self.busy: dict[Upstream, Asked] = {}
        self.number = 0

    @rule()
    def ask(self) -> None:
        self.number += 1
        asked = Asked(self.number, self.site)
        if self.target.idle:
            upstream = self.target.idle.pop()
            assert upstream.used
        else:
            upstream = Upstream(self.target)
            upstream.connection_made(Wire())
        upstream.send(asked, b"request")
        self.busy[upstream] = asked

    @rule(count=st.integers(1, 3), kind=st.sampled_from(["length", "chunked", "interim"]))
    def serve(self, count: int, kind: str) -> None:
        """Some at a time, whole, so that there are connections to keep."""
        begun = len(self.busy)
        for _ in range(count):
            self.ask()
        for upstream, asked in list(self.busy.items())[begun:]:
            del self.busy[upstream]
            upstream.data_received(REPLIES[kind](asked.body)[0])
            assert (asked.ends, asked.got) == (["completed"], asked.body)
            assert upstream in self.target.idle

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), kind=st.sampled_from(sorted(REPLIES)), whole=st.booleans())
    def answer(self, data: st.DataObject, kind: str, whole: bool) -> None:
        upstream, asked = data.draw(st.sampled_from(list(self.busy.items())))
        if asked.rest:
            raw, keeps = asked.rest, True
        else:
            raw, keeps = REPLIES[kind](asked.body)
        cut = len(raw) if whole else data.draw(st.integers(1, len(raw)))
        whole_at = len(raw) - (1 if kind == "and more" else len(reply(b"poison")) if kind == "twice" else 0)
        started = bool(asked.rest)
        upstream.data_received(raw[:cut])
        asked.rest = raw[cut:]
        if not asked.ends:
            assert asked.rest
            return
        del self.busy[upstream]
        assert asked.ends == ["completed"]
        assert asked.got == asked.body
        if not started and (cut == len(raw) or cut == whole_at):
            assert (upstream in self.target.idle) is (keeps or (cut == whole_at < len(raw)))
        if asked.rest and not upstream.transport.is_closing():
            upstream.data_received(asked.rest)  # nobody has asked for it
            assert upstream not in self.target.idle

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        upstream = data.draw(st.sampled_from(list(self.busy)))
        self.busy.pop(upstream).ends.append("left")
        upstream.abort()
        upstream.connection_lost(None)

    @precondition(lambda self: self.busy)
    @rule(data=st.data(), reset=st.booleans())
    def lose(self, data: st.DataObject, reset: bool) -> None:
        upstream, asked = data.draw(st.sampled_from(list(self.busy.items())))
        del self.busy[upstream]
        upstream.connection_lost(ConnectionResetError() if reset else None)
        assert asked.ends == [Outcome.RESET]
        upstream.data_received(b"late")

    @precondition(lambda self: self.busy)
    @rule(data=st.data())
    def spoil(self, data: st.DataObject) -> None:
        upstream, asked = data.draw(st.sampled_from(list(self.busy.items())))
        if not asked.rest:
            del self.busy[upstream]
            upstream.data_received(b"no HTTP\r\n\r\n")
            assert asked.ends == [Outcome.PROTOCOL]
            upstream.connection_lost(None)

    @precondition(lambda self: self.target.idle)
    @rule(data=st.data(), what=st.sampled_from(["bytes", "closed", "reset"]))
    def disturb(self, data: st.DataObject, what: str) -> None:
        upstream = data.draw(st.sampled_from(self.target.idle))
        if what == "bytes":
            upstream.data_received(reply(b"poison"))
            assert upstream.transport.is_closing()
        upstream.connection_lost(ConnectionResetError() if what == "reset" else None)
        assert upstream not in self.target.idle

    @rule(seconds=st.floats(0.0, 100.0), limit=st.none() | st.just(60.0))
    def grow_old(self, seconds: float, limit: float | None) -> None:
        self.site.now += seconds
        self.target.close_idle(None if limit is None else self.site.now - limit)
        assert all(limit is not None and self.site.now - one.idle_since <= limit for one in self.target.idle)

    @rule(draining=st.booleans())
    def drain(self, draining: bool) -> None:
        self.target.mark(draining=draining)
        if draining:
            self.target.close_idle()
            self.target.mark(draining=False)

    @invariant()
    def a_kept_connection_is_in_nobodys_hands(self) -> None:
        idle = self.target.idle
        assert len(set(idle)) == len(idle)
        assert not set(idle) & set(self.busy)
        assert all(one.exchange is None and not one.transport.is_closing() for one in idle)
        assert [one.idle_since for one in idle] == sorted(one.idle_since for one in idle), "the newest last"
        assert all(asked.body.startswith(asked.got) for asked in self.busy.values())
        assert self.target.info()["idle_connections"] == len(idle)


TestConnections = ConnectionsModel.TestCase
TestConnections.settings = settings(max_examples=60, stateful_step_count=30)
