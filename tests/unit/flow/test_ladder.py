"""The overload ladder: what a late event loop leaves out, and that one stall is no overload."""

from __future__ import annotations

from spillway_sidecar.flow.ladder import LOOKS, MAX_SHED, Ladder, Level


def late(ladder: Ladder, seconds: float, looks: int) -> None:
    """So many looks in a row that came so late."""
    for _ in range(looks):
        ladder.look(seconds)


def test_it_goes_up_with_the_lateness_that_stands():
    ladder = Ladder()
    for seconds, level in ((0.01, Level.NORMAL), (0.06, Level.LEAN), (0.3, Level.SHEDDING), (1.5, Level.CLOSED)):
        late(ladder, seconds, LOOKS - 1)
        assert ladder.level < level or level is Level.NORMAL
        late(ladder, seconds, 1)
        assert ladder.level is level


def test_one_stall_is_told_and_sheds_nothing():
    ladder = Ladder()
    assert ladder.look(3.0)
    assert not ladder.look(0.0)
    assert (ladder.level, ladder.shed) == (Level.NORMAL, 0.0)
    assert (ladder.stalls_total, ladder.longest_stall_seconds) == (1, 3.0)


def test_a_loop_that_slept_has_no_queue_however_late_it_was_called():
    ladder = Ladder()
    for _ in range(LOOKS + 5):
        assert ladder.look(0.5, slept=True), "a stall all the same"
    assert (ladder.level, ladder.shed) == (Level.NORMAL, 0.0)
    assert ladder.late_total_seconds == 0.5 * (LOOKS + 5)


def test_the_share_grows_while_it_lasts_and_some_always_pass():
    ladder = Ladder()
    late(ladder, 0.3, LOOKS)
    first = ladder.shed
    late(ladder, 0.3, 1)
    assert 0.0 < first < ladder.shed
    late(ladder, 0.3, 100)
    assert ladder.shed == MAX_SHED < 1.0
    late(ladder, 0.0, 1)
    assert ladder.level is Level.NORMAL
    assert 0.9 < ladder.shed < MAX_SHED, "down more slowly than up"
    late(ladder, 0.0, 100)
    assert ladder.shed == 0.0


def test_a_loop_that_is_early_is_not_late():
    ladder = Ladder()
    late(ladder, -0.01, LOOKS)
    assert ladder.info() == {
        "level": "normal",
        "shed_ratio": 0.0,
        "standing_seconds": 0.0,
        "stalls_total": 0,
        "longest_stall_seconds": 0.0,
    }
