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
SCALING_ACTIVE: Final = "ScalingActive"  # the number of replicas is set by the load; on backends that declare scaling
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
SCALED_TO_ZERO: Final = "ScaledToZero"  # it has none as yet: the next request waits for the first
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

# -- ScalingActive; True: why there are as many replicas as there are, False: why nobody here sets their number

STEADY: Final = "Steady"  # as many as the load takes
RAISED: Final = "Raised"  # it takes more
PANIC: Final = "Panic"  # it takes twice as many, or did within the last window: up at once, and not down
LOWERED: Final = "Lowered"  # it takes fewer, and has for as long as the way down asks for
DELAYED: Final = "Delayed"  # it takes fewer, and has not for so long
FROM_ZERO: Final = "FromZero"  # there was none, and requests came
IDLE: Final = "Idle"  # to zero, or there already: no request for as long as idleAfter
AT_LEAST: Final = "AtMinReplicas"  # the load takes fewer than the least of this moment
AT_MOST: Final = "AtMaxReplicas"  # it takes more than the most of this moment
SCALING_LIMITED: Final = "ScalingLimited"  # behavior allows no more change for now
PINNED: Final = "Pinned"  # spec.scaling.replicas says so
NO_DATA: Final = "NoData"  # nothing was measured: what there is stays
TARGET_NOT_FOUND: Final = "TargetNotFound"  # no such object
TARGET_FORBIDDEN: Final = "TargetForbidden"  # the operator may not read or set its scale
TARGET_UNKNOWN: Final = "TargetUnknown"  # it has not been read yet
TARGET_TAKEN: Final = "TargetTaken"  # an older ModelBackend scales the same object
SCALE_FAILED: Final = "ScaleFailed"  # its scale could not be set; it is tried again
CONFLICTING_AUTOSCALER: Final = "ConflictingAutoscaler"  # somebody else's autoscaler sets its replicas

# -- Injected

SIDECAR_MISSING: Final = "SidecarMissing"  # these pods take requests with nobody before their engine

# -- Saturated

OVER_BOUND: Final = "OverBound"
BELOW_BOUND: Final = "BelowBound"
LOAD_UNKNOWN: Final = "LoadUnknown"  # no fresh load report
