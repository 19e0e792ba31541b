"""The endpoints for checkpoints: what is kept is listed, and what contradicts it is refused."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.client import AgentClient
from depot.dataset.small_files import STAGING
from depot.errors import Io, Refused
from tests.http.sled import RefusingStore, agent_api
from tests.unit.test_checkpoints import note


async def test_checkpoints_are_kept_and_not_taken_back(tmp_path: Path) -> None:
    await asyncio.to_thread((tmp_path / "state" / STAGING).mkdir, parents=True)
    store = RefusingStore(Io("nothing is stored here"))
    async with agent_api(store, tmp_path) as sled, AgentClient(sled.url) as client:
        assert await client.checkpoints() == ()
        for size in (1, 5, 5):
            await client.put_checkpoint(note(size))
        for wrong in (note(5, content="edited"), note(4), "nothing"):
            with pytest.raises(Refused) as refused:
                await client.put_checkpoint(wrong)
            assert refused.value.remote_code == "InvalidRequest"
        assert await client.checkpoints() == (note(1), note(5))
