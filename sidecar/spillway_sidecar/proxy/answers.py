"""What the client of a route is told when no attempt succeeded, or none could be made; and what an answer asks of us."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import Final

from spillway_sidecar.balancing.choose import any_full, endpoints, seconds_to_room
from spillway_sidecar.proxy.errors import Outcome, Refusal
from spillway_sidecar.proxy.upstream import Target
from spillway_sidecar.routing.classify import Facts
from spillway_sidecar.routing.table import CompiledRule
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.request import View

RETRY_AFTER_SECONDS: Final = 1
_UNREACHED: Final = frozenset((Outcome.CONNECT, Outcome.CONNECT_TIMEOUT, Outcome.TLS, Outcome.ADMISSION_TIMEOUT))


def nowhere(rule: CompiledRule[Pool[Target]], view: View) -> Refusal:
    """No endpoint could be chosen: for want of room, of a key, or of anything that answers."""
    if any_full(rule, view):
        return full(rule, view)
    targets = tuple(endpoints(rule))
    keyless = bool(targets) and all(target.blocked for target in targets)
    return _unreached(Outcome.SECRET_MISSING if keyless else Outcome.NO_ENDPOINT)


def full(rule: CompiledRule[Pool[Target]], view: View) -> Refusal:
    """There are endpoints, and none has room."""
    message = "Every place that serves this model is full."
    return Refusal(429, Outcome.OVERLOADED, message, retry_after=seconds_to_room(rule, view), code="overloaded")


def _unreached(outcome: Outcome) -> Refusal:
    message = "Nothing that serves this model can be reached."
    return Refusal(503, outcome, message, retry_after=RETRY_AFTER_SECONDS, code="no_endpoint")


def unsupported(facts: Facts) -> Refusal:
    """No backend of the rule serves requests of this type."""
    message = f"The model '{facts.model}' does not serve {facts.type.value.lower()} requests."
    return Refusal(400, Outcome.UNSUPPORTED, message, param="model")


def failure(outcome: Outcome, status: int) -> Refusal:
    """The last attempt failed so; `status` is what the endpoint answered, 0 for nothing."""
    if status:
        answer, wait = (503, RETRY_AFTER_SECONDS) if status == 503 else (502, None)
        return Refusal(answer, outcome, "The model's server failed.", code="upstream_error", retry_after=wait)
    if outcome in {Outcome.FIRST_TOKEN_TIMEOUT, Outcome.SILENT, Outcome.REQUEST_TIMEOUT}:
        return Refusal(504, outcome, "The model's server did not answer in time.", code="timeout")
    if outcome in _UNREACHED:
        return _unreached(outcome)
    message = "The model's server broke the connection or its answer is malformed."
    return Refusal(502, outcome, message, code="upstream_unreachable")


def retry_after_seconds(value: bytes | None, wall_now: float | None) -> float:
    """What a Retry-After asks for, in seconds or as a date; 0 for none, and for what is neither."""
    if value is None:
        return 0.0
    if value.isdigit():
        return float(value[:10])
    if wall_now is None:
        return 0.0
    try:
        date = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, OverflowError):
        return 0.0
    return max(0.0, date.timestamp() - wall_now)
