from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from agent.process import CannotStart
from coordinator.assembly import assembled
from coordinator.settings import DATABASE_FILE
from tests.coordinator.running import settings


async def test_a_coordinator_whose_address_is_taken_leaves_the_database_alone(
    tmp_path: Path,
) -> None:
    """Else it would migrate the others' tables, and be one of them that is never there."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        made = await asyncio.to_thread(settings, tmp_path, listen=listen)
        with pytest.raises(CannotStart, match=r"\(listen\): Address already in use"):
            async with assembled(made):
                raise AssertionError("it was put together")
    there = await asyncio.to_thread((made.staging.path.parent / DATABASE_FILE).exists)
    assert not there
