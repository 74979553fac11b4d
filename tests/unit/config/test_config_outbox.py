"""Reports that wait are merged: gauges are the last, counters are sums."""

from __future__ import annotations

from typing import Any

from spillway_sidecar.config.outbox import MAX_REFUSED, MAX_TRAFFIC, Outbox
from spillway_wire.loads import TTFT_BUCKETS_SECONDS, BackendTraffic, ClusterProblem, Demand, Load, RouteErrors
from spillway_wire.messages import MAX_FRAME_FROM_PROXY_BYTES, Report, decode_from_proxy

BUCKETS = len(TTFT_BUCKETS_SECONDS) + 1


def traffic(cluster: str = "ml/x", **counts: Any) -> BackendTraffic:
    return BackendTraffic(route="ml/chat", rule="all", cluster=cluster, **counts)


def report(**fields: Any) -> Report:
    return Report(boot_id="", sequence=0, **fields)


def taken(outbox: Outbox) -> list[Report]:
    messages = [decode_from_proxy(frame) for frame in outbox.take()]
    return [message for message in messages if isinstance(message, Report)]


def test_a_report_leaves_once_with_boot_id_and_a_rising_sequence() -> None:
    """What the sender put there does not matter."""
    outbox = Outbox("boot-1")
    assert taken(outbox) == []
    for expected in (1, 2):
        outbox.put(report(load=Load(in_flight=expected)))
        assert taken(outbox) == [Report(boot_id="boot-1", sequence=expected, load=Load(in_flight=expected))]
    assert taken(outbox) == []


def test_gauges_are_the_later_ones_and_counters_are_summed() -> None:
    """While the stream is down nothing is lost."""
    outbox = Outbox("b")
    first = (0,) * (BUCKETS - 1) + (2,)
    second = (1,) + (0,) * (BUCKETS - 1)
    outbox.put(
        report(
            load=Load(in_flight=1),
            traffic=(traffic(requests=3, errors=1, input_tokens=10, ttft=first), traffic("ml/y", requests=1)),
            refused=(RouteErrors(route="ml/chat", requests=2),),
            demand=(Demand(cluster="ml/x", in_flight=9),),
            problems=(ClusterProblem(cluster="ml/y", reason="SecretMissing", message="none"),),
        )
    )
    outbox.put(
        report(
            load=Load(in_flight=2),
            traffic=(traffic(requests=4, retries=1, output_tokens=5, ttft=second), traffic("ml/z", requests=7)),
            refused=(RouteErrors(route="ml/chat", requests=1), RouteErrors(route="ml/other", requests=1)),
            demand=(Demand(cluster="ml/y", in_flight=1),),
        )
    )
    (merged,) = taken(outbox)
    assert merged == Report(
        boot_id="b",
        sequence=1,
        load=Load(in_flight=2),
        traffic=(
            traffic(requests=7, errors=1, retries=1, input_tokens=10, output_tokens=5, ttft=(1,) + (0,) * (BUCKETS - 2) + (2,)),
            traffic("ml/y", requests=1),
            traffic("ml/z", requests=7),
        ),
        refused=(RouteErrors(route="ml/chat", requests=3), RouteErrors(route="ml/other", requests=1)),
        demand=(Demand(cluster="ml/y", in_flight=1),),
    )
    assert outbox.info() == {"waiting": False, "merged": 1, "frames": 1}


def test_what_has_arrived_is_summed_while_gauges_of_demand_are_the_later_ones() -> None:
    """A cluster that the later report does not name has nothing under way any more, and has been asked for all the same."""
    outbox = Outbox("b")
    outbox.put(report(demand=(Demand("ml/x", held=5, held_tokens=50, arrived_tokens=500), Demand("ml/y", in_flight=2))))
    outbox.put(report(demand=(Demand("ml/z", in_flight=1), Demand("ml/x", held=1, held_tokens=10, arrived_tokens=7))))
    outbox.put(report(demand=(Demand("ml/z", in_flight=3, arrived_tokens=1),)))
    (merged,) = taken(outbox)
    assert set(merged.demand) == {Demand("ml/x", arrived_tokens=507), Demand("ml/z", in_flight=3, arrived_tokens=1)}


