"""Replicas that are needed, by signal; and windows."""

from __future__ import annotations

import pytest

from spillway_operator.scaling.needs import DRAIN_SECONDS, SPEED_SHARE, Need, Observed, Targets, need
from spillway_operator.scaling.windows import Highest, Mean

TARGETS = Targets(queue_depth=2, gpu_ratio=0.8, kv_cache_ratio=0.9)


@pytest.mark.parametrize(
    ("observed", "expected"),
    [
        (Observed(ready=3), Need()),
        (Observed(ready=3, tokens_per_second_asked=9000), Need()),  # what a replica does is not learned yet
        (
            Observed(ready=3, tokens_per_second_asked=9000, tokens_per_second_replica=2000),
            Need(flow=4.5 / SPEED_SHARE, flow_signal="TokenDemand"),
        ),
        (  # what waits is to be worked off within minutes, at full speed
            Observed(ready=3, tokens_per_second_asked=6000, tokens_per_second_replica=2000, tokens_waiting=2000 * DRAIN_SECONDS),
            Need(flow=4.0, flow_signal="TokenDemand"),
        ),
        # One replica has done 3000, so three are too many; more than there are is nothing that it can show.
        (Observed(ready=3, tokens_per_second_asked=4500, tokens_per_second_shown=3000), Need(flow=1.5, flow_signal="TokenDemand")),
        (Observed(ready=3, tokens_per_second_asked=9000, tokens_per_second_shown=100), Need(flow=3.0, flow_signal="TokenDemand")),
        (Observed(ready=0, tokens_per_second_asked=9000, tokens_per_second_shown=100), Need(backlog=1.0)),  # served elsewhere
        (Observed(ready=8, tokens_per_second_asked=9000, occupancy=0.1), Need(flow=2.0, flow_signal="TokenDemand")),
        (Observed(ready=8, tokens_per_second_asked=9000, occupancy=0.9), Need(flow=8.0, flow_signal="TokenDemand")),
        (Observed(ready=3, tokens_per_second_asked=0), Need(flow=0.0, flow_signal="TokenDemand")),
        (Observed(ready=0, held=7, waiting=0), Need(backlog=1.0)),
        (Observed(ready=3, tokens_waiting=500, waiting=8), Need(backlog=4.0)),
        (Observed(ready=4, gpu_ratio=0.6, kv_cache_ratio=0.9), Need(flow=4.0, flow_signal="KVCache")),
        (Observed(ready=0, gpu_ratio=0.6, waiting=3), Need(backlog=1.5)),
        (Observed(ready=2, waiting=0), Need(backlog=0.0)),
    ],
)
def test_the_highest_of_what_is_known_counts(observed: Observed, expected: Need):
    found = need(observed, TARGETS)
    assert found == expected
    assert found.known is (expected != Need())


def test_what_is_not_declared_is_not_looked_at():
    assert not need(Observed(ready=1, gpu_ratio=1.0, kv_cache_ratio=1.0, waiting=50), Targets()).known


def test_a_mean_forgets():
    mean = Mean(10.0)
    assert mean.at(0.0) is None
    mean.record(0.0, 4.0)
    mean.record(8.0, 2.0)
    assert mean.at(9.0) == 3.0
    assert mean.at(10.0) == 2.0
    assert mean.at(18.0) is None


def test_the_highest_is_that_of_the_span():
    highest = Highest(10.0)
    for now, value in ((0.0, 5), (1.0, 3), (2.0, 4), (9.0, 1)):
        highest.record(now, value)
    assert [highest.at(now) for now in (9.5, 10.0, 12.0, 19.0)] == [5, 4, 1, None]
