"""Which hosts may be reached without TLS."""

from __future__ import annotations

import pytest

from spillway_operator.policies.hosts import LOOPBACK, AllowList, refused

LOCAL = AllowList.of(LOOPBACK)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "::1"])
def test_loopback_is_allowed_by_default(host: str):
    assert host in LOCAL
    assert refused(host, tls=False, allowed=LOCAL) is None


@pytest.mark.parametrize("host", ["example.com", "128.0.0.1", "localhost.example.com", "169.254.169.254", "", "::2"])
def test_others_are_refused_with_a_remedy(host: str):
    message = refused(host, tls=False, allowed=LOCAL)
    assert message is not None
    assert "use https" in message
    assert "--allow-host" in message


def test_tls_goes_anywhere():
    assert refused("example.com", tls=True, allowed=LOCAL) is None


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "::1",
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "0.0.0.0",
        "224.0.0.1",
        "10.0.0.1",
        "192.168.1.1",
        "fd12::1",
        "api.localhost",
    ],
)
def test_what_is_not_of_the_public_internet_needs_leave_even_with_tls(host: str):
    message = refused(host, tls=True, allowed=AllowList.of([]))
    assert message is not None
    assert f"--allow-host {host}" in message
    assert refused(host, tls=True, allowed=AllowList.of([host])) is None


def test_names_addresses_and_networks_can_be_allowed():
    allowed = AllowList.of(["Models.Example.com", " 10.0.0.0/8 ", "192.0.2.7", "[fd00::1]"])
    for host in ("models.example.com", "10.200.3.4", "192.0.2.7", "fd00::1"):
        assert host in allowed
    assert "192.0.2.8" not in allowed
    assert "127.0.0.1" not in allowed


@pytest.mark.parametrize(
    ("entry", "said"), [("", "empty"), ("  ", "empty"), ("10.0.0.1/8", "host bits"), ("x/y", "does not appear")]
)
def test_what_is_no_host_is_refused(entry: str, said: str):
    with pytest.raises(ValueError, match=said):
        AllowList.of([entry])


def test_where_a_names_addresses_may_be():
    allowed = AllowList.of(["models.corp", "10.0.0.0/8", "192.0.2.7"])
    assert allowed.networks_for("api.example.com") == ("10.0.0.0/8", "192.0.2.7/32")
    assert allowed.networks_for("models.corp") == ("0.0.0.0/0", "::/0")
    assert allowed.networks_for("10.1.2.3") == ("0.0.0.0/0", "::/0")
