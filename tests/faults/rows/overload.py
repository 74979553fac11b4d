"""More than the engines can do."""

from __future__ import annotations
