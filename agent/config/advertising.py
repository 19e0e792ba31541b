"""Whether others can reach the address that a server listens on, as far as it can be told. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from agent.config.units import Address
from depot.urls import base_url


def why_not_advertised(listen: Address, others: Iterable[str]) -> str | None:
    """Say why `listen` is no address to give to the servers at the URLs `others`; None: it may be.

    Names are not looked up: one is taken for the address of some other machine.
    """
    address = _address(listen.host)
    if address is not None and address.is_unspecified:
        return f'"{listen}" is no address that anybody can connect to'
    if _is_local(listen.host):
        afar = next((url for url in others if not _is_local(base_url(url).host or "")), None)
        if afar is not None:
            return f'"{listen}" is reached from this machine only, and "{afar}" is another one'
    return None


def _is_local(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
