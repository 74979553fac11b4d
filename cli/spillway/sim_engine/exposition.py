"""The engine's state as vLLM shows it: Prometheus text and the load header on responses."""

from __future__ import annotations

import json
from bisect import bisect_left

from spillway.sim_engine.model import Engine

TTFT_BUCKETS_SECONDS = (
    0.001,
    0.005,
    0.01,
    0.02,
    0.04,
    0.06,
    0.08,
    0.1,
    0.25,
    0.5,
    0.75,
    1.0,
    2.5,
    5.0,
    7.5,
    10.0,
    20.0,
    40.0,
    80.0,
)


class Histogram:
    """Counts by bucket, cumulated only when shown."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str) -> list[str]:
        """The histogram's lines in the text format; `labels` without braces."""
        total, lines = 0, []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels},le="{bound}"}} {total}')
        return [*lines, f"{name}_count{{{labels}}} {total}", f"{name}_sum{{{labels}}} {self._sum:.6f}"]


def metrics_text(engine: Engine, model: str, ttft: Histogram) -> bytes:
    """Metrics of an engine as vLLM names them, in the text exposition format."""
    escaped = model.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    labels = f'engine="0",model_name="{escaped}"'
    figures = (
        ("vllm:num_requests_running", "gauge", "Number of requests in model execution batches.", engine.running),
        ("vllm:num_requests_waiting", "gauge", "Number of requests waiting to be processed.", engine.waiting),
        ("vllm:kv_cache_usage_perc", "gauge", "KV-cache usage. 1 means 100 percent usage.", round(engine.kv_cache_ratio, 6)),
        ("vllm:prompt_tokens_total", "counter", "Number of prefill tokens processed.", engine.prompt_tokens_total),
        ("vllm:generation_tokens_total", "counter", "Number of generation tokens processed.", engine.output_tokens_total),
        ("vllm:request_success_total", "counter", "Count of successfully processed requests.", engine.finished_total),
        ("vllm:num_preemptions_total", "counter", "Cumulative number of preemptions from the engine.", 0),
    )
    lines: list[str] = []
    for name, kind, text, value in figures:
        lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}", f"{name}{{{labels}}} {value}"]
    name = "vllm:time_to_first_token_seconds"
    lines += [f"# HELP {name} Histogram of time to first token in seconds.", f"# TYPE {name} histogram", *ttft.lines(name, labels)]
    return ("\n".join(lines) + "\n").encode()


def load_header(engine: Engine, wanted_format: str | None) -> str | None:
    """The value of `endpoint-load-metrics` in the format asked for (`json`, `text`), or None where none or another is."""
    named = {"kv_cache_usage_perc": round(engine.kv_cache_ratio, 6), "num_requests_waiting": engine.waiting}
    match (wanted_format or "").lower():
        case "json":
            return "JSON " + json.dumps({"named_metrics": named})
        case "text":
            return "TEXT " + ", ".join(f"named_metrics.{name}={value}" for name, value in named.items())
        case _:
            return None
