"""What production runs on is what judges; an engine that met a malformed request says so by the loop's log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop
from tests.integration.proxy.conftest import _nothing_goes_wrong_unseen  # noqa: F401 - for all tests here


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}
