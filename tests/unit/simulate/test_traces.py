"""Traffic: made alike by a seed, read and written as CSV."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from spillway.simulate.traffic import PLAIN, SHARED, Arrival, BadTrace, Sizes, read_trace, write_trace


def test_a_seed_makes_the_same_traffic_again_and_another_makes_other():
    made = list(SHARED.arrivals(50.0, 5.0, 1))
    assert made == list(SHARED.arrivals(50.0, 5.0, 1))
    assert made != list(SHARED.arrivals(50.0, 5.0, 2))


def test_rate_and_sizes_are_as_asked():
    made = list(PLAIN.arrivals(100.0, 200.0, 3))
    assert len(made) == pytest.approx(20_000, rel=0.03)
    assert sum(a.input_tokens for a in made) / len(made) == pytest.approx(PLAIN.input.mean, rel=0.05)
    assert sum(a.output_tokens for a in made) / len(made) == pytest.approx(PLAIN.output.mean, rel=0.05)
    assert all(x.at_seconds < y.at_seconds for x, y in itertools.pairwise(made))


def test_shared_prefixes_are_of_one_length_and_some_are_popular():
    made = list(SHARED.arrivals(100.0, 50.0, 3))
    by_prefix: dict[str, set[int]] = {}
    for arrival in made:
        by_prefix.setdefault(arrival.prefix, set()).add(arrival.prefix_tokens)
        assert arrival.prefix_tokens < arrival.input_tokens
    assert all(len(lengths) == 1 for lengths in by_prefix.values())
    counts = sorted((sum(a.prefix == prefix for a in made) for prefix in by_prefix), reverse=True)
    assert counts[0] > 5 * counts[len(counts) // 2]


def test_a_size_is_never_below_one():
    assert Sizes(0.1, 1.0).draw(random.Random(1)) == 1


def test_a_trace_comes_back_as_it_was_written(tmp_path: Path):
    arrivals = [Arrival(0.0, 10, 5), Arrival(0.25, 300, 7, "a", 200), Arrival(0.5, 400, 8, "a", 200)]
    write_trace(tmp_path / "t.csv", arrivals)
    assert read_trace(tmp_path / "t.csv") == arrivals


def test_without_their_lengths_prefixes_are_as_long_as_the_shortest_input_with_them(tmp_path: Path):
    (tmp_path / "t.csv").write_text(
        "arrival_s,input_tokens,output_tokens,prefix_id\n101.5,300,5,a\n100,500,0,a\n102,90,5,only\n103,80,5,\n"
    )
    assert read_trace(tmp_path / "t.csv") == [
        Arrival(0.0, 500, 1, "a", 300), Arrival(1.5, 300, 5, "a", 300), Arrival(2.0, 90, 5, "only", 0), Arrival(3.0, 80, 5, "", 0),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must name the columns"),
        ("arrival_s,input_tokens\n1,2\n", "output_tokens, prefix_id not found"),
        ("arrival_s,input_tokens,output_tokens,prefix_id\n", "no requests"),
        ("arrival_s,input_tokens,output_tokens,prefix_id\n1,many,2,\n", ":2: "),
        ("arrival_s,input_tokens,output_tokens,prefix_id\nnan,1,2,\n", ":2: arrival_s must be finite"),
        ("arrival_s,input_tokens,output_tokens,prefix_id\n1,0,2,\n", ":2: arrival_s must be finite, input_tokens 1 to"),
        ("arrival_s,input_tokens,output_tokens,prefix_id\n1,5\n", ":2: "),
    ],
)
def test_a_trace_that_cannot_be_read_says_where_and_why(tmp_path: Path, text: str, told: str):
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(BadTrace, match=str(tmp_path)) as caught:
        read_trace(tmp_path / "t.csv")
    assert told in str(caught.value)


def test_a_trace_that_is_not_there_says_so(tmp_path: Path):
    with pytest.raises(BadTrace, match="No such file"):
        read_trace(tmp_path / "none.csv")
