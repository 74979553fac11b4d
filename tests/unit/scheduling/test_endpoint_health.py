"""Ejection: what puts an endpoint out, for how long, what brings it back, and that never more than half are out by judgement."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.picking import pick

from spillway_sidecar.scheduling.filters.eligible import Eliminated, eliminate
from spillway_sidecar.scheduling.health import (
    DOUBT_SECONDS,
    DOWN_AFTER_FAILURES,
    DOWN_BASE_SECONDS,
    DOWN_MAX_SECONDS,
    FORGIVEN_AFTER_SECONDS,
    PAUSE_BASE_SECONDS,
    PAUSE_MAX_SECONDS,
    Ejection,
)
from spillway_sidecar.scheduling.pool import Pool
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_sidecar.scheduling.state import PROBE_TURNS, EndpointState


def pool(count: int) -> list[EndpointState]:
    speed = ClusterSpeed()
    return Pool("p", [EndpointState(f"e{n}", False, speed) for n in range(count)], speed).targets


def fail(endpoint: EndpointState, now: float, times: int = DOWN_AFTER_FAILURES) -> None:
    for _ in range(times):
        endpoint.failed(now, hard=False)


def out_by_judgement(endpoints: list[EndpointState]) -> list[EndpointState]:
    return [one for one in endpoints if one.ejected not in {None, Ejection.UNREACHABLE}]


def test_one_incident_counts_once_however_many_requests_it_meets():
    one = pool(1)[0]
    for _ in range(50):
        one.failed(10.0, hard=True, sent_at=9.9)
    assert (one.ejections, one.down_until) == (1, 10.0 + DOWN_BASE_SECONDS)


def test_what_was_sent_before_an_ejection_does_not_bring_it_back():
    one = pool(1)[0]
    one.failed(10.0, hard=True)
    one.succeeded(10.1, sent_at=9.0)
    assert one.ejected is Ejection.UNREACHABLE
    one.succeeded(10.6, sent_at=10.55)
    assert one.ejected is None
    assert not one.shut


def test_one_failure_is_followed_by_a_probe_and_not_by_half_a_minute_of_penalty():
    one, other = pool(2)
    one.failed(10.0, hard=False)
    one.refresh(10.0 + DOUBT_SECONDS / 2)
    assert not one.shut, "it may be chosen like any other, at its penalty"
    one.refresh(10.0 + DOUBT_SECONDS)
    one.peers.asked += PROBE_TURNS
    assert eliminate(one, (), 1, 11.0) is None
    assert one.sent(10), "which is the probe"
    assert eliminate(one, (), 1, 11.0) is Eliminated.DOWN
    assert eliminate(other, (), 1, 11.0) is None
    one.succeeded(11.1, sent_at=11.0)
    one.done(10)
    assert (one.shut, one.penalty, one.ejections) == (False, 1.0, 0)


def test_a_probe_that_fails_after_one_failure_ejects():
    one = pool(2)[0]
    one.failed(10.0, hard=False)
    one.refresh(10.0 + DOUBT_SECONDS)
    one.sent(10)
    one.failed(11.1, hard=False, sent_at=11.0)
    assert one.ejected is Ejection.FAILING


def test_one_that_has_had_a_success_since_its_failure_is_not_doubted():
    one = pool(2)[0]
    one.failed(10.0, hard=False)
    one.succeeded(10.1, sent_at=9.9)
    one.refresh(10.0 + DOUBT_SECONDS)
    assert not one.shut


def test_a_failed_probe_keeps_it_away_for_longer_and_for_the_same_reason():
    one = pool(1)[0]
    fail(one, 10.0)
    assert one.ejected is Ejection.FAILING
    one.failed(11.0, hard=False, sent_at=10.9)
    assert one.ejected is Ejection.FAILING
    assert one.down_until == 11.0 + 2 * DOWN_BASE_SECONDS


def test_one_that_comes_and_goes_stays_away_longer_each_time_until_it_is_forgiven():
    one = pool(1)[0]
    now, times = 0.0, []
    for _ in range(6):
        one.failed(now, hard=True)
        times.append(one.down_until - now)
        now = one.down_until + 1.0
        one.succeeded(now, sent_at=now)
    assert times == sorted(times)
    assert times[-1] == DOWN_MAX_SECONDS
    now += FORGIVEN_AFTER_SECONDS + 0.1
    one.failed(now, hard=True)
    assert one.down_until - now == DOWN_BASE_SECONDS


def test_probes_do_not_overlap_while_older_requests_end():
    one = pool(1)[0]
    assert not one.sent(10)
    one.failed(0.0, hard=True)
    assert eliminate(one, (), 1, 0.4) is Eliminated.DOWN
    assert pick([one], 10, 1, 0.6, lambda: 0.5) is one
    assert one.sent(10)
    one.done(10, probe=False)
    one.succeeded(0.7, sent_at=-1.0)
    assert eliminate(one, (), 1, 0.7) is Eliminated.DOWN
    assert not one.sent(10), "there is one already"
    one.done(10, probe=True)
    assert eliminate(one, (), 1, 0.8) is None


@given(
    st.integers(2, 12),
    st.lists(st.tuples(st.integers(0, 11), st.sampled_from(["soft", "hard", "good", "silent", "later"])), max_size=120),
)
def test_never_more_than_half_of_those_that_can_be_reached_are_out_by_judgement(count: int, steps: list[tuple[int, str]]):
    endpoints = pool(count)
    now = 100.0
    for index, step in steps:
        one = endpoints[index % count]
        before = out_by_judgement(endpoints)
        if step == "later":
            now += 3.0
        elif step == "good":
            one.succeeded(now)
        elif step == "silent":
            one.eject(Ejection.SILENT, now)
        else:
            one.failed(now, hard=step == "hard")
        out = out_by_judgement(endpoints)
        reached = sum(e.ejected is not Ejection.UNREACHABLE for e in endpoints)
        if one not in before and one in out:  # others may have become unreachable since the others were put out
            assert len(out) <= max(1, reached // 2, len(before))
        assert all(e.shut for e in out)
        assert all((e.down_until > 0.0) == (e.ejected is not None) for e in endpoints)


def test_the_worst_half_is_out():
    a, b, c, d = pool(4)
    fail(a, 0.0)
    fail(b, 0.0)
    fail(c, 0.0)
    assert [e.ejected for e in (a, b, c, d)] == [Ejection.FAILING, Ejection.FAILING, None, None], "as bad as those that are out"
    fail(c, 0.0)
    assert c.ejected is Ejection.FAILING
    assert [e.ejected for e in (a, b)].count(None) == 1, "the less bad came back for it"
    assert d.ejected is None


def test_that_nothing_listens_is_a_fact_and_not_bounded():
    endpoints = pool(4)
    for one in endpoints:
        one.failed(0.0, hard=True)
    assert all(one.ejected is Ejection.UNREACHABLE for one in endpoints)
    assert endpoints[0].peers.ejections == {Ejection.UNREACHABLE: 4}


def test_one_that_says_429_and_not_for_how_long_is_left_alone_for_growing_times():
    one = pool(1)[0]
    now, pauses = 100.0, []
    for _ in range(8):
        one.limit_rate(0.0, now)
        one.limit_rate(0.0, now)  # others had the same answer
        pauses.append(one.limited_until - now)
        now = one.limited_until
    assert pauses[:3] == [PAUSE_BASE_SECONDS, 2 * PAUSE_BASE_SECONDS, 4 * PAUSE_BASE_SECONDS]
    assert pauses[-1] == PAUSE_MAX_SECONDS
    one.succeeded(now)
    one.limit_rate(0.0, now)
    assert one.limited_until - now == pytest.approx(PAUSE_BASE_SECONDS)
