"""A name outside is connected to at an address that a server outside may have: the one that was checked, and no other."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spillway_sidecar.proxy.upstream import Target, Upstream
from spillway_sidecar.scheduling.speed import ClusterSpeed
from spillway_wire.addresses import is_outside, may_reach

INSIDE = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.169.254",
    "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::127.0.0.1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254", "::ffff:10.0.0.1",
    "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1", "2001::7f00:1", "2001:db8::1", "fc00::1",
    "fd00:ec2::254", "fd12:3456::1", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "ff02::1", "100::1", "5f00::1",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1"]  # fmt: skip

# What the system's resolver makes of other ways to write an address; an attacker's name may resolve to the same.
WRITTEN = {
    "2130706433": "127.0.0.1", "0x7f000001": "127.0.0.1", "0x7f.1": "127.0.0.1", "017700000001": "127.0.0.1", "0177.0.0.1": "127.0.0.1",
    "127.1": "127.0.0.1", "0": "0.0.0.0", "0251.0376.0251.0376": "169.254.169.254", "2852039166": "169.254.169.254", "169.254.43518": "169.254.169.254",
}  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_no_server_outside(address: str):
    assert not is_outside(ipaddress.ip_address(address))
    assert not may_reach(ipaddress.ip_address(address), ["192.0.2.0/24", "2001:db8:1::/48"])


@pytest.mark.parametrize("address", OUTSIDE)
def test_what_is_one(address: str):
    assert is_outside(ipaddress.ip_address(address))
    assert may_reach(ipaddress.ip_address(address), [])


@given(st.ip_addresses(v=4))
def test_an_address_is_judged_alike_however_it_is_packed(address: ipaddress.IPv4Address):
    number = int(address)
    for packed in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert is_outside(ipaddress.IPv6Address(packed)) is is_outside(address)
    assert may_reach(ipaddress.IPv6Address(0xFFFF << 32 | number), [f"{address}/32"])


def test_what_is_allowed_is_reached_and_nothing_beside_it():
    assert may_reach(ipaddress.ip_address("10.1.2.3"), ["10.0.0.0/8"])
    assert may_reach(ipaddress.ip_address("::ffff:10.1.2.3"), ["10.0.0.0/8"])
    assert not may_reach(ipaddress.ip_address("10.2.0.1"), ["10.1.0.0/16"])
    assert may_reach(ipaddress.ip_address("fd00::1"), ["0.0.0.0/0", "::/0"])
    assert not may_reach(ipaddress.ip_address("169.254.169.254"), ["10.0.0.0/8"])


class Resolver:
    """Stands in for the loop's resolver and its connections: each lookup gives the next of the answers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: list[str], refusing: frozenset[str] = frozenset()) -> None:
        self.answers = list(answers)
        self.dialled: list[tuple[str, object]] = []
        self.refusing = refusing
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", self.getaddrinfo)
        monkeypatch.setattr(loop, "create_connection", self.create_connection)

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in self.answers.pop(0)]

    async def create_connection(self, factory: Any, host: str, port: int, **options: Any) -> tuple[Any, Upstream]:
        self.dialled.append((host, options.get("server_hostname")))
        if host in self.refusing:
            raise ConnectionRefusedError
        return None, factory()


def outside(host: str, *allowed: str, tls: bool = False) -> Target:
    target = Target("default/a/external", host, 443, False, ClusterSpeed())
    target.external = True
    target.allowed_networks = allowed
    if tls:
        target.tls, target.server_name = object(), host  # type: ignore[assignment]
    return target


async def test_the_address_that_was_checked_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch):
    """A name that answers otherwise the second time (DNS rebinding) is asked once a connection."""
    resolver = Resolver(monkeypatch, ["8.8.8.8"], ["127.0.0.1"])
    target = outside("rebinding.example", tls=True)
    await target.dial()
    assert resolver.dialled == [("8.8.8.8", "rebinding.example")]
    with pytest.raises(OSError, match="public internet"):
        await target.dial()
    assert len(resolver.dialled) == 1
    assert target.trouble is not None
    assert target.trouble[0] == "AddressRefused"


async def test_of_several_addresses_only_those_outside_are_dialled(monkeypatch: pytest.MonkeyPatch):
    resolver = Resolver(
        monkeypatch, ["169.254.169.254", "8.8.8.8", "10.0.0.1", "8.8.4.4", "8.8.8.8"], refusing=frozenset({"8.8.8.8"})
    )
    await outside("mixed.example").dial()
    assert [address for address, _ in resolver.dialled] == ["8.8.8.8", "8.8.4.4"]


async def test_when_none_takes_the_connection_the_last_reason_is_told(monkeypatch: pytest.MonkeyPatch):
    Resolver(monkeypatch, ["8.8.8.8", "8.8.4.4"], refusing=frozenset({"8.8.8.8", "8.8.4.4"}))
    with pytest.raises(ConnectionRefusedError):
        await outside("down.example").dial()


async def test_an_allowed_network_may_be_reached_by_name(monkeypatch: pytest.MonkeyPatch):
    resolver = Resolver(monkeypatch, ["10.1.2.3"])
    await outside("models.corp", "10.0.0.0/8").dial()
    assert [address for address, _ in resolver.dialled] == ["10.1.2.3"]


@pytest.mark.parametrize("host", [*WRITTEN, "localhost", "[::1]".strip("[]"), "::ffff:127.0.0.1"])
async def test_no_way_to_write_an_address_gets_round_the_check(host: str):
    """By the system's own resolver, and with a server that would answer: refused, or not an address to this resolver at all."""
    server = await asyncio.get_running_loop().create_server(asyncio.Protocol, "127.0.0.1", 0)
    try:
        target = outside(host)
        target.port = server.sockets[0].getsockname()[1]
        with pytest.raises(OSError):
            await target.dial()
    finally:
        server.close()


@pytest.mark.parametrize(("host", "address"), WRITTEN.items())
def test_the_resolver_does_take_them_for_addresses(host: str, address: str):
    """What makes the test before this one mean something."""
    assert {entry[4][0] for entry in socket.getaddrinfo(host, 80, family=socket.AF_INET, type=socket.SOCK_STREAM)} == {address}