def test_what_has_arrived_is_told_once_where_a_report_leaves_in_several_frames() -> None:
    """Each frame has the gauges; one has the count."""
    outbox = Outbox("b")
    many = tuple(traffic("c" * 300 + str(n), requests=1) for n in range(MAX_TRAFFIC))
    outbox.put(report(traffic=many, demand=(Demand("ml/x", in_flight=2, arrived_tokens=9),)))
    reports = taken(outbox)
    assert len(reports) > 1
    assert [entry.in_flight for message in reports for entry in message.demand] == [2] * len(reports)
    assert sum(entry.arrived_tokens for message in reports for entry in message.demand) == 9


def test_an_empty_histogram_adds_nothing_and_a_missing_load_keeps_the_earlier() -> None:
    """A report on traffic alone does not hide the load."""
    outbox = Outbox("b")
    outbox.put(report(load=Load(queued=1), traffic=(traffic(ttft=(1,) * BUCKETS),)))
    outbox.put(report(traffic=(traffic(requests=1),)))
    (merged,) = taken(outbox)
    assert merged.load == Load(queued=1)
    assert merged.traffic == (traffic(requests=1, ttft=(1,) * BUCKETS),)


def test_the_wait_is_bounded_and_so_are_counters() -> None:
    """By the contract's caps: a frame that waited for long still decodes."""
    outbox = Outbox("b")
    for half in range(2):
        outbox.put(
            report(
                traffic=tuple(traffic(f"c/{half}-{n}") for n in range(MAX_TRAFFIC // 2 + 1)),
                refused=tuple(RouteErrors(route=f"r/{half}-{n}", requests=10**12) for n in range(MAX_REFUSED // 2 + 1)),
            )
        )
    outbox.put(report(refused=(RouteErrors(route="r/0-0", requests=10**12),)))
    reports = taken(outbox)
    assert sum(len(one.traffic) for one in reports) == MAX_TRAFFIC
    assert sum(len(one.refused) for one in reports) == MAX_REFUSED
    assert max(refused.requests for one in reports for refused in one.refused) == 10**12


def test_what_is_too_large_for_a_frame_leaves_in_several() -> None:
    """Each within the limit, in order, with gauges in the last, nothing twice."""
    outbox = Outbox("b")
    entries = tuple(traffic(f"ml/{'x' * 200}{n}", requests=n, ttft=(10**11,) * BUCKETS) for n in range(1500))
    outbox.put(report(load=Load(in_flight=1), traffic=entries, refused=(RouteErrors(route="r", requests=1),)))
    frames = outbox.take()
    assert len(frames) > 1
    assert max(map(len, frames)) <= MAX_FRAME_FROM_PROXY_BYTES
    reports = [message for message in map(decode_from_proxy, frames) if isinstance(message, Report)]
    assert sum((one.traffic for one in reports), ()) == entries
    assert sum((one.refused for one in reports), ()) == (RouteErrors(route="r", requests=1),)
    sequences = [one.sequence for one in reports]
    assert sequences == sorted(set(sequences))
    assert reports[-1].load == Load(in_flight=1)


def test_gauges_that_are_too_large_alone_give_way_to_the_load() -> None:
    """The load steers traffic; the rest can wait for a shorter report."""
    outbox = Outbox("b")
    problems = tuple(ClusterProblem(cluster=f"c{n}", reason="SecretMissing", message="m" * 1000) for n in range(1000))
    outbox.put(report(load=Load(in_flight=3), problems=problems))
    (frame,) = outbox.take()
    assert decode_from_proxy(frame) == Report(boot_id="b", sequence=1, load=Load(in_flight=3))
