"""What a client has not taken yet of an answer that nobody waits for: watched, and cut off in time.

The rule is that of `patience`: the connection stays for as long as the client keeps the pace.
"""

from __future__ import annotations

import asyncio
from typing import Final

from depot.errors import BodyTimeout
from depot.http.patience import unsent_bytes
from depot.streams.sources import Pace, PaceMeter

_CHECK_S: Final = 1.0


def watch_leftover(transport: asyncio.Transport, pace: Pace) -> None:
    """Abort the connection unless its client takes what is buffered; does not wait for that."""
    loop = asyncio.get_running_loop()
    meter = PaceMeter(pace, loop.time())
    check_s = min(_CHECK_S, pace.idle_timeout_s)

    def look(before_bytes: int) -> None:
        if transport.is_closing() or not transport.get_write_buffer_size():
            return
        left_bytes = _left(transport)
        try:
            if left_bytes < before_bytes:
                meter.arrived(before_bytes - left_bytes, loop.time())
            else:
                meter.check(loop.time())
        except BodyTimeout:
            transport.abort()
        else:
            loop.call_later(check_s, look, left_bytes)

    loop.call_later(check_s, look, _left(transport))


def _left(transport: asyncio.Transport) -> int:
    in_kernel_bytes = unsent_bytes(transport.get_extra_info("socket").fileno())
    return transport.get_write_buffer_size() + in_kernel_bytes
