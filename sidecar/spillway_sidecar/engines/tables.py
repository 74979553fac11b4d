"""Metric names and paths by engine. Each list is in order of preference; releases rename metrics and old ones stay in use.

Sources, besides each engine's own documentation: the model-server protocol of the Gateway API inference extension, which
names the same metrics for vLLM, SGLang, trtllm-serve and Triton with the TensorRT-LLM backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from spillway_wire.names import Provider


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric's name and the labels that a sample must carry to count; an absent label reads as empty, as Prometheus has it."""

    name: str
    labels: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class AdapterList:
    """A metric whose labels list the names of LoRA adapters, separated by commas."""

    name: str
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EngineTable:
    """Where an engine tells its health and load. `min_interval_seconds`: never ask for metrics more often than that."""

    health_path: str | None = "/health"
    metrics_paths: tuple[str, ...] = ("/metrics",)
    metrics_port: int | None = None  # where the engine serves metrics if its own port does not
    waiting: tuple[Metric, ...] = ()
    running: tuple[Metric, ...] = ()
    kv_cache: tuple[Metric, ...] = ()
    adapters: AdapterList | None = None
    min_interval_seconds: float = 0.0

    @property
    def has_metrics(self) -> bool:
        """Whether there is anything to ask this engine."""
        return bool(self.waiting or self.running or self.kv_cache)


# With priority scheduling SGLang writes the total under `priority=""` and, beside it, a sample a priority: those would
# count each request twice. Without it the label is empty or absent.
_SGLANG_TOTAL: Final = (("priority", ""),)

_TABLES: Final[Mapping[Provider, EngineTable]] = MappingProxyType(
    {
        Provider.VLLM: EngineTable(
            waiting=(Metric("vllm:num_requests_waiting"),),
            running=(Metric("vllm:num_requests_running"),),
            kv_cache=(Metric("vllm:kv_cache_usage_perc"), Metric("vllm:gpu_cache_usage_perc")),
            adapters=AdapterList("vllm:lora_requests_info", ("running_lora_adapters", "waiting_lora_adapters")),
        ),
        Provider.SGLANG: EngineTable(
            waiting=(Metric("sglang:num_queue_reqs", _SGLANG_TOTAL),),
            running=(Metric("sglang:num_running_reqs", _SGLANG_TOTAL),),
            kv_cache=(Metric("sglang:token_usage"),),
        ),
        Provider.TRTLLM: EngineTable(
            metrics_paths=("/prometheus/metrics", "/metrics"),  # trtllm-serve's /metrics is JSON of its iterations
            waiting=(Metric("trtllm_num_requests_waiting"),),
            running=(Metric("trtllm_num_requests_running"),),
            kv_cache=(Metric("trtllm_kv_cache_utilization"),),
        ),
        Provider.TRITON: EngineTable(
            health_path="/v2/health/ready",
            metrics_port=8002,
            waiting=(
                Metric("nv_trt_llm_request_metrics", (("request_type", "waiting"),)),
                Metric("nv_inference_pending_request_count"),
            ),
            running=(Metric("nv_trt_llm_request_metrics", (("request_type", "scheduled"),)),),
            kv_cache=(Metric("nv_trt_llm_kv_cache_block_metrics", (("kv_cache_block_type", "fraction"),)),),
        ),
        Provider.TGI: EngineTable(
            waiting=(Metric("tgi_queue_size"),),
            running=(Metric("tgi_batch_current_size"),),
        ),
        Provider.LLAMACPP: EngineTable(
            waiting=(Metric("llamacpp:requests_deferred"),),
            running=(Metric("llamacpp:requests_processing"),),
            # Asked more often, its server notices a client that left seconds later instead of within milliseconds.
            min_interval_seconds=1.5,
        ),
        Provider.OPENAI_COMPATIBLE: EngineTable(health_path=None, metrics_paths=()),
    }
)


def engine_table(provider: Provider) -> EngineTable:
    """The table of an engine; every provider has one, and an unknown kind of server has an empty one."""
    return _TABLES[provider]


def metrics_urls(provider: Provider, engine_url: str) -> tuple[str, ...]:
    """Where to ask for metrics, best first, for an engine at `engine_url` (`http://host:port`). Empty: nowhere."""
    table = engine_table(provider)
    parts = urlsplit(engine_url)
    urls = [f"{parts.scheme}://{parts.netloc}{path}" for path in table.metrics_paths]
    if table.metrics_port is not None and table.metrics_port != parts.port:
        host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        urls += [f"{parts.scheme}://{host}:{table.metrics_port}{path}" for path in table.metrics_paths]
    return tuple(urls)
