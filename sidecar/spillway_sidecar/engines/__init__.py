"""What an engine says about its load: exposition text in, `EngineLoad` out. Pure.

`exposition` reads the few samples that are wanted out of untrusted text, `tables` holds each engine's metric names and
paths, `load` applies the one to the other, and `dcgm` reads a pod's GPU figures from a DCGM exporter's text.
"""

from spillway_sidecar.engines.dcgm import GpuLoad, dcgm_load
from spillway_sidecar.engines.exposition import MAX_EXPOSITION_BYTES, Sample, read_samples
from spillway_sidecar.engines.load import EngineLoad, engine_load
from spillway_sidecar.engines.tables import EngineTable, Metric, engine_table, metrics_urls

__all__ = [
    "MAX_EXPOSITION_BYTES",
    "EngineLoad",
    "EngineTable",
    "GpuLoad",
    "Metric",
    "Sample",
    "dcgm_load",
    "engine_load",
    "engine_table",
    "metrics_urls",
    "read_samples",
]
