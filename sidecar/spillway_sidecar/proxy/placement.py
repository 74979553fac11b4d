"""Where one request on the route listener goes: to which backend and endpoint, with what bytes, or into a queue.

`balancing.choose` says where an attempt goes; what it eliminated on the way is written down in the decision record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from spillway_sidecar.balancing.asleep import asked, is_there
from spillway_sidecar.balancing.choose import Choice, choose, endpoints, supports
from spillway_sidecar.balancing.last_resort import least_bad
from spillway_sidecar.flow.band import Ticket
from spillway_sidecar.proxy.answers import unsupported
from spillway_sidecar.proxy.call import CHOOSING, CONNECTING
from spillway_sidecar.proxy.errors import Outcome, Refusal
from spillway_sidecar.proxy.exchange import Exchange
from spillway_sidecar.proxy.heads import Fields
from spillway_sidecar.proxy.upstream import Target
from spillway_sidecar.routing.classify import BadRequest, Facts
from spillway_sidecar.routing.rewrite import replace_model
from spillway_sidecar.routing.table import Backend, CompiledRoute, CompiledRule
from spillway_sidecar.scheduling.arrivals import Arrivals
from spillway_sidecar.scheduling.filters.eligible import Candidate
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.wait import Turn
from spillway_sidecar.telemetry.decisions import Attempt
from spillway_sidecar.telemetry.stats import BackendStats

if TYPE_CHECKING:
    from spillway_sidecar.proxy.hedge import Hedge
    from spillway_sidecar.proxy.route import RouteSite

MAX_DECLINES: Final = 2  # then a request goes where it thinks best, whatever waits there
_NONE: Final = b""


class Placement(Exchange):
    """The placing of one request, and all that is known of it."""

    __slots__ = (
        "_awaits", "_declines", "_fresh", "_late_at", "_probe", "_retrying", "_serial", "_turn", "_uncounted", "ahead", "asked", "attempts", "backend", "body", "budget", "cost", "facts", "failures", "hedge", "held", "load_format",
        "patience", "priority", "retries", "route", "router", "rule", "sent_at", "stats", "ticket", "tried", "until",
    )  # fmt: skip

    # What the waiting room knows of it: whether it was held, how long it is content to wait, until when it may.
    held: bool
    patience: float
    until: float

    # --- choosing

    def begin(
        self, facts: Facts, body: bytes, route: CompiledRoute[Pool[Target]], rule: CompiledRule[Pool[Target]], fields: Fields
    ) -> None:
        """Takes what the request is and what it comes under; makes the first attempt, waits for room, or says that there is nowhere to go."""
        self.router = cast("RouteSite", self.site)
        self.facts = facts
        self.body = body
        self.route = route
        self.rule = rule
        self.cost = facts.cost
        self.tried: tuple[Target, ...] = ()
        self.retries = 0
        self.backend: Backend[Pool[Target]] | None = None
        self.stats: BackendStats | None = None
        self.attempts: tuple[Attempt, ...] = ()
        self.failures: tuple[str, ...] = ()
        self.hedge: Hedge | None = None
        self._serial = 0
        self._awaits = False
        self._probe = False
        self._retrying = False
        self._declines = 0
        self.load_format = fields.get(b"endpoint-load-metrics-format")
        self._uncounted = 0  # of `tried`
        self._turn: Turn | None = None
        budget = self.budget = self.router.budgets[route.name]
        budget.in_flight += 1
        budget.begun_total += 1
        self.ticket: Ticket[Placement] | None = None
        self.asked: tuple[tuple[Arrivals, int], ...] = ()
        flow = route.flow
        self.priority = flow.priorities.get(fields.get(flow.priority_header, _NONE), 0) if flow.priorities else 0
        try:
            choice = self._choose()
        except Refusal as refusal:
            self.refuse(refusal)
            return
        if rule.wakes:
            self._ask(choice[0] if choice is not None else None)
        if choice is not None and not self.router.waiting.must_wait(self, choice[1]):
            self._go(choice)
        elif choice is None and not self.router.waiting.for_room(self):
            self._hold(fields)
        elif (full_up := self.router.waiting.enter(self, fields)) is not None:
            self.refuse(full_up)

    def _ask(self, backend: Backend[Pool[Target]] | None) -> None:
        """It is demand of a backend that scales; `backend` is where it goes. One that is asked for after a pause may have to be woken."""
        for pool in asked(self.rule, self.facts.type, backend):
            arrivals = pool.arrivals
            if arrivals is not None:
                first = arrivals.quiet
                self.asked = (*self.asked, (arrivals, arrivals.add(self.facts.prompt_tokens)))
                if first and backend is not None and not any(is_there(target) for target in pool.targets):
                    self.router.waiting.woken()

    def put_right(self, prompt_tokens: int, output_tokens: int) -> None:
        """It has ended: what it was as demand is known, if there was an answer."""
        if self.first_byte_at and self.status < 400:
            for arrivals, counted in self.asked:
                arrivals.correct(counted, prompt_tokens, output_tokens)

    def admitted(self, backend: Backend[Pool[Target]], target: Target) -> None:
        """It has waited, and `target` has room."""
        self.facts.limit = 0
        self._go((backend, target, [], None))
        if self.attempts and self.ticket is not None:
            self.attempts = (
                *self.attempts[:-1],
                (*self.attempts[-1][:3], self._waited(self.router.now - self.ticket.arrived)),
            )

    def _waited(self, seconds: float) -> str:
        return f"held {seconds:.3f} s for a first replica" if self.held else f"waited {seconds:.3f} s for room"

    def evicted(self, refusal: Refusal) -> None:
        """It has waited, and gives way to another."""
        self.refuse(refusal)

    def _choose(self) -> Choice[Target] | None:
        site = self.router
        candidates: list[Candidate] | None = [] if site.decisions is not None else None
        choice = choose(self.rule, self.facts, site, self.tried, candidates)
        if choice is not None and choice[1].shut and self.tried:
            # It would be the probe of an endpoint that is half open: no place for a request that has failed once, while one is well.
            half_open = tuple(target for target in endpoints(self.rule) if target.shut)
            choice = choose(self.rule, self.facts, site, (*self.tried, *half_open)) or choice
        if choice is None and (found := least_bad(self.rule, self.facts.type, site.routers, site.now, self.tried)) is not None:
            choice = (*found, candidates or [], None)
        if choice is None:
            if candidates is not None:
                self.attempts = (*self.attempts, ("", "", candidates, None))
            if not supports(self.rule, self.facts.type):
                raise unsupported(self.facts)
        return choice

    def _go(self, choice: Choice[Target], *, fresh: bool = False) -> None:
        site = self.router
        backend, target, candidates, diversion = choice
        if backend is not self.backend:
            self.backend = backend
            if backend.stats is None:
                backend.stats = site.stats.backend(*backend.key)
            self.stats = backend.stats
        if site.decisions is not None and not fresh:
            self.attempts = (
                *self.attempts,
                (backend.name, target.id, candidates, diversion.note() if diversion is not None else None),
            )
        limit = self.facts.limit if self._declines < MAX_DECLINES else 0
        try:
            data = self.request_bytes(backend, target, site.now, limit)
        except BadRequest as error:
            self.target = None
            self.refuse(Refusal(400, Outcome.BAD_REQUEST, error.message))
            return
        self._probe = target.sent(self.cost)
        self._late_at = 0.0
        self.ahead = target.awaits(self.cost)
        self._awaits = True
        self._fresh = fresh
        self._serial += 1
        timeouts = self.route.timeouts
        now = self.sent_at = site.now
        if not fresh:
            if backend.fallback is not None:
                backend.fallback.sent(self, now)
            if diversion is not None and not self.tried and not self._declines:
                self.stats.divert(diversion.cause)  # type: ignore[union-attr]
        turn = self._turn = target.turn if self.facts.stream else None  # a whole reply does not tell when its turn began
        if turn is not None:
            turn.enter(self.cost, now)
        whole, first = self.started + timeouts.request_seconds, now + timeouts.first_token_seconds
        self.deadline = first if first < whole else whole
        if target.inbound:
            wait = timeouts.admission_seconds
            site.waiting_admission[wait].append((now + wait, self, self._serial))  # type: ignore[arg-type]  # all are RouteExchanges
        self.connect(target, data, fresh=fresh)
        if self.state == CONNECTING:
            self.deadline = min(self.deadline, now + timeouts.connect_seconds)

    def request_bytes(self, backend: Backend[Pool[Target]], target: Target, now: float, limit: int = 0) -> bytes:
        """The request as `target` is sent it. `limit`: tokens that may wait before it there, 0 for any. Raises `BadRequest`."""
        facts = self.facts
        body = self.body
        if backend.model != facts.model:
            body = replace_model(body, backend.model)
        ours = _NONE
        if target.inbound:
            left = max(1, int((self.started + self.route.timeouts.request_seconds - now) * 1000))
            ours = b"x-spillway-deadline: %d\r\nx-spillway-prompt-tokens: %d\r\n" % (left, self.cost)
            if self.priority:
                ours += b"x-spillway-priority: %d\r\n" % self.priority
            if limit:
                ours += b"x-spillway-max-waiting: %d\r\n" % limit
        framing = b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (self.request_id, len(body))
        return b"".join((target.heads[facts.type], self.passed, ours, framing, body))

    def connected(self) -> None:
        """A fresh connection is there: what is left to wait for is the first token."""
        timeouts = self.route.timeouts
        self.deadline = min(self.sent_at + timeouts.first_token_seconds, self.started + timeouts.request_seconds)

    def _hold(self, fields: Fields | None = None) -> None:
        """There is no endpoint. Where it waits for the first, what it has tried before is as good as new by then."""
        self.state = CHOOSING
        self.as_new()
        refusal = self.router.waiting.hold(self, fields)
        if refusal is not None:
            self.refuse(refusal)

    def as_new(self) -> None:
        """Where it was before may be tried again; what has been tried counts all the same."""
        self._uncounted -= len(self.tried)
        self.tried = ()

    def _wait_for_room(self) -> None:
        self.state = CHOOSING
        refusal = self.router.waiting.enter(self)
        if refusal is not None:
            self.refuse(refusal)
