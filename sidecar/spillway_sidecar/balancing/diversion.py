"""Why a request goes past a priority: the cause, and the figures that it was decided by."""

from __future__ import annotations

from dataclasses import dataclass

from spillway_wire.names import DiversionCause


@dataclass(frozen=True, slots=True)
class Diversion:
    """`measured` is over `limit`: a share of 0..1 for the error rate, else seconds."""

    cause: DiversionCause
    measured: float
    limit: float

    def text(self) -> str:
        """For people: `predicted wait 3.1 s > 2 s`."""
        match self.cause:
            case DiversionCause.ERROR_RATE:
                return f"error rate {100 * self.measured:.0f} % > {100 * self.limit:.0f} %"
            case DiversionCause.LATENCY:
                # The percentile itself is not kept; what is known is how many were slower than it may be.
                return f"P95 to first token > {self.limit:g} s ({100 * self.measured:.0f} % are slower)"
            case DiversionCause.WAIT:
                return f"predicted wait {self.measured:.3g} s > {self.limit:g} s"

    def note(self) -> str:
        """The same with what was done about it, for a decision record."""
        return f"{'spilled' if self.cause is DiversionCause.WAIT else 'fell back'}: {self.text()}"
