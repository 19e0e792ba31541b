"""Sizes, durations and addresses as people write them in a configuration file.

Each parser takes what TOML or an environment variable may hold (a string or a whole number) and
raises `ValueError` with what was expected and what was found. Units are binary and spelled out:
"GiB", never "G" or "GB", which mean different things to different readers.
"""

from __future__ import annotations

import ipaddress
import json
import re
from dataclasses import dataclass
from typing import Final

_SIZE: Final = re.compile(r"(\d{1,19})\s*(B|KiB|MiB|GiB|TiB)?", re.ASCII)
_SIZE_UNITS: Final = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_DURATION: Final = re.compile(r"(?:\d{1,9}[smhd])+", re.ASCII)
_DURATION_PART: Final = re.compile(r"(\d+)([smhd])", re.ASCII)
_DURATION_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Enough for any disk and any patience; beyond it stands a slip of the finger.
_MAX_SIZE_BYTES: Final = 2**60
_MAX_DURATION_S: Final = 10 * 365 * 86400
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})", re.ASCII)
_MAX_PORT: Final = 2**16 - 1


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a host name or IP address, and a port (0: any free one)."""

    host: str
    port: int

    def __str__(self) -> str:
        """`host:port`, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_size(value: object) -> int:
    """Read "20GiB", "512 MiB" or a whole number of bytes.

    Raises:
        ValueError: anything else, zero, or more than 1024 PiB.
    """
    text = str(value) if _is_integer(value) else value
    match = _SIZE.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(f'expected a size such as "20GiB", found {shown(value)}')
    size_bytes = int(match[1]) * _SIZE_UNITS[match[2] or "B"]
    if not 0 < size_bytes <= _MAX_SIZE_BYTES:
        raise ValueError(f"expected a size from 1 byte to 1024 PiB, found {shown(value)}")
    return size_bytes


def parse_limit(value: object) -> int:
    """Read a size, or "0" for no limit.

    Raises:
        ValueError: anything else.
    """
    return 0 if value == "0" or (_is_integer(value) and value == 0) else parse_size(value)


def format_size(size_bytes: int) -> str:
    """Write a size the way `parse_size` reads it back exactly: "20GiB", "1000B"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if size_bytes and size_bytes % _SIZE_UNITS[unit] == 0:
            return f"{size_bytes // _SIZE_UNITS[unit]}{unit}"
    return f"{size_bytes}B"


def parse_duration(value: object) -> float:
    """Read "30s", "10m", "24h", "7d" or a sum such as "1h30m", as seconds.

    A bare number is refused: a key without `_s` in its name does not say seconds.

    Raises:
        ValueError: anything else, or more than ten years.
    """
    if not isinstance(value, str) or not _DURATION.fullmatch(value):
        raise ValueError(f'expected a duration such as "30s", "10m" or "7d", found {shown(value)}')
    duration_s = sum(int(n) * _DURATION_UNITS_S[unit] for n, unit in _DURATION_PART.findall(value))
    if duration_s > _MAX_DURATION_S:
        raise ValueError(f"expected a duration of at most ten years, found {shown(value)}")
    return float(duration_s)


def parse_address(value: object) -> Address:
    """Read "host:port"; an IPv6 address stands in brackets, as in "[::1]:12345".

    Raises:
        ValueError: anything else.
    """
    expected = 'expected "host:port" such as "127.0.0.1:12345" or "[::1]:12345"'
    host, colon, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not re.fullmatch(r"\d{1,5}", port, re.ASCII) or int(port) > _MAX_PORT:
        raise ValueError(f"{expected} with a port from 0 to {_MAX_PORT}, found {shown(value)}")
    bracketed = host.startswith("[") and host.endswith("]")
    if not (_is_ipv6(host[1:-1]) if bracketed else _HOST.fullmatch(host)):
        raise ValueError(f"{expected}, found {shown(value)}")
    return Address(host[1:-1] if bracketed else host, int(port))


def parse_host(value: object) -> str:
    """Read a host's name, without a port, in lower case.

    Raises:
        ValueError: anything else.
    """
    if isinstance(value, str) and _NAME.fullmatch(value):
        return value.lower()
    raise ValueError(
        f'expected a host name such as "fleet.example", without a port, found {shown(value)}'
    )


def shown(value: object) -> str:
    """Show a TOML value in an error message: as it would be written, and bounded."""
    match value:
        case dict():
            return "a table"
        case list() | tuple():
            return "an array"
        case bool() | str():
            text = json.dumps(value, ensure_ascii=False)
        case _:
            text = str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True
