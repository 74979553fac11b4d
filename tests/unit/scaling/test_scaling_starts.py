"""How long a replica takes to start, learned from two numbers."""

from __future__ import annotations

from spillway_operator.scaling.starts import UNKNOWN_SECONDS, Starts


def observed(*seen: tuple[float, int, int]) -> Starts:
    starts = Starts()
    for now, asked_for, ready in seen:
        starts.observe(now, asked_for, ready)
    return starts


def test_until_one_was_seen_it_is_a_guess():
    assert observed((0, 1, 1)).info() == {"seconds": UNKNOWN_SECONDS, "learned": False, "starting": 0}


def test_a_start_lasts_from_being_asked_for_to_being_ready():
    starts = observed((0, 1, 1), (10, 3, 1), (50, 3, 2))
    assert starts.info() == {"seconds": 40.0, "learned": True, "starting": 1}


def test_a_longer_one_counts_at_once_and_shorter_ones_by_and_by():
    starts = observed((0, 1, 1), (10, 2, 1), (50, 2, 2), (60, 3, 2), (160, 3, 3))
    assert starts.seconds == 100.0
    starts.observe(170, 4, 3)
    starts.observe(180, 4, 4)
    assert 80.0 < starts.seconds < 100.0


def test_what_was_starting_before_we_looked_teaches_nothing():
    starts = observed((0, 3, 1), (5, 4, 1), (8, 4, 3), (65, 4, 4))
    assert starts.seconds == 60.0


def test_those_that_are_taken_back_are_not_waited_for():
    starts = observed((0, 1, 1), (10, 4, 1), (20, 2, 1), (70, 2, 2))
    assert starts.seconds == 60.0
    assert starts.info()["starting"] == 0


def test_a_replica_that_was_away_and_comes_back_has_not_started():
    assert observed((0, 3, 3), (10, 3, 2), (12, 3, 3)).learned_seconds is None


def test_what_took_for_hours_is_no_start():
    assert observed((0, 1, 1), (10, 2, 1), (9000, 2, 2)).learned_seconds is None
