"""One request on the route listener: which backend, which endpoint, and what to do when an attempt fails.

`balancing.choose` says where an attempt goes; what it eliminated on the way is written down in the decision record.

An attempt that failed before a byte went out goes elsewhere, never twice to the same endpoint, while attempts, deadline
and the route's retry budget allow. A connection that had been used before and broke unanswered is replaced by a fresh one
outside the budget: keep-alive ended, nothing failed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spillway_sidecar.balancing.choose import Choice, any_open, choose, supports
from spillway_sidecar.proxy.answers import failure, full, nowhere, retry_after_seconds, unsupported
from spillway_sidecar.proxy.call import CONNECTING, OVER, STREAMING, WAITING
from spillway_sidecar.proxy.errors import Outcome, Refusal
from spillway_sidecar.proxy.exchange import Exchange
from spillway_sidecar.proxy.head import ResponseHead
from spillway_sidecar.proxy.record import write_decision, write_line
from spillway_sidecar.proxy.upstream import KEY_REFUSED, Target
from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.routing.rewrite import replace_model
from spillway_sidecar.routing.table import Backend, CompiledRoute, CompiledRule
from spillway_sidecar.scheduling.filters.eligible import Candidate
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.wait import Turn
from spillway_sidecar.telemetry.decisions import Attempt
from spillway_sidecar.telemetry.stats import BackendStats
from spillway_wire.names import Admission
from spillway_wire.orca import decode_load

if TYPE_CHECKING:
    from spillway_sidecar.proxy.route import RouteSite

NOT_ERRORS: Final = (Outcome.OK, Outcome.CLIENT_GONE)
RETRYABLE_STATUSES: Final = frozenset((429, 500, 502, 503, 504))
_LOAD_HEADER: Final = b"endpoint-load-metrics"
_ADMISSION_HEADER: Final = b"x-spillway-admission"
_REFUSED: Final = Admission.REFUSED.value.encode()
_NONE: Final = b""
_OK: Final = Outcome.OK
_GONE: Final = Outcome.CLIENT_GONE
_UPSTREAM_ERROR: Final = Outcome.UPSTREAM_ERROR
_HARD: Final = frozenset((Outcome.CONNECT, Outcome.TLS, Outcome.KEY_REFUSED))  # the next request would fare no better


class RouteExchange(Exchange):
    """One request on the route listener."""

    __slots__ = (
        "_awaits", "_fresh", "_serial", "_turn", "ahead", "attempts", "backend", "body", "budget", "cost", "facts", "failures", "retries", "route", "rule",
        "sent_at", "stats", "tried",
    )  # fmt: skip

    site: RouteSite

    # --- choosing

    def begin(self, facts: Facts, body: bytes, route: CompiledRoute[Pool[Target]], rule: CompiledRule[Pool[Target]]) -> None:
        """Takes what the request is and what it comes under; makes the first attempt, or says that there is nowhere to go."""
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
        self._serial = 0
        self._awaits = False
        self._turn: Turn | None = None
        budget = self.budget = self.site.budgets[route.name]
        budget.in_flight += 1
        try:
            choice = self._choose()
        except Refusal as refusal:
            self.refuse(refusal)
            return
        if choice is None:
            self.refuse(nowhere(self.rule, self.site))
        else:
            self._go(choice)

    def _choose(self) -> Choice[Target] | None:
        site = self.site
        candidates: list[Candidate] | None = [] if site.decisions is not None else None
        choice = choose(self.rule, self.facts, site, self.tried, candidates)
        if choice is None:
            if candidates is not None:
                self.attempts = (*self.attempts, ("", "", candidates, None))
            if not supports(self.rule, self.facts.type):
                raise unsupported(self.facts)
        return choice

    def _go(self, choice: Choice[Target], *, fresh: bool = False) -> None:
        site = self.site
        backend, target, candidates, diversion = choice
        if backend is not self.backend:
            self.backend = backend
            self.stats = site.stats.backends.get(backend.key) or site.stats.backend(*backend.key)
        if site.decisions is not None and not fresh:
            self.attempts = (
                *self.attempts,
                (backend.name, target.id, candidates, diversion.note() if diversion is not None else None),
            )
        target.sent(self.cost)
        self.ahead = target.awaits(self.cost)
        self._awaits = True
        self._fresh = fresh
        self._serial += 1
        timeouts = self.route.timeouts
        now = self.sent_at = site.now
        if not fresh:
            if backend.fallback is not None:
                backend.fallback.sent(self, now)
            if diversion is not None and not self.tried:
                self.stats.divert(diversion.cause)  # type: ignore[union-attr]
        turn = self._turn = target.turn if self.facts.stream else None  # a whole reply does not tell when its turn began
        if turn is not None:
            turn.enter(self.cost, now)
        whole, first = self.started + timeouts.request_seconds, now + timeouts.first_token_seconds
        self.deadline = first if first < whole else whole
        facts = self.facts
        body = self.body
        if backend.model != facts.model:
            body = replace_model(body, backend.model)
        ours = _NONE
        if target.inbound:
            left = max(1, int((whole - now) * 1000))
            ours = b"x-spillway-deadline: %d\r\nx-spillway-prompt-tokens: %d\r\n" % (left, self.cost)
            site.waiting_admission.append((now + site.admission_seconds, self, self._serial))
        framing = b"x-request-id: %b\r\ncontent-length: %d\r\n\r\n" % (self.request_id, len(body))
        self.connect(target, b"".join((target.heads[facts.type], self.passed, ours, framing, body)), fresh=fresh)

    # --- upstream's events

    def interim(self, head: ResponseHead) -> None:
        """The inbound listener's admission answer, with its load."""
        answer = head.fields.get(_ADMISSION_HEADER)
        if answer is not None:
            self._serial += 1  # answered: the admission deadline is not ours any more
            if self.target is not None:
                self.target.heard_at = self.site.clock()
            self._take_load(head)

    def accept(self, head: ResponseHead) -> bool:
        """Errors that another endpoint may not have go elsewhere while that is allowed."""
        if _LOAD_HEADER in head.fields:
            self._take_load(head)
        self._serial += 1  # a final answer without an interim one is an answer too
        status = head.status
        if status < 300:
            return True
        if status in RETRYABLE_STATUSES:
            self.let_go()
            if status == 429 and self.target is not None and not self.target.inbound:
                self.target.limit_rate(retry_after_seconds(head.fields.get(b"retry-after")), self.site.clock())
            refused = head.fields.get(_ADMISSION_HEADER) == _REFUSED and self.target is not None and self.target.inbound
            self._attempt_failed(
                Outcome.OVERLOADED if status == 429 else Outcome.UPSTREAM_ERROR, blame=not refused and status != 429, status=status
            )
            return False
        target = self.target
        if status < 400 or (target is not None and target.external and status in {401, 403}):
            # Redirects are not followed, and not for the client to follow. What a server outside thinks of our account is not the
            # client's either, and the answer may show parts of the key. A 401 is about the key; a 403 may be about one
            # prompt, and must not take the server from everybody.
            self.let_go()
            outcome = Outcome.UPSTREAM_ERROR
            if status == 401 and target is not None:
                outcome = Outcome.KEY_REFUSED
                target.trouble = (KEY_REFUSED, f"{target.host}:{target.port} does not take the key: it answers 401")
            self._attempt_failed(outcome, blame=status != 403, status=status)
            return False
        content_type = head.fields.get(b"content-type", b"")
        if content_type[:16].lower() != b"application/json":
            self.let_go()
            if self.backend is not None and self.backend.fallback is not None:
                self.backend.fallback.answered(self, self.site.clock())
            self._release(now=self.site.clock(), ok=True)
            kept = status if status in (400, 401, 403, 404, 413, 422) else 502
            self.refuse(Refusal(kept, Outcome.UPSTREAM_ERROR, "The model's server refused the request.", code="upstream_error"))
            return False
        return True

    def failed(self, outcome: Outcome, *, reused: bool) -> None:
        """The attempt ended without a reply."""
        target = self.target
        if reused and target is not None and not self._fresh and self.backend is not None:
            self.site.now = self.site.clock()
            self._leave(target)
            target.close_idle()
            self._go((self.backend, target, [], None), fresh=True)
            return
        self._attempt_failed(outcome, blame=True)

    def _attempt_failed(self, outcome: Outcome, *, blame: bool, status: int = 0) -> None:
        site = self.site
        now = site.now = site.clock()
        target = self.target
        assert target is not None  # noqa: S101
        if blame:
            target.failed(now, hard=outcome in _HARD)
        fallback = self.backend.fallback  # type: ignore[union-attr]
        if fallback is not None:
            if blame:
                fallback.failed(self, now)
            else:
                fallback.withdrawn(self)
        self._release(now, ok=False)
        self.failures = (*self.failures, outcome.value)
        self.tried = (*self.tried, target)
        retries = self.route.retries
        if len(self.tried) < retries.max_attempts and now < self.started + self.route.timeouts.request_seconds:
            choice = self._choose()
            if choice is not None and (self.retries or self.budget.take()):
                self.retries += 1
                if self.stats is not None:
                    self.stats.retries += 1
                self._go(choice)
                return
        self._answer(outcome, status)

    def _answer(self, outcome: Outcome, status: int) -> None:
        """No attempt is left: the client is told of the last one."""
        self.refuse(full(self.rule, self.site) if outcome is Outcome.OVERLOADED else failure(outcome, status))

    def _release(self, now: float, *, ok: bool) -> None:
        """The endpoint does not work for this request any more."""
        target, self.target = self.target, None
        if target is not None:
            self._leave(target)
            if ok:
                target.succeeded(now)

    def _leave(self, target: Target) -> None:
        """Gives back what this request holds at an endpoint."""
        target.done(self.cost)
        if self._awaits:
            self._awaits = False
            target.arrived(self.cost)
            if self._turn is not None:
                self._turn.left(self.cost)

    def _take_load(self, head: ResponseHead) -> None:
        value = head.fields.get(_LOAD_HEADER)
        if value is not None and self.target is not None and self.target.inbound:
            load = decode_load(value)
            if load is not None:
                self.target.report(load, self.site.clock())

    def reply_fields(self, status: int) -> bytes:
        """The request's id; an error's origin."""
        if status >= 400:
            return b"x-request-id: %b\r\nx-spillway-reason: upstream_error\r\n" % self.request_id
        return b"x-request-id: %b\r\n" % self.request_id

    def streaming(self) -> None:
        """First byte: learn how long it took; what is left is the whole request's time."""
        self.deadline = self.started + self.route.timeouts.request_seconds
        if self._awaits:
            self._awaits = False
            self.target.arrived(self.cost)  # type: ignore[union-attr]
            if self._turn is not None:
                self._turn.served(self.cost, self.first_byte_at)
        if self.backend.fallback is not None:  # type: ignore[union-attr]
            self.backend.fallback.answered(self, self.first_byte_at)  # type: ignore[union-attr]
        if self.status < 400:
            seconds = self.first_byte_at - self.sent_at
            self.stats.ttft.observe(self.first_byte_at - self.started)  # type: ignore[union-attr]
            self.target.first_token(self.facts.stream, seconds, self.facts.prompt_tokens, self.first_byte_at, self.ahead)  # type: ignore[union-attr]

    # --- the sweep

    def idle_limit(self) -> float:
        """Seconds a stream may be silent."""
        return self.route.timeouts.stream_idle_seconds

    def expire(self, now: float) -> None:
        """Out of time: for the first token, or altogether."""
        if self.state == OVER:
            return
        whole = now >= self.started + self.route.timeouts.request_seconds
        outcome = Outcome.REQUEST_TIMEOUT if whole else Outcome.FIRST_TOKEN_TIMEOUT
        if self.state == STREAMING:
            self.let_go()
            self._interrupt(outcome)
        elif self.state in {CONNECTING, WAITING}:
            self.let_go()
            self._attempt_failed(outcome, blame=True)

    def admission_expired(self, serial: int, now: float) -> None:
        """No admission answer in time: the sidecar is silent, which is not how it is when only the engine is slow.

        One that has answered others meanwhile is busy and not frozen; and with nowhere else to go, waiting loses nothing. Then
        the request goes on waiting and is looked at again.
        """
        target = self.target
        if serial != self._serial or target is None or self.state not in {CONNECTING, WAITING}:
            return
        site = self.site
        if self.state == WAITING and now - target.heard_at > site.admission_seconds and self._elsewhere():
            self.let_go()
            self._attempt_failed(Outcome.ADMISSION_TIMEOUT, blame=True)
        else:
            site.waiting_admission.append((now + site.admission_seconds, self, serial))

    def _elsewhere(self) -> bool:
        """Whether a retry is allowed and another endpoint could take it."""
        if len(self.tried) + 1 >= self.route.retries.max_attempts or not self.budget.has_room:
            return False
        tried = self.tried if self.target is None else (*self.tried, self.target)
        return any_open(self.rule, self.site, tried)

    # --- the end

    def account(self, outcome: Outcome) -> None:
        """Counts the request; gives back what it held."""
        site = self.site
        now = site.now = site.clock()
        self.budget.in_flight -= 1
        if self.retries:
            self.budget.give_back()
        target = self.target
        if target is not None:
            self.target = None
            self._leave(target)
            fallback = self.backend.fallback  # type: ignore[union-attr]
            if outcome is _OK or outcome is _UPSTREAM_ERROR:
                target.succeeded(now)
            elif outcome is not _GONE:
                target.failed(now, hard=False)
                if fallback is not None:
                    fallback.failed(self, now)
            if fallback is not None:
                fallback.withdrawn(self)
        prompt, completion = self.usage()
        if completion is None:
            completion = max(0, self.output_events - 2)  # a role event and [DONE] carry no token
        stats = self.stats
        if stats is None:
            site.stats.refuse(self.route.name, outcome)
        else:
            stats.outcomes[outcome] = stats.outcomes.get(outcome, 0) + 1
            if outcome is _OK:
                stats.duration.observe(now - self.started)
                stats.input_tokens += self.facts.prompt_tokens if prompt is None else prompt
                stats.output_tokens += completion
        if site.decisions is not None:
            write_decision(self, outcome, now)
        if site.access_log is not None:
            write_line(self, outcome, now, prompt, completion)
