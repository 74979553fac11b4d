"""Every reason that a condition of ours can carry. A reason is a constant that a script may compare with; messages may change."""

from __future__ import annotations

from typing import Final

# -- condition types

ACCEPTED: Final = "Accepted"  # the object is well formed and the operator uses it
RESOLVED_REFS: Final = "ResolvedRefs"  # every backend that a route names exists and is accepted
PROGRAMMED: Final = "Programmed"  # every connected proxy runs this content
READY: Final = "Ready"  # a request sent here has somewhere to go
REACHABLE: Final = "Reachable"  # the engines behind a backend answer
SATURATED: Final = "Saturated"  # the backend is pressed beyond the bound where weights begin to move away
FALLBACK_ACTIVE: Final = (
    "FallbackActive"  # a priority is left, being worse than a rule's fallback allows; on routes that declare one
)
SPILL_ACTIVE: Final = "SpillActive"  # the excess of a priority goes on by a rule's spill; on routes that declare one
INJECTED: Final = "Injected"  # False where pods of the backend have no sidecar; not there where all have one

# -- Accepted (True reuses the type's own name, as in the Gateway API)

INVALID: Final = "Invalid"  # the document is wrong; the last good version, if there was one, stays in force
CONFLICTED: Final = "Conflicted"  # an older route of the namespace already claims one of the models
HOST_NOT_ALLOWED: Final = "HostNotAllowed"  # the external host needs TLS or the operator's leave
RECONCILE_FAILED: Final = "ReconcileFailed"  # the operator failed on this object; it is tried again, the rest goes on

# -- ResolvedRefs

BACKEND_NOT_FOUND: Final = "BackendNotFound"  # no ModelBackend of that name in the route's namespace
BACKEND_NOT_ACCEPTED: Final = "BackendNotAccepted"  # it is there and is not accepted
COST_MISSING: Final = "CostMissing"  # a rule goes by cost, and a backend of it declares none
CURRENCIES_DIFFER: Final = "CurrenciesDiffer"  # a rule goes by cost, and its backends declare costs that cannot be compared

# -- Programmed

PENDING: Final = "Pending"  # some proxies have not acknowledged this content yet; they are named
REJECTED: Final = "Rejected"  # a proxy refuses the content; path and reason are in the message
NO_PROXIES: Final = "NoProxies"  # nobody is connected, so nobody runs it

# -- Ready

NOT_ACCEPTED: Final = "NotAccepted"  # see the Accepted condition
NOT_PROGRAMMED: Final = "NotProgrammed"  # no connected proxy runs it
NO_READY_BACKEND: Final = "NoReadyBackend"  # none of the backends of any rule is ready
NO_ENDPOINTS: Final = "NoEndpoints"  # the backend has no endpoint at all
NO_READY_ENDPOINT: Final = "NoReadyEndpoint"  # it has endpoints, and none of them is ready
ENDPOINTS_READY: Final = "EndpointsReady"
BACKENDS_READY: Final = "BackendsReady"
# A proxy's own problem with a backend (`SecretMissing`, ...) is passed on as the reason under the name the proxy gives it.

# -- Reachable

ENGINES_UP: Final = "EnginesUp"
ENGINE_DOWN: Final = "EngineDown"  # sidecars are there, and say that their engines do not answer
SIDECAR_AWAY: Final = "SidecarAway"  # no sidecar of the backend is connected
REQUESTS_SUCCEED: Final = "RequestsSucceed"  # external: judged by traffic
REQUESTS_FAIL: Final = "RequestsFail"  # external: at least half of the recent requests failed
NO_TRAFFIC: Final = "NoTraffic"  # external: too few requests to judge by

# -- FallbackActive, SpillActive; True carries the cause as proxies tell it: ErrorRate, Latency, PredictedWait

WITHIN_BOUNDS: Final = "WithinBounds"

# -- Injected

SIDECAR_MISSING: Final = "SidecarMissing"  # these pods take requests with nobody before their engine

# -- Saturated

OVER_BOUND: Final = "OverBound"
BELOW_BOUND: Final = "BelowBound"
LOAD_UNKNOWN: Final = "LoadUnknown"  # no fresh load report
