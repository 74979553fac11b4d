"""What goes wrong: with one endpoint, with its word, or with the reports of all."""

from __future__ import annotations

import enum
from typing import Final

SLOW_FACTOR: Final = 10.0
FAIL_SECONDS: Final = 0.005


class Fault(enum.StrEnum):
    """By the name on the command line."""

    ZERO = "zero"  # one endpoint reports 0 for ever
    FROZEN = "frozen"  # one reports its maximum for ever
    NAN = "nan"  # the figures of one are no numbers
    LOST = "lost"  # half of the reports of all are lost
    OLD = "old"  # what all report is five seconds old
    SLOW = "slow"  # one works a tenth as fast
    FAILING = "failing"  # one answers 500 within milliseconds


MEANING: Final = {
    Fault.ZERO: "one endpoint reports 0 for ever",
    Fault.FROZEN: "one endpoint reports its maximum for ever",
    Fault.NAN: "one endpoint reports NaN",
    Fault.LOST: "half of the reports are lost",
    Fault.OLD: "reports are 5 s old",
    Fault.SLOW: "one endpoint becomes 10 times slower",
    Fault.FAILING: "one endpoint answers 500 at once",
}
