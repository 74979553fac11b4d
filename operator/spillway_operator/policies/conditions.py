"""Decisions and conditions: what a policy says, and how it settles on the conditions that stand.

`settle` keeps `lastTransitionTime` unless the status changes, and hands back the very same condition when nothing changed, so
that "is there anything to write?" is a comparison.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from spillway_operator.api import Condition, condition_of

MAX_MESSAGE_CHARACTERS = 1024  # enough for a few names; a status is not a log
_NAMES_SHOWN = 5


class Verdict(enum.StrEnum):
    """A condition's status."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class Decision:
    """What one policy says."""

    type: str
    status: Verdict
    reason: str
    message: str = ""


def settle(
    standing: Iterable[Condition], decisions: Iterable[Decision], *, generation: int, now: datetime
) -> tuple[Condition, ...]:
    """The conditions after `decisions`, in their order; a type that nobody decides on any more is dropped."""
    before = {condition.type: condition for condition in standing}
    after: list[Condition] = []
    for decision in decisions:
        old = before.get(decision.type)
        new = Condition(
            type=decision.type,
            status=decision.status.value,
            reason=decision.reason,
            message=shorten(decision.message),
            observed_generation=generation,
            last_transition_time=old.last_transition_time if old is not None and old.status == decision.status.value else now,
        )
        after.append(old if old is not None and old == new else new)
    return tuple(after)


def shorten(message: str) -> str:
    """The message within the bound."""
    return message if len(message) <= MAX_MESSAGE_CHARACTERS else message[: MAX_MESSAGE_CHARACTERS - 3] + "..."


def names(items: Iterable[str]) -> str:
    """A few names and how many more: `a, b, c, d, e and 7 more`."""
    all_items = list(items)
    shown = ", ".join(all_items[:_NAMES_SHOWN])
    more = len(all_items) - _NAMES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def is_true(conditions: tuple[Condition, ...], name: str) -> bool:
    """Whether the condition stands and is True."""
    condition = condition_of(conditions, name)
    return condition is not None and condition.status == Verdict.TRUE.value
