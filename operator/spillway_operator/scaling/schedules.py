"""Windows of the week in a time zone: which is open, and what they make of the bounds of a backend.

A window is declared in local time (`22:00` to `06:00` on Fridays in Europe/Berlin): it opens on the days named, and where its end is not
after its start it closes on the day after. What counts are the two moments that this means, so a clock that is put forward or
back makes a window longer or shorter and never opens it twice: a time that a clock skips is the same moment by the old offset, and one that it
shows twice is the first. Windows that touch have no gap between them and no overlap.

Of several open windows the first in the list counts. The replicas of a window that is about to open are wanted before: while they
start, the fewest rises, and what else the coming window says waits for its time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Window:
    """Local times and days; 0 is Monday. A zone that is not known raises `ZoneInfoNotFoundError` (a KeyError) when it is asked for."""

    zone: str
    start: time
    end: time
    days: frozenset[int]


@dataclass(frozen=True, slots=True)
class Span:
    """One opening of a window, in UTC; at `ends` it is closed."""

    begins: datetime
    ends: datetime


def span(window: Window, now: datetime, lead_seconds: float = 0.0) -> Span | None:
    """The opening that `now` is in, or that begins within the lead; the earliest of them. `now` is aware."""
    zone = ZoneInfo(window.zone)
    reach = now + timedelta(seconds=max(0.0, lead_seconds))
    day = now.astimezone(zone).date() - _DAY
    last = reach.astimezone(zone).date()
    while day <= last:
        if day.weekday() in window.days:
            closes_on = day if window.end > window.start else day + _DAY
            begins = datetime.combine(day, window.start, zone).astimezone(UTC)
            ends = datetime.combine(closes_on, window.end, zone).astimezone(UTC)
            if begins <= reach and now < ends:
                return Span(begins, ends)
        day += _DAY
    return None


def first_open(windows: Sequence[Window], now: datetime) -> int | None:
    """Index of the first window that is open."""
    return next((index for index, window in enumerate(windows) if span(window, now) is not None), None)


@dataclass(frozen=True, slots=True)
class ReplicaSchedule:
    """Bounds of a backend while a window is open. None: as declared outside."""

    name: str
    window: Window
    least: int | None = None
    most: int | None = None
    lead_seconds: float | None = None  # None: as long as a replica takes to start


@dataclass(frozen=True, slots=True)
class Bounds:
    """Fewest and most replicas of this moment, and which schedules made them: the open one, and those that are ahead."""

    least: int
    most: int
    active: str = ""
    ahead: tuple[str, ...] = ()

    @property
    def told(self) -> str:
        """The schedules in one text: `night`, `day (ahead)`, `night, day (ahead)`."""
        return ", ".join([*([self.active] if self.active else []), *(f"{name} (ahead)" for name in self.ahead)])


def bounds(schedules: Sequence[ReplicaSchedule], declared: Bounds, now: datetime, start_seconds: float) -> Bounds:
    """The bounds of this moment. `start_seconds` is how long a replica takes to be ready, as far as is known."""
    opened = first_open([schedule.window for schedule in schedules], now)
    active = None if opened is None else schedules[opened]
    least = declared.least if active is None or active.least is None else active.least
    most = declared.most if active is None or active.most is None else active.most
    ahead = []
    for schedule in schedules:
        lead = start_seconds if schedule.lead_seconds is None else schedule.lead_seconds
        coming = None if schedule.least is None else span(schedule.window, now, lead)
        if schedule.least is not None and schedule.least > least and coming is not None and coming.begins > now:
            least = schedule.least
            ahead.append(schedule.name)
    return Bounds(least, max(least, most), "" if active is None else active.name, tuple(ahead))
