from __future__ import annotations

import pytest

from coordinator.database import generation
from coordinator.database.database import Database
from depot.artifact import Generation
from depot.errors import ConfigGeneration, InvalidRequest


async def test_a_new_fleet_is_at_generation_1(database: Database) -> None:
    assert await database.run(generation.read) == 1


async def test_the_generation_is_advanced_and_never_taken_back(database: Database) -> None:
    assert await database.run(generation.advance, Generation(900)) == 900
    assert await database.run(generation.advance, Generation(900)) == 900
    with pytest.raises(ConfigGeneration) as refused:
        await database.run(generation.advance, Generation(899))
    assert refused.value.details() == {"attempted_generation": 899, "current_generation": 900}
    assert await database.run(generation.read) == 900


async def test_an_advance_leaves_room_for_changes(database: Database) -> None:
    with pytest.raises(InvalidRequest, match="2\\^62"):
        await database.run(generation.advance, Generation(2**62 + 1))
    await database.run(generation.advance, Generation(2**62))
    assert await database.run(generation.read) == 2**62
