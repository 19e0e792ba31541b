"""Listening where the configuration says, or failing with the key that says it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from agent.config.units import Address
from agent.process import CannotStart
from depot.http.service import HttpService


async def listen_at(server: HttpService, address: Address, key: str) -> None:
    """Have `server` listen.

    Raises:
        CannotStart: it may not, or another one does; with the configuration's `key`.
    """
    with _listening(address, key):
        await server.start(address.host, address.port)


async def check_can_listen(address: Address, key: str) -> None:
    """Take an address and let go of it, before anything is done that others see.

    Raises:
        CannotStart: as `listen_at`.
    """
    with _listening(address, key):
        taken = await asyncio.get_running_loop().create_server(
            asyncio.Protocol, address.host.strip("[]"), address.port, start_serving=False
        )
    taken.close()


@contextmanager
def _listening(address: Address, key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # asyncio repeats the address in its message; a failed look-up's number is not errno's.
        by_number = error.errno is not None and not isinstance(error, socket.gaierror)
        reason = os.strerror(error.errno or 0) if by_number else error.strerror or str(error)
        raise CannotStart(f"cannot listen on {address} ({key}): {reason}") from error
