"""Every switch of leniency is described."""

from __future__ import annotations

from pathlib import Path

from spillway_sidecar.proxy.compat import COMPAT

RESOURCES = Path(__file__).parents[3] / "docs" / "resources.md"


def test_every_item_that_may_be_overlooked_is_described():
    section = RESOURCES.read_text(encoding="utf-8").partition("## What is overlooked on request")[2].partition("\n## ")[0]
    told = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert told == list(COMPAT)
