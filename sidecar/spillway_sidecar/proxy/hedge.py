"""A second try for a request whose first token is late: at another endpoint, beside the first. The first reply wins.

What it costs is bounded by the route's budget: a small share of the traffic. The sweep looks for late first tokens, so a request
that is answered in time knows nothing of all this. The loser's connection is ended at once, so that its engine stops; only
one of the two is ever given to the client. When the first try fails meanwhile, the hedge is the attempt that is left.

Servers outside are not hedged: what they do twice is paid for twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from spillway_sidecar.balancing.choose import Choice, choose
from spillway_sidecar.proxy.call import OVER, Call
from spillway_sidecar.proxy.errors import Outcome
from spillway_sidecar.proxy.heads import ResponseHead
from spillway_sidecar.routing.classify import BadRequest
from spillway_sidecar.scheduling.filters.eligible import Candidate

if TYPE_CHECKING:
    from spillway_sidecar.proxy.attempt import RouteExchange
    from spillway_sidecar.proxy.upstream import Target, Upstream

LATE: Final = "late"  # what a decision record says of a first try whose hedge answered first
NOT_NEEDED: Final = "hedge_lost"


def hedge(exchange: RouteExchange, now: float) -> None:
    """Sends a hedge, if the route allows one more and there is a good place for it."""
    target = exchange.target
    budget = exchange.budget
    if not budget.hedge_percent or target is None or target.external or not exchange.http11:
        return
    if exchange.ticket is not None and exchange.held:
        return  # a replica that has just come up is late, and there is no other
    if len(exchange.tried) + 1 >= exchange.route.retries.max_attempts:
        return
    site = exchange.router
    site.now = now
    candidates: list[Candidate] | None = [] if site.decisions is not None else None
    choice = choose(exchange.rule, exchange.facts, site, (*exchange.tried, target), candidates)
    if choice is None or choice[1].shut or choice[1].external or choice[1].queues(now) or not budget.take_hedge():
        return
    try:
        data = exchange.request_bytes(choice[0], choice[1], now)
    except BadRequest:
        return
    exchange.hedge = Hedge(exchange, choice, now, data)


class Hedge(Call):
    """The second try. It holds its reply's head until the body begins."""

    __slots__ = ("_head", "ahead", "choice", "exchange", "sent_at")

    def __init__(self, exchange: RouteExchange, choice: Choice[Target], now: float, data: bytes) -> None:
        super().__init__(exchange.router)
        self.exchange = exchange
        self.choice = choice
        self.sent_at = now
        self._head: ResponseHead | None = None
        target = choice[1]
        target.sent(exchange.cost)
        self.ahead = target.awaits(exchange.cost)
        self.connect(target, data)

    # --- upstream's events

    def interim(self, head: ResponseHead) -> None:
        """The inbound listener's admission answer."""
        if self.target is not None:
            self.exchange.take_load(self.target, head)

    def replied(self, head: ResponseHead) -> bool:
        """A good reply is held; after any other the first try is waited for alone."""
        if head.status < 300:
            self._head = head
            self.events = head.events
            return True
        target = self.target
        self.let_go()
        if target is not None:
            self.exchange.take_load(target, head)
            self.exchange.take_pause(target, head)
        self.fail(
            Outcome.OVERLOADED if head.status == 429 else Outcome.UPSTREAM_ERROR, blame=head.status >= 500, status=head.status
        )
        return False

    def relay(self, data: bytes) -> None:
        """The first piece of the body: it has won."""
        self._win().relay(data)

    def completed(self, data: bytes, boundary: int | None = None) -> None:
        """The whole reply at once: it has won."""
        self.upstream = None
        self._win().completed(data, boundary)

    def lost(self, upstream: Upstream, outcome: Outcome) -> None:
        """The connection broke before the body began."""
        if upstream is self.upstream:
            self.upstream = None
            self.failed(outcome, reused=upstream.used and not upstream.answered)

    def failed(self, outcome: Outcome, *, reused: bool) -> None:
        """It is not tried again. A kept connection that had ended is nobody's failure."""
        self.fail(outcome, blame=not reused)

    # --- ends

    def _win(self) -> RouteExchange:
        """The exchange goes on with this reply; what it waited for before is let go."""
        exchange = self.exchange
        now = self.site.clock()
        exchange.hedge = None
        loser = exchange.target
        if loser is not None:
            exchange.let_go()
            facts = exchange.facts
            loser.first_token(facts.stream, now - exchange.sent_at, facts.prompt_tokens, now, exchange.ahead)  # so long at least
            exchange.give_up(loser, LATE)
        upstream, self.upstream = self.upstream, None
        self.state = OVER
        exchange.adopt(self.choice, upstream, self.sent_at, self.ahead)
        exchange.partial = self.partial
        assert self._head is not None  # noqa: S101
        exchange.replied(self._head)
        return exchange

    def fail(self, outcome: Outcome, *, blame: bool, status: int = 0) -> None:
        """It got no reply. If the first try failed before it, the request goes on as after any failure."""
        exchange = self.exchange
        target = self._end("failed", outcome.value)
        if target is None:
            return
        if blame:
            exchange.blame(target, outcome, self.sent_at)
        exchange.tried = (*exchange.tried, target)
        if exchange.target is None:
            exchange.next_attempt(outcome, status)

    def drop(self) -> None:
        """It is not needed any more: its connection is ended, so that its engine stops."""
        self.let_go()
        self._end("lost", NOT_NEEDED)

    def expire(self, outcome: Outcome) -> None:
        """The request runs out of time, and this is all that it waits for."""
        self.let_go()
        self.fail(outcome, blame=True)

    def _end(self, result: str, note: str) -> Target | None:
        """Gives back what is held; None if that is done already."""
        target, self.target = self.target, None
        self.state = OVER
        exchange = self.exchange
        if target is None:
            return None
        exchange.hedge = None
        target.done(exchange.cost, probe=False)
        target.arrived(exchange.cost)
        exchange.count_hedge(result, self.choice[0])
        exchange.note_hedge(self.choice, note)
        return target
