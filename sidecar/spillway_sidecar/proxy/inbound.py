"""The inbound listener: what stands before an engine in its own pod.

A request is answered at once with an interim response that says admitted, queued or refused, with the load; that is how a
router tells a silent sidecar from a slow engine. The limiter holds what the engine gets at a time and how many may wait.
Every final response carries the load. A client that leaves leaves the queue or the engine, whichever it is in.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from spillway_sidecar.flow.limiter import Limiter
from spillway_sidecar.proxy.call import CHOOSING, CONNECTING, OVER, STREAMING
from spillway_sidecar.proxy.downstream import Downstream
from spillway_sidecar.proxy.errors import Outcome, Refusal
from spillway_sidecar.proxy.exchange import Exchange
from spillway_sidecar.proxy.heads import RequestHead, ResponseHead
from spillway_sidecar.proxy.listener import ClientLimits, Listener
from spillway_sidecar.proxy.upstream import Target
from spillway_sidecar.routing.classify import PATHS, estimate_tokens
from spillway_sidecar.scheduling.places import Places
from spillway_sidecar.telemetry.stats import Histogram
from spillway_wire.names import Admission, RequestType

DEFAULT_REQUEST_SECONDS: Final = 600.0
MAX_REQUEST_SECONDS: Final = 86_400.0
RETRY_AFTER_SECONDS: Final = 1
MAX_WAITING_TOKENS: Final = 1_000_000_000
_HEALTH: Final = b"/health"
_PRIORITY: Final = re.compile(rb"-?[0-9]{1,3}")


class InboundSite(Listener):
    """What stands behind an inbound listener: one engine.

    `load_header` gives the value of `endpoint-load-metrics`; `engine_failed` is told of a refused or broken connection,
    `engine_told` what the engine says of its load with a reply.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        engine: Target,
        load_header: Callable[[], bytes],
        engine_up: Callable[[], bool],
        engine_failed: Callable[[], None],
        engine_told: Callable[[bytes], None] = lambda _: None,
        id_prefix: str,
        limits: ClientLimits | None = None,
        connect_seconds: float = 1.0,
    ) -> None:
        super().__init__(
            clock, limits or ClientLimits(), idle_seconds=300.0
        )  # routers keep connections for 60 s: theirs is the choice
        self.connect_seconds = connect_seconds
        self.engine = engine
        self.limiter: Limiter[InboundExchange] = Limiter(256, 128)
        self.load_header = load_header
        self.engine_up = engine_up
        self.engine_failed = engine_failed
        self.engine_told = engine_told
        self.outcomes: dict[str, int] = {}
        self.ttft = Histogram()
        self.output_tokens_total = 0
        self.waiting_tokens = 0  # of requests without a first token
        self.places = Places()
        self._id_prefix = id_prefix.encode()
        self._counter = 0

    # --- Site

    def precheck(self, head: RequestHead) -> None:
        """Path, method, room: a refusal does not wait for a long body."""
        self._request_type(head)

    def handle(self, client: Downstream, head: RequestHead, body: bytes) -> None:
        """Admits, queues or refuses one request."""
        request_type = self._request_type(head)
        now = self.now = self.clock()
        if request_type is None:
            self._health(client, head)
            return
        bound = head.fields.get(b"x-spillway-max-waiting")
        if (
            bound is not None
            and self.waiting_tokens + (self.places.wait_tokens or 0) > _number(bound, self.waiting_tokens, MAX_WAITING_TOKENS)
            and not self.draining
        ):
            self._decline(client, head)
            return
        asked = head.fields.get(b"x-request-id")
        if asked is None or len(asked) > 128:
            self._counter += 1
            asked = b"%b%x" % (self._id_prefix, self._counter)
        InboundExchange(self, client, head, asked, now, request_type, body).begin()

    def refused(self, refusal: Refusal) -> None:
        """Counts a refusal."""
        self.outcomes[refusal.outcome] = self.outcomes.get(refusal.outcome, 0) + 1

    def resize(self, max_concurrency: int, max_queue: int) -> None:
        """New limits from a snapshot; whoever waits and has room starts."""
        for exchange in self.limiter.resize(max_concurrency, max_queue):
            exchange.start()

    @property
    def in_flight(self) -> int:
        """Requests at the engine."""
        return self.limiter.in_flight

    @property
    def queued(self) -> int:
        """Requests waiting."""
        return self.limiter.queued

    @property
    def in_flight_tokens(self) -> int:
        """Estimated tokens of both."""
        return self.limiter.in_flight_tokens + self.limiter.queued_tokens

    @property
    def max_concurrency(self) -> int:
        """Limit on `in_flight`."""
        return self.limiter.max_concurrency

    @property
    def place_tokens(self) -> int | None:
        """What one more request would wait for a place in the engine."""
        return self.places.wait_tokens

    def load_line(self) -> bytes:
        """The header line with the load."""
        return b"endpoint-load-metrics: %b\r\n" % self.load_header()

    def _request_type(self, head: RequestHead) -> RequestType | None:
        path = head.target.partition(b"?")[0]
        request_type = PATHS.get(path)
        if request_type is not None:
            if head.method != b"POST":
                raise Refusal(405, Outcome.METHOD, "This endpoint takes POST.", allow="POST")
            if head.fields.get(b"content-encoding", b"identity").strip().lower() != b"identity":
                raise Refusal(415, Outcome.ENCODING, "Compressed request bodies are not accepted.", close=True)
            return request_type
        if path == _HEALTH and head.method == b"GET":
            return None
        raise Refusal(404, Outcome.NOT_FOUND, "There is no such endpoint here.", code="not_found")

    def _decline(self, client: Downstream, head: RequestHead) -> None:
        """More waits here than the router thought when it chose: another place is better. Nothing is held, and the connection stays."""
        self.outcomes["declined"] = self.outcomes.get("declined", 0) + 1
        client.transport.write(
            b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nx-spillway-admission: declined\r\n"
            + self.load_line()
            + b"\r\n"
        )
        client.finished(head.keep_alive)

    def _health(self, client: Downstream, head: RequestHead) -> None:
        """For probes that come through the sidecar: the engine's health, without a request to it."""
        if self.draining or not self.engine_up():
            raise Refusal(503, Outcome.DRAINING if self.draining else Outcome.NO_ENDPOINT, "The engine is not taking requests.")
        client.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + self.load_line() + b"\r\n")
        client.finished(head.keep_alive)

    def info(self) -> dict[str, object]:
        """Admission and the engine's connection."""
        return {
            "connections": len(self.connections),
            "draining": self.draining,
            "limiter": self.limiter.info(),
            "places": self.places.info(),
            "engine": self.engine.info(),
            "outcomes": dict(self.outcomes),
        }


