"""A name that resolves to the machine's own network is not connected to."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from spillway_sidecar.proxy.upstream import Target, Upstream
from spillway_sidecar.scheduling.speed import ClusterSpeed


class Transport:
    def __init__(self, address: str) -> None:
        self.address = address
        self.aborted = False

    def get_extra_info(self, name: str) -> Any:
        return {"peername": (self.address, 443)}[name]

    def abort(self) -> None:
        self.aborted = True


def reaches(monkeypatch: pytest.MonkeyPatch, address: str) -> Transport:
    transport = Transport(address)

    async def connect(factory: Any, *_: Any, **__: Any) -> tuple[Any, Upstream]:
        protocol = factory()
        protocol.transport = transport
        return transport, protocol

    monkeypatch.setattr(asyncio.get_running_loop(), "create_connection", connect)
    return transport


def outside(host: str) -> Target:
    target = Target("default/a/external", host, 443, False, ClusterSpeed())
    target.external = True
    return target


@pytest.mark.parametrize("address", ["169.254.169.254", "::ffff:169.254.169.254", "fe80::1", "FEBF::1", "fd00:ec2::254"])
async def test_a_name_that_becomes_a_metadata_service_is_refused(monkeypatch: pytest.MonkeyPatch, address: str):
    transport = reaches(monkeypatch, address)
    target = outside("models.example.com")
    with pytest.raises(OSError, match=r"models\.example\.com resolves to"):
        await target.dial()
    assert transport.aborted
    assert target.trouble is not None
    assert target.trouble[0] == "AddressRefused"


@pytest.mark.parametrize(
    ("host", "address"), [("models.example.com", "93.184.216.34"), ("localhost", "127.0.0.1"), ("169.254.1.1", "169.254.1.1")]
)
async def test_other_addresses_and_those_given_as_such_are_connected_to(monkeypatch: pytest.MonkeyPatch, host: str, address: str):
    transport = reaches(monkeypatch, address)
    await outside(host).dial()
    assert not transport.aborted
