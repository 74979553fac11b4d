"""What a person reads: tables, the live frame, lines about changes, an explained decision."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from spillway.explain import lines
from spillway.get.tables import cells, line_of, table, widths_of
from spillway.problems import Problem, problem_of
from spillway.run.screen import Screen, frame, states
from spillway.run.watch import View

NOW = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
PROBLEM = Problem("x.yaml", 12, "spec.rules[0]", "unknown field")


def backend(name: str, *, ready: bool = True, endpoints: str = "2/2", namespace: str = "default") -> dict[str, Any]:
    return {
        "kind": "ModelBackend",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": (NOW - timedelta(seconds=90)).isoformat()},
        "spec": {"model": "m", "provider": "VLLM"},
        "status": {
            "conditions": [{"type": "Ready", "status": str(ready), "reason": "EndpointsReady" if ready else "NoReadyEndpoint"}],
            "summary": {"endpoints": endpoints},
            "load": {"queueDepth": 7},
        },
    }


def route(name: str = "chat") -> dict[str, Any]:
    return {
        "kind": "ModelRoute",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"models": ["chat"]},
        "status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "BackendsReady"}],
            "summary": {"models": "chat", "backends": "2/2", "synced": "4/4", "weights": "fast=67%,slow=33%"},
        },
    }


def plain(shown: list[str]) -> list[str]:
    return [re.sub(r"\x1b\[\d+m", "", line) for line in shown]


def test_a_table_is_laid_out_as_kubectl_does():
    assert table(cells("ModelBackend", [backend("slow"), backend("fast")], now=NOW)) == [
        "NAME   MODEL   PROVIDER   READY   QUEUE   GPU%   REPLICAS   AGE",
        "fast   m       VLLM       2/2     7                         90s",
        "slow   m       VLLM       2/2     7                         90s",
    ]


def test_the_namespace_is_a_column_where_there_are_several():
    rows = cells("ModelBackend", [backend("a", namespace="ml"), backend("b")], now=NOW)
    assert [row[:2] for row in rows] == [["NAMESPACE", "NAME"], ["default", "b"], ["ml", "a"]]


def test_a_row_that_comes_later_widens_its_columns_and_keeps_the_others():
    widths = widths_of([["NAME", "READY"], ["fast", "1/1"]])
    widths = widths_of([["a-longer-name", "1/1"]], widths)
    assert line_of(["x", "2/2"], widths) == "x               2/2"


def test_the_frame_shows_routes_backends_problems_and_where_to_ask():
    shown = plain(frame(View([route()], [backend("fast")], []), [PROBLEM], "API here", now=NOW, columns=80, rows=40))
    assert [line.split()[:2] for line in shown if line] == [
        ["NAME", "MODELS"],
        ["chat", "chat"],
        ["NAME", "MODEL"],
        ["fast", "m"],
        ["x.yaml:12:", "spec.rules[0]:"],
        ["API", "here"],
    ]


def test_the_frame_takes_the_wide_columns_where_they_fit():
    view = View([route()], [backend("fast")], [])
    wide, narrow = (plain(frame(view, [], "", now=NOW, columns=columns, rows=40))[1].split() for columns in (200, 80))
    assert "WEIGHTS" in wide
    assert "WEIGHTS" not in narrow


@pytest.mark.parametrize(("columns", "rows"), [(30, 12), (80, 5), (200, 8)])
def test_the_frame_never_outgrows_the_terminal(columns: int, rows: int):
    view = View([route(f"route-{number}") for number in range(50)], [backend("fast")], [])
    shown = frame(view, [PROBLEM] * 9, "API here", now=NOW, columns=columns, rows=rows)
    assert len(shown) < rows
    assert all(len(line) <= columns or "spillway get" in line for line in plain(shown))
    assert "lines more" in shown[-2]


def test_the_frame_says_when_the_operator_is_away_or_has_nothing():
    assert "the operator does not answer" in frame(None, [], "", now=NOW, columns=80, rows=24)[1]
    assert "no routes" in frame(View(), [], "", now=NOW, columns=80, rows=24)[1]


def test_a_change_is_told_once_where_there_is_no_terminal():
    out = io.StringIO()
    screen = Screen(out, lambda: NOW, live=False, quiet=False)
    for view in (
        View([route()], [backend("fast", ready=False, endpoints="0/2")]),
        View([route()], [backend("fast")]),
        View([route()]),
    ):
        screen.update(view, [], "")
        screen.update(view, [], "")
    screen.update(None, [], "")
    assert [line.split(" ", 1)[1] for line in out.getvalue().splitlines()] == [
        "route chat: ready, backends 2/2, synced 4/4",
        "backend fast: not ready (NoReadyEndpoint), endpoints 0/2",
        "backend fast: ready, endpoints 2/2",
        "backend fast: gone",
    ]


def test_quiet_tells_no_changes_but_messages():
    out = io.StringIO()
    screen = Screen(out, lambda: NOW, live=True, quiet=True)
    screen.update(View([route()], []), [], "")
    screen.line("gateway ended")
    assert out.getvalue() == "gateway ended\n"


def test_a_message_goes_above_the_live_table_which_is_drawn_again_in_place():
    out = io.StringIO()
    screen = Screen(out, lambda: NOW, live=True, quiet=False)
    screen.update(View([route()], [backend("fast")]), [], "footer")
    drawn = out.getvalue()
    height = drawn.count("\n")
    screen.line("a message")
    assert out.getvalue() == drawn + f"\x1b[{height}F\x1b[Ja message\n" + drawn
    screen.end()
    screen.line("stopped")
    assert out.getvalue().endswith("footer\x1b[0m\nstopped\n")


def test_objects_of_other_namespaces_are_told_with_them():
    assert states(View([], [backend("a", namespace="ml")])) == {"backend ml/a": "ready, endpoints 2/2"}


def test_a_problem_of_the_operator_reads_as_validate_says_it():
    item = {"file": "x.yaml", "line": 3, "path": "spec.model", "message": "missing"}
    assert str(problem_of(item)) == "x.yaml:3: spec.model: missing"
    assert str(problem_of({**item, "path": "", "warning": True})) == "x.yaml:3: warning: missing"


def test_a_decision_is_explained_with_scores_eliminations_and_the_end():
    record = {
        "requestId": "r-1", "type": "Chat", "model": "chat", "stream": True, "promptTokens": 25, "route": "default/chat", "rule": "all",
        "snapshot": "7.2", "routers": 1, "outcome": "ok", "status": 200, "ttftSeconds": 0.0123, "durationSeconds": 1.5,
        "attempts": [
            {"backend": "default/fast", "endpoint": "fast-1", "failure": "connect_failed", "candidates": [
                {"endpoint": "fast-0", "score": 2.0, "eliminated": None}, {"endpoint": "fast-1", "score": 1.0, "eliminated": None}]},
            {"backend": "default/fast", "endpoint": "fast-0", "failure": None, "candidates": [
                {"endpoint": "fast-0", "score": 2.0, "eliminated": None}, {"endpoint": "fast-1", "score": None, "eliminated": "down"}]},
        ],
    }  # fmt: skip
    assert lines(record) == [
        "request    r-1",
        "asked      Chat of model chat, streamed, about 25 prompt tokens",
        "matched    route default/chat, rule all",
        "by         profile Default, snapshot 7.2, with 1 router at work",
        "attempt 1  backend default/fast, endpoint fast-1: failed, connect_failed",
        "           fast-1  score 1  chosen",
        "           fast-0  score 2  runner-up",
        "attempt 2  backend default/fast, endpoint fast-0",
        "           fast-0  score 2  chosen",
        "           fast-1  out: down",
        "outcome    ok, status 200, first token after 12 ms, done after 1.50 s",
    ]


def test_with_scorers_the_highest_comes_first_and_each_score_is_told():
    scored = [
        {"endpoint": name, "score": score, "parts": {"Load": score, "KVCache": 1.0}, "eliminated": None}
        for name, score in (("a", 0.9), ("b", 0.3), ("c", 0.6))
    ]
    attempt = {"backend": "x", "endpoint": "a", "failure": None, "candidates": scored}
    assert lines({"profile": "NodeLoad", "best": "highest", "attempts": [attempt]})[5:8] == [
        "           a  score 0.9  chosen  (Load 0.9, KVCache 1)",
        "           c  score 0.6  runner-up  (Load 0.6, KVCache 1)",
        "           b  score 0.3  (Load 0.3, KVCache 1)",
    ]


def test_a_request_under_way_is_explained_as_far_as_it_has_come():
    assert lines({"requestId": "r", "attempts": []})[-1] == "outcome    under way"
