from __future__ import annotations

import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.settings import DEFAULT_SOURCES
from agent.copies.networks import AllowedNetworks, effective_address

DEFAULT = AllowedNetworks.of(DEFAULT_SOURCES)
EVERYTHING = AllowedNetworks.of(["0.0.0.0/0", "::/0"])


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "0:0:0:0:0:0:0:1",
        "fd00::1",
        "fdff:ffff::1",
        "fe80::1",
        "febf::1",
        "fe80::1%eth0",
        "::ffff:127.0.0.1",
        "::ffff:7f00:1",
        "0:0:0:0:0:ffff:127.0.0.1",
    ],
)
def test_loopback_unique_local_and_link_local_addresses_are_allowed_by_default(
    address: str,
) -> None:
    assert DEFAULT.allows(address)


@pytest.mark.parametrize(
    "address",
    [
        "10.0.0.1",
        "192.168.0.1",
        "169.254.169.254",
        "8.8.8.8",
        "126.255.255.255",
        "128.0.0.0",
        "2001:db8::1",
        "fc00::1",
        "fec0::1",
        "::2",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:a9fe:a9fe",
        "::127.0.0.1",  # IPv4-compatible: an IPv6 address, whatever it looks like
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
    ],
)
def test_every_other_address_is_refused_by_default(address: str) -> None:
    assert not DEFAULT.allows(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "::",
        "::ffff:0.0.0.0",
        "255.255.255.255",
        "::ffff:255.255.255.255",
        "224.0.0.1",
        "239.255.255.255",
        "ff02::1",
        "ff02::1%eth0",
        "::ffff:224.0.0.1",
    ],
)
def test_an_address_that_names_no_single_peer_is_never_allowed(address: str) -> None:
    assert not DEFAULT.allows(address)
    assert not EVERYTHING.allows(address)


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "127.1", "127.0.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.01",
     "127.0.0.1.", "127.0.0.1/8", " 127.0.0.1", "127.0.0.256", "[::1]", "::1%", "fe80::1%%"],
)  # fmt: skip
def test_what_is_not_an_address_in_its_usual_form_is_not_judged(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        EVERYTHING.allows(text)


def test_a_mapped_address_is_judged_by_the_ipv4_networks_only() -> None:
    only_v6 = AllowedNetworks.of(["::/0"])
    assert only_v6.allows("2001:db8::1")
    assert not only_v6.allows("::ffff:10.0.0.1")


def test_a_network_of_mapped_addresses_means_the_ipv4_network() -> None:
    mapped = AllowedNetworks.of(["::ffff:10.0.0.0/104"])
    assert mapped.allows("10.1.2.3")
    assert mapped.allows("::ffff:10.1.2.3")
    assert not mapped.allows("11.0.0.0")
    assert str(mapped) == "10.0.0.0/8"


def test_no_networks_allow_nothing() -> None:
    nothing = AllowedNetworks.of([])
    assert not nothing.allows("127.0.0.1")
    assert str(nothing) == "none"


@pytest.mark.parametrize("text", ["10.0.0.1/8", "localhost", "10.0.0.0/33", "", "fd00::1/8"])
def test_what_is_not_a_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        AllowedNetworks.of([text])


@given(st.ip_addresses(v=4))
def test_mapping_an_ipv4_address_never_changes_the_verdict(address: object) -> None:
    for networks in (DEFAULT, EVERYTHING, AllowedNetworks.of(["10.0.0.0/8", "::/0"])):
        assert networks.allows(f"::ffff:{address}") == networks.allows(str(address))


@given(st.ip_addresses(v=6), st.sampled_from(["eth0", "1", "lo", "wlan0.5"]))
def test_a_scope_never_changes_the_verdict(address: object, scope: str) -> None:
    assert DEFAULT.allows(f"{address}%{scope}") == DEFAULT.allows(str(address))


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_the_verdict_is_about_the_address_that_the_resolver_would_give(address: object) -> None:
    # What getaddrinfo makes of a literal is what a socket would be connected to.
    (info, *_) = socket.getaddrinfo(
        str(address), 80, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST
    )
    assert effective_address(str(info[4][0])) == effective_address(str(address))
