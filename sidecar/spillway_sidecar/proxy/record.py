"""What is written down of a request on the route listener when it has ended: its decision record, its line of the access log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spillway_sidecar.proxy.errors import Outcome
from spillway_sidecar.telemetry.decisions import Decision

if TYPE_CHECKING:
    from spillway_sidecar.proxy.attempt import RouteExchange


def write_decision(exchange: RouteExchange, outcome: Outcome, now: float) -> None:
    """Adds the record to the site's ring."""
    site, facts = exchange.router, exchange.facts
    failures = exchange.failures
    if outcome is not Outcome.OK and len(failures) < len(exchange.attempts):
        failures = (*failures, outcome.value)
    site.decisions.add(  # type: ignore[union-attr]
        Decision(
            exchange.request_id, facts.type, facts.model, facts.stream, facts.prompt_tokens, exchange.route.name, exchange.rule.name, site.version,
            site.routers, exchange.attempts, failures, outcome, exchange.status,
            exchange.first_byte_at - exchange.started if exchange.first_byte_at else None, now - exchange.started,
            exchange.rule.profile.name, exchange.rule.profile.parts,
        )
    )  # fmt: skip


def write_line(exchange: RouteExchange, outcome: Outcome, now: float, prompt: int | None, completion: int) -> None:
    """Adds the line to the site's access log."""
    site = exchange.router
    site.access_log.add(  # type: ignore[union-attr]
        round(site.wall_clock(), 3) if site.wall_clock else None,
        exchange.request_id.decode(),
        exchange.facts.model,
        exchange.route.name,
        exchange.rule.name,
        exchange.backend.name if exchange.backend else None,
        exchange.attempts[-1][1] if exchange.attempts else None,
        exchange.status,
        outcome,
        round(exchange.first_byte_at - exchange.started, 6) if exchange.first_byte_at else None,
        round(now - exchange.started, 6),
        len(exchange.tried) + 1,
        prompt,
        completion,
    )
