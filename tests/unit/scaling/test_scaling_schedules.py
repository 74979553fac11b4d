"""Windows of local time, and the bounds that schedules make."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_operator.scaling.schedules import Bounds, ReplicaSchedule, Window, bounds, first_open, span

EVERY_DAY = frozenset(range(7))
BERLIN = ZoneInfo("Europe/Berlin")


def window(start: str, end: str, *days: int, zone: str = "Europe/Berlin") -> Window:
    return Window(zone, time.fromisoformat(start), time.fromisoformat(end), frozenset(days) or EVERY_DAY)


def at(text: str, zone: ZoneInfo = BERLIN, fold: int = 0) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).astimezone(UTC)


def hours(found: Window, since: datetime, days: int = 1) -> float:
    """How long it is open."""
    minutes = days * 24 * 60
    return sum(span(found, since + timedelta(minutes=minute)) is not None for minute in range(minutes)) / 60


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [
        ("2026-11-20 07:59:59", False),  # a Friday
        ("2026-11-20 08:00", True),
        ("2026-11-20 17:59:59", True),
        ("2026-11-20 18:00", False),
        ("2026-11-21 12:00", False),
    ],
)
def test_a_window_opens_at_its_start_and_is_closed_at_its_end(moment: str, is_open: bool):
    assert (span(window("08:00", "18:00", 0, 1, 2, 3, 4), at(moment)) is not None) is is_open


@pytest.mark.parametrize(
    ("moment", "is_open"),
    [("2026-11-20 22:00", True), ("2026-11-21 05:59", True), ("2026-11-21 06:00", False), ("2026-11-21 22:30", False)],
)
def test_a_window_over_midnight_belongs_to_the_day_on_which_it_begins(moment: str, is_open: bool):
    assert (span(window("22:00", "06:00", 4), at(moment)) is not None) is is_open


def test_the_same_start_and_end_are_a_whole_day():
    found = window("09:00", "09:00", 5)
    assert span(found, at("2026-11-21 09:00")) is not None
    assert span(found, at("2026-11-22 08:59")) is not None
    assert span(found, at("2026-11-22 09:00")) is None


def test_days_are_those_of_the_zone():
    """Sunday evening in New York is Monday in UTC."""
    found = window("20:00", "23:00", 6, zone="America/New_York")
    assert span(found, datetime(2026, 11, 23, 2, 0, tzinfo=UTC)) is not None
    assert span(found, datetime(2026, 11, 22, 2, 0, tzinfo=UTC)) is None


@pytest.mark.parametrize(
    ("start", "end", "day", "expected"),
    [
        ("01:00", "05:00", "2026-03-29", 3.0),  # 02:00 becomes 03:00
        ("01:00", "05:00", "2026-10-25", 5.0),  # 03:00 becomes 02:00
        ("02:15", "02:45", "2026-10-25", 0.5),  # comes twice, is open once
        ("02:15", "02:45", "2026-03-29", 0.5),  # never comes, is open by the old offset
        ("22:00", "06:00", "2026-03-28", 7.0),
    ],
)
def test_a_clock_that_is_put_forward_or_back_opens_a_window_once(start: str, end: str, day: str, expected: float):
    weekday = datetime.fromisoformat(day).weekday()
    assert hours(window(start, end, weekday), at(f"{day} 00:00") - timedelta(hours=12), days=2) == expected


@pytest.mark.parametrize("day", ["2026-03-29", "2026-10-25", "2026-06-01"])
@pytest.mark.parametrize("edge", ["02:00", "02:30", "03:00"])
def test_windows_that_touch_have_no_gap_and_no_overlap(day: str, edge: str):
    one, other = window("00:00", edge), window(edge, "00:00")
    for minute in range(0, 30 * 60, 7):
        now = at(f"{day} 00:00") + timedelta(minutes=minute)
        assert (span(one, now) is None) != (span(other, now) is None)


@given(
    start=st.times(timezones=st.none()).map(lambda each: each.replace(second=0, microsecond=0)),
    end=st.times(timezones=st.none()).map(lambda each: each.replace(second=0, microsecond=0)),
    days=st.frozensets(st.integers(0, 6), min_size=1),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Apia"]),
    now=st.datetimes(datetime(2026, 1, 1), datetime(2028, 1, 1)).map(lambda each: each.replace(tzinfo=UTC)),  # noqa: DTZ001 - hypothesis takes naive bounds
    lead=st.floats(0, 7200),
)
def test_what_is_open_holds_the_moment(start: time, end: time, days: frozenset[int], zone: str, now: datetime, lead: float):
    found = span(Window(zone, start, end, days), now, lead)
    if found is not None:
        assert found.begins <= now + timedelta(seconds=lead)
        assert now < found.ends
        assert timedelta(0) < found.ends - found.begins <= timedelta(hours=26)


def test_a_zone_that_is_not_known_is_an_error():
    with pytest.raises(KeyError):
        span(window("08:00", "18:00", zone="Europe/Nowhere"), at("2026-11-20 12:00"))


def test_the_first_open_window_counts():
    windows = [window("08:00", "10:00"), window("09:00", "12:00")]
    assert [first_open(windows, at(f"2026-11-20 {hour}:30")) for hour in ("07", "09", "11")] == [None, 0, 1]


DAY = ReplicaSchedule("day", window("08:00", "18:00"), least=6, most=12)
NIGHT = ReplicaSchedule("night", window("22:00", "06:00"), most=3)
DECLARED = Bounds(1, 10)


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        ("2026-11-20 20:00", DECLARED),
        ("2026-11-20 12:00", Bounds(6, 12, "day")),
        ("2026-11-20 23:00", Bounds(1, 3, "night")),
        ("2026-11-20 07:55:01", Bounds(6, 10, "", ("day",))),  # the most of a coming window waits for its time
        ("2026-11-20 07:54:59", DECLARED),
    ],
)
def test_bounds_are_those_of_the_hour_and_the_fewest_come_ahead(moment: str, expected: Bounds):
    assert bounds([DAY, NIGHT], DECLARED, at(moment), 300.0) == expected


def test_a_declared_lead_counts_in_place_of_the_learned_one():
    early = ReplicaSchedule("day", DAY.window, least=6, lead_seconds=3600.0)
    assert bounds([early], DECLARED, at("2026-11-20 07:01"), 10.0).least == 6


def test_what_comes_ahead_raises_the_most_of_the_window_before_it():
    """Six replicas for eight o'clock start while the night still says three."""
    night = ReplicaSchedule("night", window("22:00", "08:00"), most=3)
    found = bounds([night, DAY], DECLARED, at("2026-11-20 07:58"), 300.0)
    assert (found.least, found.most, found.told) == (6, 6, "night, day (ahead)")
