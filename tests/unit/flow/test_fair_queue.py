"""The router's queue: who goes next, who is let in, who gives way."""

from __future__ import annotations

from spillway_sidecar.flow.band import MAX_IDLE_FLOWS, Ticket
from spillway_sidecar.flow.fair_queue import FairQueue, Rejection


def offer(
    queue: FairQueue[str],
    item: str,
    *,
    priority: int = 0,
    flow: bytes = b"",
    cost: int = 100,
    size: int = 10,
    deadline: float = 100.0,
    now: float = 0.0,
) -> tuple[Ticket[str] | Rejection, list[str]]:
    """A request with defaults."""
    return queue.offer(item, priority=priority, flow_id=flow, cost=cost, size_bytes=size, deadline=deadline, now=now)


def served(queue: FairQueue[str], now: float = 0.0) -> list[str]:
    """All that waits, in its order."""
    items = []
    while (ticket := queue.head()) is not None:
        queue.take(ticket, now)
        items.append(ticket.item)
    return items


def test_priority_goes_first_then_the_deadline():
    queue: FairQueue[str] = FairQueue(10, 1000)
    offer(queue, "low", priority=-1, deadline=1.0)
    offer(queue, "later", deadline=9.0)
    offer(queue, "sooner", deadline=5.0)
    offer(queue, "same, after", deadline=5.0)
    offer(queue, "high", priority=10)
    assert served(queue) == ["high", "sooner", "same, after", "later", "low"]


def test_flows_take_turns_by_tokens_and_not_by_requests():
    queue: FairQueue[str] = FairQueue(10, 1000)
    for index in range(3):
        offer(queue, f"long {index}", flow=b"a", cost=300)
    for index in range(5):
        offer(queue, f"short {index}", flow=b"b", cost=100)
    assert served(queue) == ["long 0", "short 0", "short 1", "short 2", "long 1", "short 3", "short 4", "long 2"]


def test_a_flow_that_comes_back_has_saved_nothing_up():
    queue: FairQueue[str] = FairQueue(100, 1000)
    offer(queue, "early", flow=b"idler")
    for index in range(20):
        offer(queue, f"busy {index}", flow=b"busy")
    assert _take(queue, 12)[:2] == ["early", "busy 0"]
    for index in range(4):
        offer(queue, f"idler {index}", flow=b"idler")
    assert _take(queue, 4) == ["busy 11", "idler 0", "busy 12", "idler 1"], "by turns, and not four in a row"


def _take(queue: FairQueue[str], count: int, now: float = 0.0) -> list[str]:
    items = []
    for _ in range(count):
        ticket = queue.head()
        assert ticket is not None
        queue.take(ticket, now)
        items.append(ticket.item)
    return items


def test_what_a_request_cost_in_truth_counts_for_the_next_turn():
    queue: FairQueue[str] = FairQueue(10, 1000)
    first, _ = offer(queue, "a0", flow=b"a")
    for item in ("a1", "a2"):
        offer(queue, item, flow=b"a")
    for item in ("b0", "b1", "b2"):
        offer(queue, item, flow=b"b")
    assert isinstance(first, Ticket)
    assert _take(queue, 2) == ["a0", "b0"]
    queue.correct(first, 1000)
    assert _take(queue, 3) == ["b1", "b2", "a1"]


def test_a_full_queue_rejects_and_makes_way_for_higher_priority_only():
    queue: FairQueue[str] = FairQueue(2, 1000)
    offer(queue, "old", priority=-1)
    offer(queue, "new", priority=-1)
    result, evicted = offer(queue, "same", priority=-1)
    assert (result, evicted) == (Rejection(1), [])
    result, evicted = offer(queue, "high", priority=1)
    assert isinstance(result, Ticket)
    assert evicted == ["new"], "who has waited least"
    result, evicted = offer(queue, "lower", priority=-2)
    assert (result, evicted) == (Rejection(1), [])
    assert served(queue) == ["high", "old"]
    assert queue.info()["rejected_total"] == 2
    assert queue.info()["evicted_total"] == 1


def test_one_flow_may_fill_the_queue_and_gives_way_to_others_until_shares_are_equal():
    queue: FairQueue[str] = FairQueue(4, 1000)
    for index in range(4):
        offer(queue, f"hog {index}", flow=b"hog")
    assert offer(queue, "hog 4", flow=b"hog")[1] == []
    assert offer(queue, "light 0", flow=b"light")[1] == ["hog 3"]
    assert offer(queue, "light 1", flow=b"light")[1] == ["hog 2"]
    result, evicted = offer(queue, "light 2", flow=b"light")
    assert isinstance(result, Rejection)
    assert evicted == []
    assert served(queue) == ["hog 0", "light 0", "hog 1", "light 1"]


