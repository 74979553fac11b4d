"""One request on the route listener: what becomes of an attempt (`placement` says where it goes), and what to do when it fails.

An attempt that failed before a byte went out goes elsewhere, never twice to the same endpoint, while attempts, deadline
and the route's retry budget allow. A connection that had been used before and broke unanswered is replaced by a fresh one
outside the budget: keep-alive ended, nothing failed.
"""

from __future__ import annotations

from typing import Final

from spillway_sidecar.balancing.choose import Choice, any_open
from spillway_sidecar.proxy.answers import failure, full, retry_after_seconds
from spillway_sidecar.proxy.call import CHOOSING, CONNECTING, OVER, STREAMING, WAITING
from spillway_sidecar.proxy.errors import Outcome, Refusal
from spillway_sidecar.proxy.heads import ResponseHead
from spillway_sidecar.proxy.hedge import hedge
from spillway_sidecar.proxy.placement import Placement
from spillway_sidecar.proxy.record import write_decision, write_line
from spillway_sidecar.proxy.upstream import KEY_REFUSED, Target, Upstream
from spillway_sidecar.routing.table import Backend
from spillway_sidecar.scheduling.health import Ejection
from spillway_sidecar.scheduling.outliers import overdue
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.scorers.scale import fresh
from spillway_wire.names import Admission
from spillway_wire.orca import decode_load, encode_load, encode_load_text

NOT_ERRORS: Final = (Outcome.OK, Outcome.CLIENT_GONE)
RETRYABLE_STATUSES: Final = frozenset((429, 500, 502, 503, 504))
_LOAD_HEADER: Final = b"endpoint-load-metrics"
_ADMISSION_HEADER: Final = b"x-spillway-admission"
_REFUSED: Final = Admission.REFUSED.value.encode()
_DECLINED: Final = Admission.DECLINED.value.encode()
_NONE: Final = b""
_OK: Final = Outcome.OK
_GONE: Final = Outcome.CLIENT_GONE
_UPSTREAM_ERROR: Final = Outcome.UPSTREAM_ERROR
_HARD: Final = frozenset(
    (Outcome.CONNECT, Outcome.CONNECT_TIMEOUT, Outcome.TLS, Outcome.KEY_REFUSED)
)  # the next request would fare no better


_NEVER: Final = float("inf")
MAX_REFUSALS: Final = 3  # by sidecars that are full, after which a request waits no more
LATE_AFTER_SECONDS: Final = 0.1  # at least: the sweep looks no oftener


