"""What a proxy says of its load: it watches the engine and the GPU, and reports.

`fetch` asks an engine over HTTP, `engine` keeps its health and load, `gpu` samples NVML or a DCGM exporter, `host` the node, and
`reporter` makes the `Load` that rides on responses and the reports that go to the operator.
"""

from spillway_sidecar.reporting.engine import EngineProbe, EngineSample, ProbeSettings, ProbeTarget
from spillway_sidecar.reporting.fetch import Fetched, FetchError, fetch
from spillway_sidecar.reporting.gpu import DcgmReader, GpuSampler, NvmlReader
from spillway_sidecar.reporting.host import HostLoad, HostSampler
from spillway_sidecar.reporting.reporter import InboundCounters, Reporter, ReportSettings, RouterFigures

__all__ = [
    "DcgmReader",
    "EngineProbe",
    "EngineSample",
    "FetchError",
    "Fetched",
    "GpuSampler",
    "HostLoad",
    "HostSampler",
    "InboundCounters",
    "NvmlReader",
    "ProbeSettings",
    "ProbeTarget",
    "ReportSettings",
    "Reporter",
    "RouterFigures",
    "fetch",
]
