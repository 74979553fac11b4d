"""No bytes make the reader raise, and what it reads is finite, in range and what was written."""

import math

from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.engines import dcgm_load, engine_load, engine_table, read_samples
from spillway_wire.names import Provider

NAMES = sorted(
    {
        metric.name
        for provider in Provider
        for part in ("waiting", "running", "kv_cache")
        for metric in getattr(engine_table(provider), part)
    }
)
PIECES = st.sampled_from(
    [
        *(name.encode() for name in NAMES),
        b"{",
        b"}",
        b"=",
        b'"',
        b",",
        b"\\",
        b" ",
        b"\t",
        b"\r",
        b"\n",
        b"#",
        b"NaN",
        b"Inf",
        b"-",
        b"1e9",
    ]
)
LIKE_EXPOSITION = st.lists(PIECES | st.binary(max_size=6) | st.integers().map(lambda n: str(n).encode()), max_size=60).map(b"".join)
LABEL_NAMES = st.from_regex(r"[a-zA-Z_][a-zA-Z0-9_]{0,8}", fullmatch=True)
LABEL_VALUES = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)


@given(st.binary(max_size=400) | LIKE_EXPOSITION, st.sampled_from(Provider))
def test_any_bytes_give_a_load_in_range(text: bytes, provider: Provider) -> None:
    load = engine_load(provider, text)
    for count in (load.waiting, load.running):
        assert count is None or 0 <= count <= 1_000_000
    assert load.kv_cache_ratio is None or 0 <= load.kv_cache_ratio <= 1
    gpu = dcgm_load(text, "n", "p")
    assert gpu.utilization_ratio is None or 0 <= gpu.utilization_ratio <= 1


@given(LIKE_EXPOSITION, st.sampled_from(NAMES))
def test_samples_read_are_finite_and_not_negative(text: bytes, name: str) -> None:
    for sample in read_samples(text, name) or ():
        assert math.isfinite(sample.value)
        assert sample.value >= 0


@given(
    st.lists(
        st.tuples(
            st.dictionaries(LABEL_NAMES, LABEL_VALUES, max_size=4),
            st.floats(min_value=0, allow_nan=False, allow_infinity=False) | st.integers(0, 10**9),
        ),
        max_size=8,
    )
)
def test_what_is_written_as_the_format_says_is_read_back(series: list[tuple[dict[str, str], float]]) -> None:
    lines = ["# TYPE m gauge"]
    for labels, value in series:
        quoted = ",".join(
            '{}="{}"'.format(name, text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n"))
            for name, text in labels.items()
        )
        lines.append(f"m{{{quoted}}} {value!r}" if labels else f"m {value!r}")
    samples = read_samples("\n".join(lines).encode(), "m")
    assert samples is not None
    assert [(dict(sample.labels), sample.value) for sample in samples] == [(labels, float(value)) for labels, value in series]
