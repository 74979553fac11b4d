"""What holds for all tests: a machine may be slow, so no example of Hypothesis fails for its time."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("spillway")
settings.load_profile("spillway")
