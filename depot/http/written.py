"""How far a connection got that another process wrote to, told by the kernel."""

from __future__ import annotations

import socket
import struct
import sys
from contextlib import suppress
from typing import Final

from depot.http.patience import unsent_bytes

_INFO_BYTES: Final = 256
_ACKED: Final = struct.Struct("=120xQ")
"""`tcpi_bytes_acked` in the kernel's `struct tcp_info`."""


def written_bytes(sock: socket.socket) -> int | None:
    """How many bytes were ever written to a TCP connection; None where nobody can tell.

    Counted by the kernel: what the other side has acknowledged, and what waits for that. Exact as
    long as nobody writes.
    """
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return None
    with suppress(OSError):
        acked_bytes = _acked_bytes(sock)
        while acked_bytes is not None:
            waiting_bytes, before_bytes = unsent_bytes(sock.fileno()), acked_bytes
            acked_bytes = _acked_bytes(sock)
            if acked_bytes == before_bytes:
                return acked_bytes + waiting_bytes
    return None


def _acked_bytes(sock: socket.socket) -> int | None:
    known = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
    if len(known) < _ACKED.size:
        return None
    acked_bytes: int = _ACKED.unpack_from(known)[0]
    return acked_bytes
