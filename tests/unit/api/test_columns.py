"""Columns show what kubectl would."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from spillway_operator.api.columns import COLUMNS, NORMAL, Column, cell, evaluate, header, human_duration, row

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ITEM = {
    "kind": "ModelBackend",
    "metadata": {"name": "fast", "creationTimestamp": "2025-12-31T23:00:00Z"},
    "spec": {"model": "m", "provider": "VLLM"},
    "status": {
        "conditions": [{"type": "Accepted", "reason": "Accepted"}, {"type": "Ready", "reason": "Serving"}],
        "summary": {"endpoints": "3/4", "replicas": "4/5"},
        "load": {"queueDepth": 0},
    },
}


def test_a_row_has_a_cell_for_each_header() -> None:
    assert header("ModelBackend") == ["NAME", "MODEL", "PROVIDER", "READY", "QUEUE", "GPU%", "REPLICAS", "AGE"]
    assert row(ITEM, now=NOW) == ["fast", "m", "VLLM", "3/4", "0", "", "4/5", "60m"]


def test_the_wide_table_has_more() -> None:
    assert header("ModelBackend", wide=True) == [
        "NAME",
        "MODEL",
        "PROVIDER",
        "READY",
        "QUEUE",
        "GPU%",
        "REPLICAS",
        "KV%",
        "TOK/S",
        "$/MTOK",
        "SCALING",
        "REASON",
        "AGE",
    ]
    assert row(ITEM, now=NOW, wide=True)[-2:] == ["Serving", "60m"]
    assert header("ModelRoute") == ["NAME", "MODELS", "READY", "BACKENDS", "SYNCED", "RPS", "TTFT-P95", "ERR%", "AGE"]


def test_an_object_without_status_has_empty_cells() -> None:
    bare = {"kind": "ModelRoute", "metadata": {"name": "chat"}, "spec": {}}
    assert row(bare, now=NOW) == ["chat", *[""] * sum(column.priority == NORMAL for column in COLUMNS["ModelRoute"])]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (".spec.model", "m"),
        (".spec.model.deeper", None),
        (".nothing", None),
        ('.status.conditions[?(@.type=="Ready")].reason', "Serving"),
        ('.status.conditions[?(@.type=="Other")].reason', None),
        ('.status.load[?(@.type=="Ready")].reason', None),
        (".status.load.queueDepth", 0),
    ],
)
def test_a_path_leads_to_a_value_or_nowhere(path: str, value: object) -> None:
    assert evaluate(path, ITEM) == value


@pytest.mark.parametrize("path", ["spec", ".spec[0]", ".spec[*]", ".spec..model", '.a[?(@.b=="c"'])
def test_other_paths_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a path that columns use"):
        evaluate(path, {"spec": [1]})


@pytest.mark.parametrize(
    ("stamp", "age"),
    [
        ("2025-12-31T23:59:15Z", "45s"),
        ("2025-12-31T23:59:15", "45s"),
        ("2026-01-01T00:00:05Z", "<invalid>"),
        ("yesterday", "<unknown>"),
    ],
)
def test_a_date_shows_as_age(stamp: str, age: str) -> None:
    assert cell(Column("Age", ".at", "date", "."), {"at": stamp}, now=NOW) == age


def test_a_cell_is_one_line() -> None:
    assert cell(Column("Text", ".text", "string", "."), {"text": "one\ntwo"}, now=NOW) == "one..."


@pytest.mark.parametrize(
    ("span", "text"),
    [
        # Kubernetes' own table: k8s.io/apimachinery/pkg/util/duration.
        (timedelta(seconds=-2), "<invalid>"),
        (timedelta(seconds=-1), "0s"),
        (timedelta(), "0s"),
        (timedelta(seconds=1), "1s"),
        (timedelta(seconds=119), "119s"),
        (timedelta(minutes=2), "2m"),
        (timedelta(minutes=2, seconds=1), "2m1s"),
        (timedelta(minutes=9, seconds=59), "9m59s"),
        (timedelta(minutes=10), "10m"),
        (timedelta(minutes=179), "179m"),
        (timedelta(hours=3), "3h"),
        (timedelta(hours=3, minutes=1), "3h1m"),
        (timedelta(hours=7, minutes=59), "7h59m"),
        (timedelta(hours=8), "8h"),
        (timedelta(hours=47), "47h"),
        (timedelta(days=2), "2d"),
        (timedelta(days=2, hours=1), "2d1h"),
        (timedelta(days=7, hours=23), "7d23h"),
        (timedelta(days=8), "8d"),
        (timedelta(days=365 * 2 - 1), "729d"),
        (timedelta(days=365 * 2), "2y"),
        (timedelta(days=365 * 2 + 1), "2y1d"),
        (timedelta(days=365 * 8), "8y"),
    ],
)
def test_ages_read_as_in_kubectl(span: timedelta, text: str) -> None:
    assert human_duration(span.total_seconds()) == text
