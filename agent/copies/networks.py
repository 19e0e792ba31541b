"""Which addresses a copy may connect to.

An address is judged as the kernel will use it: an IPv4 address written inside an IPv6 one
(`::ffff:10.0.0.1`) is that IPv4 address, and a scope id (`fe80::1%eth0`) does not change what the
address is. Addresses that name no single peer are never allowed, whatever the configuration says:
the kernel turns `0.0.0.0` and `::` into the local host, so they would be reached under another
name than the one that was judged. Names are not judged here: what they resolve to is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, Self

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_BROADCAST: Final = IPv4Address("255.255.255.255")


@dataclass(frozen=True, slots=True)
class AllowedNetworks:
    """The networks that copies may come from (`copy.allowed_sources`)."""

    networks: tuple[Network, ...]

    @classmethod
    def of(cls, networks: Iterable[str | Network]) -> Self:
        """Build from networks or their text forms.

        Raises:
            ValueError: not a network, or one with host bits set.
        """
        return cls(tuple(_effective_network(ip_network(network)) for network in networks))

    def allows(self, address: str) -> bool:
        """Tell whether `address` (as a resolver or a URL gives it) may be connected to.

        Raises:
            ValueError: not an address in its usual form; `127.1` is not one.
        """
        effective = effective_address(address)
        if effective.is_unspecified or effective.is_multicast or effective == _BROADCAST:
            return False
        return any(effective in network for network in self.networks)

    def __str__(self) -> str:
        return ", ".join(map(str, self.networks)) or "none"


def effective_address(text: str) -> Address:
    """Read an address as the kernel will use it: unmapped, without its scope.

    Raises:
        ValueError: not an address in its usual form.
    """
    address = ip_address(text)
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or IPv6Address(int(address))


def _effective_network(network: Network) -> Network:
    # Mapped addresses are judged as IPv4, so a network of them has to be held as IPv4 too.
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        low_bits = int(network.network_address) & 0xFFFF_FFFF
        return IPv4Network((low_bits, network.prefixlen - _MAPPED.prefixlen))
    return network