class RouteExchange(Placement):
    """One request on the route listener: its attempts, and how they end."""

    __slots__ = ()

    # --- upstream's events

    def interim(self, head: ResponseHead) -> None:
        """The inbound listener's admission answer, with its load."""
        answer = head.fields.get(_ADMISSION_HEADER)
        if answer is not None:
            self._serial += 1  # answered: the admission deadline is not ours any more
            if self.target is not None:
                self.take_load(self.target, head)
                load = self.target.load
                if load is not None and load.waiting_tokens is not None and load.waiting_tokens >= self.cost:
                    self.ahead = load.waiting_tokens - self.cost

    def accept(self, head: ResponseHead) -> bool:  # noqa: PLR0911 - one return for each kind of answer
        """Errors that another endpoint may not have go elsewhere while that is allowed."""
        if head.status == 429 and head.fields.get(_ADMISSION_HEADER) == _DECLINED and self._declined(head):
            return False
        if _LOAD_HEADER in head.fields and self.target is not None:
            self.take_load(self.target, head, self.cost if self._awaits else 0)
        self._serial += 1  # a final answer without an interim one is an answer too
        status = head.status
        if status < 300:
            return True
        if status in RETRYABLE_STATUSES:
            self.let_go()
            self.take_pause(self.target, head)
            refused = head.fields.get(_ADMISSION_HEADER) == _REFUSED and self.target is not None and self.target.inbound
            if refused and status == 429 and self._wait_again(head):
                return False
            self._attempt_failed(
                Outcome.OVERLOADED if status == 429 else Outcome.UPSTREAM_ERROR,
                blame=not refused and status != 429,
                status=status,
                counts=not refused or status == 429,
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
                self.backend.fallback.answered(self, self.router.clock())
            self._release(now=self.router.clock(), ok=True)
            kept = status if status in (400, 401, 403, 404, 413, 422) else 502
            self.refuse(Refusal(kept, Outcome.UPSTREAM_ERROR, "The model's server refused the request.", code="upstream_error"))
            return False
        return True

    def _declined(self, head: ResponseHead) -> bool:
        """More waits there than was thought: chooses again, by what it has told. That is neither a failure nor an attempt."""
        target, upstream = self.target, self.upstream
        if self.hedge is not None or target is None or upstream is None or not target.inbound:
            return False
        site = self.router
        now = site.now = site.clock()
        self._serial += 1
        self._declines += 1
        self.upstream = None
        upstream.spare(self)
        if self.backend is not None and self.backend.fallback is not None:
            self.backend.fallback.withdrawn(self)
        self._release(now, ok=False)
        self.take_load(target, head)
        self.failures = (*self.failures, Admission.DECLINED.value)
        self.state = CHOOSING
        choice = self._choose()
        if choice is not None and not site.waiting.must_wait(self, choice[1]):
            self._go(choice)
        elif choice is None and not site.waiting.for_room(self):
            self._hold()
        else:
            self._wait_for_room()
        return True

    def _wait_again(self, head: ResponseHead) -> bool:
        """A full sidecar has refused: another router was quicker. The request waits for room again."""
        patient = len(self.failures) < MAX_REFUSALS or (self.ticket is not None and self.held)
        if self.hedge is not None or not patient or not self.route.flow.max_requests:
            return False
        site, target = self.router, self.target
        now = site.now = site.clock()
        if self.backend is not None and self.backend.fallback is not None:
            self.backend.fallback.withdrawn(self)
        self._release(now, ok=False)
        self.take_load(target, head)  # type: ignore[arg-type]  # which does not count this request
        self.failures = (*self.failures, Outcome.OVERLOADED.value)
        self._wait_for_room()
        return True

    def failed(self, outcome: Outcome, *, reused: bool) -> None:
        """The attempt ended without a reply."""
        target = self.target
        if reused and target is not None and not self._fresh and self.backend is not None and self.hedge is None:
            self.router.now = self.router.clock()
            self._leave(target)
            target.close_idle()
            self._go((self.backend, target, [], None), fresh=True)
            return
        self._attempt_failed(outcome, blame=True)

    def _attempt_failed(self, outcome: Outcome, *, blame: bool, status: int = 0, counts: bool = True) -> None:
        """The attempt is over. It does not count where nothing can have begun (refused, or turned away), or where it was our own probe."""
        if self._probe or (outcome is Outcome.CONNECT and self._uncounted < MAX_REFUSALS and self.route.retries.max_attempts > 1):
            counts = False
        site = self.router
        now = site.now = site.clock()
        target = self.target
        assert target is not None  # noqa: S101
        if blame:
            self.blame(target, outcome, self.sent_at)
        fallback = self.backend.fallback  # type: ignore[union-attr]
        if fallback is not None:
            if blame:
                fallback.failed(self, now)
            else:
                fallback.withdrawn(self)
        self._release(now, ok=False)
        self.failures = (*self.failures, outcome.value)
        self.tried = (*self.tried, target)
        self._uncounted += not counts
        self.reframed = self.unframed = False
        hedge = self.hedge
        if hedge is not None:  # it is the attempt now
            self.state = WAITING
            timeouts = self.route.timeouts
            self.deadline = min(hedge.sent_at + timeouts.first_token_seconds, self.started + timeouts.request_seconds)
        else:
            self.next_attempt(outcome, status, counts=counts)

    def blame(self, target: Target, outcome: Outcome, sent_at: float) -> None:
        """The failure of an attempt is the endpoint's."""
        target.failed(self.router.now, hard=outcome in _HARD, sent_at=sent_at)

    def next_attempt(self, outcome: Outcome, status: int, *, counts: bool = True) -> None:
        """Goes elsewhere after a failure, while attempts, deadline and budget allow; else tells the client of it."""
        attempts = len(self.tried) - self._uncounted
        if attempts < self.route.retries.max_attempts and self.router.now < self.started + self.route.timeouts.request_seconds:
            choice = self._choose()
            waiting = self.router.waiting
            room = choice is None and waiting.for_room(self)
            if (choice is not None or room or waiting.holds(self)) and (not counts or self._retrying or self.budget.take()):
                self._retrying = self._retrying or counts
                self.retries += 1
                if self.stats is not None:
                    self.stats.retries += 1
                if choice is not None:
                    self._go(choice)
                elif room:
                    self._wait_for_room()
                else:
                    self._hold()
                return
        self._answer(outcome, status)

    def _answer(self, outcome: Outcome, status: int) -> None:
        """No attempt is left: the client is told of the last one."""
        self.refuse(full(self.rule, self.router) if outcome is Outcome.OVERLOADED else failure(outcome, status))

    def _release(self, now: float, *, ok: bool) -> None:
        """The endpoint does not work for this request any more."""
        target, self.target = self.target, None
        if target is not None:
            self._leave(target)
            if ok:
                target.succeeded(now, self.sent_at)

    def _leave(self, target: Target) -> None:
        """Gives back what this request holds at an endpoint."""
        target.done(self.cost, probe=self._probe)
        self._probe = False
        if target.turn is not None:
            target.turn.ended(self.router.now, target.queue_now(self.router.now))
        if self.router.waiting.count:
            self.router.waiting.freed(self.backend, target)
        if self._awaits:
            self._awaits = False
            target.arrived(self.cost)
            if self._turn is not None:
                self._turn.left(self.cost)

    def take_load(self, target: Target, head: ResponseHead, arrived_tokens: int = 0) -> None:
        """What a sidecar says of its load, with the admission answer or the reply; or an engine without one, which is asked to.

        `arrived_tokens`: of a request that it counts no more, since its first token is there.
        """
        if not target.external:
            target.heard_at = self.router.clock()
            value = head.fields.get(_LOAD_HEADER)
            load = decode_load(value) if value is not None else None
            if load is not None:
                target.report(load, target.heard_at, arrived_tokens)
                if self.router.waiting.count:
                    self.router.waiting.freed(self.backend, target)

    def take_pause(self, target: Target | None, head: ResponseHead) -> None:
        """What a server without a sidecar says of when it wants to be asked again; a sidecar says it by its load."""
        value = head.fields.get(b"retry-after")
        if target is None or target.inbound or (head.status != 429 and (value is None or head.status != 503)):
            return
        wall_clock = self.router.wall_clock
        target.limit_rate(retry_after_seconds(value, wall_clock() if wall_clock is not None else None), self.router.clock())

    def reply_fields(self, status: int) -> bytes:
        """The request's id; an error's origin; the endpoint's load, where the client has asked for it."""
        if status >= 400:
            return b"x-request-id: %b\r\nx-spillway-reason: upstream_error\r\n" % self.request_id
        if (
            self.load_format is not None
            and self.target is not None
            and (load := fresh(self.target, self.router.clock())) is not None
        ):
            told = encode_load_text(load) if self.load_format.lower() == b"text" else encode_load(load)
            return b"x-request-id: %b\r\nendpoint-load-metrics: %b\r\n" % (self.request_id, told)
        return b"x-request-id: %b\r\n" % self.request_id

    def streaming(self) -> None:
        """First byte: learn how long it took; what is left is the whole request's time."""
        if self._retrying or self.hedge is not None:
            self._settle()
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
            self.target.replied_at = self.first_byte_at  # type: ignore[union-attr]
            if self._probe:
                self._probe = False
                self.target.succeeded(self.first_byte_at, self.sent_at)  # type: ignore[union-attr]
            self.stats.ttft.observe(self.first_byte_at - self.started)  # type: ignore[union-attr]
            self.target.first_token(self.facts.stream, seconds, self.facts.prompt_tokens, self.first_byte_at, self.ahead)  # type: ignore[union-attr]

    # --- the sweep

    def idle_limit(self) -> float:
        """Seconds a stream may be silent."""
        return self.route.timeouts.stream_idle_seconds

    def expire(self, now: float) -> None:
        """Out of time: for a connection, for the first token, or altogether."""
        if self.state == OVER:
            return
        timeouts = self.route.timeouts
        if now >= self.started + timeouts.request_seconds:
            outcome = Outcome.REQUEST_TIMEOUT
        elif self.state == CONNECTING and now < self.sent_at + timeouts.first_token_seconds:
            outcome = Outcome.CONNECT_TIMEOUT
        else:
            outcome = Outcome.FIRST_TOKEN_TIMEOUT
        if self.state == STREAMING:
            self.let_go()
            self._interrupt(outcome)
        elif self.state in {CONNECTING, WAITING}:
            self.router.now = now
            if self.hedge is not None and self.target is not None and outcome is Outcome.REQUEST_TIMEOUT:
                self.hedge.drop()
            if self.target is None:
                self.hedge.expire(outcome)  # type: ignore[union-attr]
                return
            self.let_go()
            self._attempt_failed(outcome, blame=True)
        else:
            self.router.now = now
            self.refuse(self.router.waiting.out_of_time(self))

    def wait(self, now: float) -> None:
        """Still no first token: late, it is worth a hedge; overdue, it tells of its endpoint, and goes on elsewhere once that is out."""
        target = self.target
        if target is None:
            return  # only the hedge is left
        if not self._late_at:
            facts = self.facts
            late = target.speed.late_seconds(facts.stream, facts.prompt_tokens, self.ahead)
            self._late_at = self.sent_at + max(late, LATE_AFTER_SECONDS) if late else _NEVER
        if now < self._late_at:
            return
        target.waits_overdue += overdue(now - self.sent_at, self._late_at - self.sent_at)
        if target.ejected is Ejection.SILENT:
            self.router.now = now
            if self._elsewhere():
                self.let_go()
                self._attempt_failed(Outcome.SILENT, blame=True)
        elif self.hedge is None:
            hedge(self, now)

    def admission_expired(self, serial: int, now: float) -> None:
        """No admission answer in time: the sidecar is silent, which is not how it is when only the engine is slow.

        One that has answered others meanwhile is busy and not frozen; and with nowhere else to go, waiting loses nothing. Then
        the request goes on waiting and is looked at again.
        """
        target = self.target
        if serial != self._serial or target is None or self.state not in {CONNECTING, WAITING}:
            return
        site = self.router
        wait = self.route.timeouts.admission_seconds
        if self.state == WAITING and now - target.heard_at > wait and self._elsewhere():
            self.let_go()
            self._attempt_failed(Outcome.ADMISSION_TIMEOUT, blame=True)
        else:
            site.waiting_admission[wait].append((now + wait, self, serial))

    def _elsewhere(self) -> bool:
        """Whether a retry is allowed and another endpoint could take it."""
        if self.hedge is not None:
            return True
        if len(self.tried) + 1 >= self.route.retries.max_attempts or not (self._retrying or self.budget.has_room):
            return False
        tried = self.tried if self.target is None else (*self.tried, self.target)
        return any_open(self.rule, self.router, tried)

    # --- a hedge

    def give_up(self, target: Target, note: str) -> None:
        """The first try is not waited for any more: its hedge answers."""
        self._leave(target)
        self.target = None
        if self.backend is not None and self.backend.fallback is not None:
            self.backend.fallback.withdrawn(self)
        self.tried = (*self.tried, target)
        self.failures = (*self.failures, note)

    def adopt(self, choice: Choice[Target], upstream: Upstream | None, sent_at: float, ahead: int) -> None:
        """The hedge's attempt is this exchange's from now on."""
        backend, self.target, candidates, _ = choice
        self.backend = backend
        self.stats = self.router.stats.backend(*backend.key)
        if self.router.decisions is not None:
            self.attempts = (*self.attempts, (backend.name, self.target.id, candidates, None))
        self.upstream = upstream
        if upstream is not None:
            upstream.exchange = self
        self.state = WAITING
        self.sent_at, self.ahead, self._awaits, self._turn = sent_at, ahead, True, None
        if backend.fallback is not None:
            backend.fallback.sent(self, sent_at)
        self.reframed = self.unframed = False
        self.count_hedge("won", backend)

    def note_hedge(self, choice: Choice[Target], note: str) -> None:
        """Writes a hedge down that was not taken, before the attempt that still is."""
        if self.router.decisions is None:
            return
        attempt = (choice[0].name, choice[1].id, choice[2], None)
        kept = () if self.target is None else self.attempts[-1:]
        self.attempts = (*self.attempts[: len(self.attempts) - len(kept)], attempt, *kept)
        self.failures = (*self.failures, note)

    def count_hedge(self, result: str, backend: Backend[Pool[Target]]) -> None:
        """Counts how a hedge ended, under the backend that it went to."""
        hedges = self.router.stats.backend(*backend.key).hedges
        hedges[result] = hedges.get(result, 0) + 1

    # --- the end

    def _settle(self) -> None:
        """There is an answer, or none will come: what was spent beyond the first try is given back."""
        if self._retrying:
            self._retrying = False
            self.budget.give_back()
        if self.hedge is not None:
            self.hedge.drop()

    def account(self, outcome: Outcome) -> None:
        """Counts the request; gives back what it held."""
        site = self.router
        now = site.now = site.clock()
        self.budget.in_flight -= 1
        if self._retrying or self.hedge is not None:
            self._settle()
        target = self.target
        if target is not None:
            self.target = None
            self._leave(target)
            fallback = self.backend.fallback  # type: ignore[union-attr]
            if outcome is _OK or outcome is _UPSTREAM_ERROR:
                target.succeeded(now, self.sent_at)
            elif outcome is not _GONE:
                target.failed(now, hard=False, sent_at=self.sent_at)
                if fallback is not None:
                    fallback.failed(self, now)
            if fallback is not None:
                fallback.withdrawn(self)
        prompt, completion = self.usage()
        if completion is None:
            completion = max(0, self.output_events - 2)  # a role event and [DONE] carry no token
        read = self.facts.prompt_tokens if prompt is None else prompt
        if self.asked:
            self.put_right(read, completion)
        if self.ticket is not None:
            site.waiting.over(self, read, completion)
        self._count(outcome, now, read, completion)
        if site.decisions is not None:
            write_decision(self, outcome, now)
        if site.access_log is not None:
            write_line(self, outcome, now, prompt, completion)

    def _count(self, outcome: Outcome, now: float, input_tokens: int, output_tokens: int) -> None:
        """Counts the request under its backend, or under its route where it has reached none."""
        stats = self.stats
        if stats is None:
            self.router.stats.refuse(self.route.name, outcome)
            return
        if outcome is not _OK:
            stats.outcomes[outcome] = stats.outcomes.get(outcome, 0) + 1
        else:
            stats.outcomes["ok"] = stats.outcomes.get("ok", 0) + 1  # a plain string: an enum's hash is called through Python
            stats.duration.observe(now - self.started)
            stats.input_tokens += input_tokens
            stats.output_tokens += output_tokens
