"""Every test of the data path runs on both event loops that a proxy may run on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping

import pytest
import uvloop


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(autouse=True)
def _nothing_goes_wrong_unseen(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """An exception in a protocol's callback ends no test; the loop logs it."""
    yield
    told = [record.getMessage() for record in caplog.get_records("call") if record.name == "asyncio"]
    assert not told, told
