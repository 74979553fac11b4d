"""What holds for all tests: a machine may be slow, so no example of Hypothesis fails for its time, nor for the time that it takes to make."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("spillway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("spillway")
