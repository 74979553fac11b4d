"""Each engine's own text gives its load; what is missing is unknown and never zero."""

import pytest
from tests.unit.engines import corpora

from spillway_sidecar.engines import EngineLoad, engine_load, engine_table, metrics_urls
from spillway_wire.names import Provider


@pytest.mark.parametrize(
    ("provider", "text", "load"),
    [
        (Provider.VLLM, corpora.VLLM, EngineLoad(3, 15, 0.5)),
        (Provider.VLLM, corpora.VLLM_V0, EngineLoad(1, 2, 0.0121951219512195)),
        (Provider.SGLANG, corpora.SGLANG, EngineLoad(2826, 162, 0.28)),
        (Provider.SGLANG, corpora.SGLANG_PRIORITIES, EngineLoad(3, 5, 0.5)),
        (Provider.TRTLLM, corpora.TRTLLM, EngineLoad(9, 4, 0.33)),
        (Provider.TRITON, corpora.TRITON_TRTLLM, EngineLoad(6, 11, 0.4875)),
        (Provider.TRITON, corpora.TRITON_PLAIN, EngineLoad(5, None, None)),
        (Provider.TGI, corpora.TGI, EngineLoad(5, 8, None)),
        (Provider.LLAMACPP, corpora.LLAMACPP, EngineLoad(36, 4, None)),
        (Provider.OPENAI_COMPATIBLE, corpora.VLLM, EngineLoad()),
    ],
)
def test_load_of_each_engine(provider: Provider, text: bytes, load: EngineLoad) -> None:
    assert engine_load(provider, text) == load


@pytest.mark.parametrize("provider", list(Provider))
def test_another_engines_text_is_unknown(provider: Provider) -> None:
    assert not engine_load(provider, b"some_other_metric 1\n").known


def test_adapters_are_those_of_the_newest_sample() -> None:
    line = 'vllm:lora_requests_info{max_lora="4",running_lora_adapters="%s",waiting_lora_adapters="%s"} %s\n'
    text = line % ("old", "", "1.7e9") + line % ("sums, chat", "chat,later", "1.8e9")
    assert engine_load(Provider.VLLM, text.encode()).adapters == ("sums", "chat", "later")
    assert engine_load(Provider.VLLM, (line % ("", "", "1")).encode()).adapters == ()
    assert (
        engine_load(Provider.VLLM, (line % (",".join(f"a{n}" for n in range(99)), "x" * 999, "1")).encode()).adapters[-1] == "a31"
    )


def test_a_bad_preferred_metric_falls_back_to_the_older_one() -> None:
    text = b'vllm:kv_cache_usage_perc{engine="0"} NaN\nvllm:gpu_cache_usage_perc{engine="0"} 0.3\n'
    assert engine_load(Provider.VLLM, text).kv_cache_ratio == 0.3


def test_ratios_are_clamped_before_the_mean() -> None:
    text = b'vllm:kv_cache_usage_perc{engine="0"} 3\nvllm:kv_cache_usage_perc{engine="1"} 0.5\n'
    assert engine_load(Provider.VLLM, text).kv_cache_ratio == 0.75


@pytest.mark.parametrize("value", ["1000001", "1e300", "NaN", "-1"])
def test_a_count_beyond_the_wires_cap_is_unknown(value: str) -> None:
    load = engine_load(Provider.TGI, f"tgi_queue_size {value}\ntgi_batch_current_size 1000000\n".encode())
    assert load == EngineLoad(None, 1_000_000, None)
    assert load.known


def test_sums_that_overflow_are_unknown() -> None:
    text = b'tgi_queue_size{a="1"} 1.7e308\ntgi_queue_size{a="2"} 1.7e308\n'
    assert engine_load(Provider.TGI, text).waiting is None


def test_every_provider_has_a_table_and_only_plain_servers_have_no_metrics() -> None:
    assert {provider for provider in Provider if not engine_table(provider).has_metrics} == {Provider.OPENAI_COMPATIBLE}
    assert engine_table(Provider.LLAMACPP).min_interval_seconds >= 1.5
    assert engine_table(Provider.OPENAI_COMPATIBLE).health_path is None


@pytest.mark.parametrize(
    ("provider", "engine_url", "urls"),
    [
        (Provider.VLLM, "http://127.0.0.1:8000", ("http://127.0.0.1:8000/metrics",)),
        (Provider.TRTLLM, "http://127.0.0.1:8000/", ("http://127.0.0.1:8000/prometheus/metrics", "http://127.0.0.1:8000/metrics")),
        (Provider.TRITON, "http://127.0.0.1:8000", ("http://127.0.0.1:8000/metrics", "http://127.0.0.1:8002/metrics")),
        (Provider.TRITON, "http://[::1]:8000", ("http://[::1]:8000/metrics", "http://[::1]:8002/metrics")),
        (Provider.TRITON, "http://127.0.0.1:8002", ("http://127.0.0.1:8002/metrics",)),
        (Provider.OPENAI_COMPATIBLE, "http://127.0.0.1:8000", ()),
    ],
)
def test_where_metrics_are_asked_for(provider: Provider, engine_url: str, urls: tuple[str, ...]) -> None:
    assert metrics_urls(provider, engine_url) == urls