class InboundExchange(Exchange):
    """One request before the engine."""

    __slots__ = (
        "_asked",
        "_entered",
        "_fresh",
        "_number",
        "_waits",
        "body",
        "inbound",
        "limit",
        "priority",
        "request_type",
        "tokens",
    )

    def __init__(
        self,
        site: InboundSite,
        client: Downstream,
        request: RequestHead,
        request_id: bytes,
        now: float,
        request_type: RequestType,
        body: bytes,
    ) -> None:
        super().__init__(site, client, request, request_id, now)
        self.inbound = site
        self.body = body
        self.request_type = request_type
        self.tokens = _number(request.fields.get(b"x-spillway-prompt-tokens"), estimate_tokens(len(body)), 10_000_000)
        left = _number(
            request.fields.get(b"x-spillway-deadline"), int(DEFAULT_REQUEST_SECONDS * 1000), int(MAX_REQUEST_SECONDS * 1000)
        )
        self.limit = now + left / 1000.0
        self.priority = _priority(request.fields.get(b"x-spillway-priority"))
        self._asked = b"x-spillway-deadline" in request.fields  # a router: it wants the interim answer
        self._entered = False
        self._fresh = False
        self._waits = False  # for its first token
        self._number = 0  # among those that came to the engine

    def begin(self) -> None:
        """Answers with the admission, then starts or waits."""
        site = self.inbound
        if site.draining:
            self._refuse(503, Outcome.DRAINING, "This replica is shutting down.")
            return
        if not site.engine_up():
            self._refuse(503, Outcome.NO_ENDPOINT, "The engine is down.")
            return
        answer = site.limiter.enter(self, self.tokens, self.priority)
        if answer is Admission.REFUSED:
            self._refuse(429, Outcome.OVERLOADED, "This replica is full.")
            return
        self._entered = self._waits = True
        site.waiting_tokens += self.tokens
        self._number = site.places.enter()
        self.deadline = self.limit
        if self._asked:
            position = b"x-spillway-position: %d\r\n" % site.limiter.position(self.priority) if answer is Admission.QUEUED else b""
            self.client.transport.write(
                b"HTTP/1.1 103 Early Hints\r\nx-spillway-admission: %b\r\n%b%b\r\n"
                % (answer.value.encode(), position, site.load_line())
            )
        if answer is Admission.ADMITTED:
            self.start()

    def start(self) -> None:
        """Its turn has come: the engine gets it."""
        if self.state == CHOOSING:
            self._send(fresh=False)

    def _send(self, *, fresh: bool) -> None:
        engine = self.inbound.engine
        lines = [engine.heads[self.request_type], self.passed]
        lines.append(b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (self.request_id, len(self.body)))
        lines.append(self.body)
        self._fresh = fresh
        self.connect(engine, b"".join(lines), fresh=fresh)
        if self.state == CONNECTING:
            self.deadline = min(self.limit, self.inbound.clock() + self.inbound.connect_seconds)

    def connected(self) -> None:
        """The engine has taken a fresh connection."""
        self.deadline = self.limit

    def _refuse(self, status: int, outcome: Outcome, message: str) -> None:
        extra = b"x-spillway-admission: refused\r\n" + self.inbound.load_line()
        self.refuse(Refusal(status, outcome, message, retry_after=RETRY_AFTER_SECONDS), extra)

    # --- upstream's events

    def accept(self, head: ResponseHead) -> bool:
        """The engine's answer is passed on whatever it is; the router decides what to make of it. Its own word on its load stays here."""
        told = head.fields.get(b"endpoint-load-metrics")
        if told is not None:
            self.inbound.engine_told(told)
        return True

    def failed(self, outcome: Outcome, *, reused: bool) -> None:
        """The engine could not be reached or broke off: once more on a fresh connection if the old one had just ended."""
        if reused and not self._fresh:
            self.inbound.engine.close_idle()
            self._send(fresh=True)
            return
        self.inbound.engine_failed()
        if outcome is Outcome.CONNECT and not self.inbound.engine_up():  # it is not there yet: nothing has begun
            self._refuse(503, Outcome.NO_ENDPOINT, "The engine is down.")
            return
        extra = self.inbound.load_line()
        self.refuse(
            Refusal(502, outcome, "The engine could not be reached or broke the connection.", code="upstream_unreachable"), extra
        )

    def reply_fields(self, status: int) -> bytes:
        """The load after this request's share of it."""
        return b"x-request-id: %b\r\n%b" % (self.request_id, self.inbound.load_line())

    def streaming(self) -> None:
        """First byte from the engine."""
        self.deadline = self.limit
        self._arrive()
        if self.status < 400:
            self.inbound.ttft.observe(self.first_byte_at - self.started)
            if self.events:
                self.inbound.places.first_token(self._number, self.tokens, self.started, self.first_byte_at)

    def _arrive(self) -> None:
        if self._waits:
            self._waits = False
            self.inbound.waiting_tokens -= self.tokens

    # --- the sweep

    def idle_limit(self) -> float:
        """The router has its own limit, which is the route's; this one only keeps a dead router from holding a slot."""
        return self.limit - self.started

    def expire(self, now: float) -> None:
        """The router's deadline has passed, or the engine takes no connection."""
        if self.state == OVER:
            return
        if self.state == STREAMING:
            self.let_go()
            self._interrupt(Outcome.REQUEST_TIMEOUT)
        elif self.state == CONNECTING and now < self.limit:
            self.failed(Outcome.CONNECT_TIMEOUT, reused=False)
        else:
            self.refuse(
                Refusal(504, Outcome.REQUEST_TIMEOUT, "The engine did not answer in time.", code="timeout"),
                self.inbound.load_line(),
            )

    # --- the end

    def account(self, outcome: Outcome) -> None:
        """Gives the place back; the next in the queue starts."""
        site = self.inbound
        site.now = site.clock()
        site.outcomes[outcome] = site.outcomes.get(outcome, 0) + 1
        completion = self.usage()[1]
        site.output_tokens_total += max(0, self.output_events - 2) if completion is None else completion
        self._arrive()
        if self._entered:
            self._entered = False
            site.places.end(site.now - self.first_byte_at if self.events and self.first_byte_at else 0.0, site.now)
            for exchange in site.limiter.leave(self):
                exchange.start()


def _priority(value: bytes | None) -> int:
    """What a router says that the request is worth; anything that it would not say is 0."""
    return int(value) if value is not None and _PRIORITY.fullmatch(value) else 0


def _number(value: bytes | None, default: int, limit: int) -> int:
    """A plain number from one of our own headers; anything else is the default."""
    if value is None or not value.isdigit() or len(value) > 12:
        return default
    return min(int(value), limit)