def test_bytes_are_bounded_and_nobody_is_evicted_in_vain():
    queue: FairQueue[str] = FairQueue(10, 100)
    offer(queue, "low", priority=-1, size=30)
    offer(queue, "same", size=60)
    result, evicted = offer(queue, "too large", size=50)
    assert isinstance(result, Rejection)
    assert evicted == []
    result, evicted = offer(queue, "fits in its place", size=40)
    assert isinstance(result, Ticket)
    assert evicted == ["low"]
    assert queue.bytes == 100


def test_a_wait_past_the_deadline_is_refused_at_once_with_the_time_that_it_takes():
    queue: FairQueue[str] = FairQueue(100, 10_000)
    for index in range(40):
        offer(queue, f"{index}", now=0.0)
    for turn in range(20):  # ten a second
        queue.take(_head(queue), 0.1 * (turn + 1))
    result, _ = offer(queue, "in time", deadline=2.0 + 2.5, now=2.0)
    assert isinstance(result, Ticket), "twenty ahead, at ten a second"
    result, _ = offer(queue, "too late", deadline=2.0 + 1.5, now=2.0)
    assert result == Rejection(3)


def test_engines_whose_requests_take_long_refuse_nobody_until_a_few_have_ended():
    queue: FairQueue[str] = FairQueue(100, 10_000)
    for second in range(8):
        ticket, _ = offer(queue, str(second), deadline=20.0, now=float(second))
        assert isinstance(ticket, Ticket), f"after {second} s in which nothing ended"
    for second in range(8, 12):
        _take(queue, 1, now=float(second))
        ticket, _ = offer(queue, str(second), deadline=20.0, now=float(second))
        assert isinstance(ticket, Ticket)


def test_the_wait_of_a_light_flow_is_not_that_of_a_hog():
    queue: FairQueue[str] = FairQueue(1000, 100_000)
    for index in range(400):
        offer(queue, f"{index}", flow=b"hog", now=0.0)
    for turn in range(20):
        queue.take(_head(queue), 0.1 * (turn + 1))
    assert isinstance(offer(queue, "hog", flow=b"hog", deadline=3.0, now=2.0)[0], Rejection)
    assert isinstance(offer(queue, "light", flow=b"light", deadline=3.0, now=2.0)[0], Ticket)


def test_what_higher_priorities_take_is_not_left_for_the_low_one():
    queue: FairQueue[str] = FairQueue(1000, 100_000)
    now = 0.0
    for turn in range(50):  # ten a second arrive and ten a second are served
        offer(queue, f"{turn}", priority=1, now=now)
        offer(queue, f"next {turn}", priority=1, now=now) if turn < 5 else None
        now += 0.1
        queue.take(_head(queue), now)
    result, _ = offer(queue, "low", priority=0, deadline=now + 5, now=now)
    assert result == Rejection(60)
    assert isinstance(offer(queue, "high", priority=1, deadline=now + 5, now=now)[0], Ticket)


def test_an_idle_hour_does_not_make_a_queue_slow():
    queue: FairQueue[str] = FairQueue(100, 10_000)
    for start in (0.0, 3600.0):
        for index in range(10):
            offer(queue, f"{index}", now=start, deadline=start + 100.0)
        for turn in range(10):
            queue.take(_head(queue), start + 0.1 * (turn + 1))
    for index in range(10):
        assert isinstance(offer(queue, f"{index}", deadline=7202.0, now=7200.0)[0], Ticket)


def test_flows_that_are_gone_are_forgotten():
    queue: FairQueue[str] = FairQueue(10, 1000)
    for index in range(MAX_IDLE_FLOWS + 50):
        ticket, _ = offer(queue, "x", flow=b"%d" % index)
        assert isinstance(ticket, Ticket)
        queue.remove(ticket, 0.0)
    assert queue.info()["bands"] == {0: {"waiting": 0, "flows": 0, "idle_flows": MAX_IDLE_FLOWS}}


def _head(queue: FairQueue[str]) -> Ticket[str]:
    ticket = queue.head()
    assert ticket is not None
    return ticket
