from __future__ import annotations

import pytest

from coordinator.database import trust
from coordinator.database.database import Database
from coordinator.errors import TooMany, TrustRootNotFound
from coordinator.values import TrustRoot


async def add(database: Database, content: bytes, now_s: float = 1.0) -> TrustRoot:
    return await database.run(trust.add, content, 3, now_s)


async def test_a_root_is_kept_byte_for_byte(database: Database) -> None:
    content = b'{"signed": \x00\xff}'
    root = await add(database, content)
    assert root == TrustRoot(root.id, 3, content, 1.0)
    assert await database.run(trust.get, root.id) == root


async def test_the_same_root_again_is_the_same_root(database: Database) -> None:
    first = await add(database, b"root", now_s=1.0)
    assert await add(database, b"root", now_s=2.0) == first
    other = await add(database, b"other", now_s=0.5)
    assert await database.run(trust.every) == (other, first)


async def test_there_are_so_many_roots_and_no_more(database: Database) -> None:
    for content in (b"one", b"two"):
        await database.run(trust.add, content, 1, 1.0, limit=2)
    with pytest.raises(TooMany, match="2 roots"):
        await database.run(trust.add, b"three", 1, 1.0, limit=2)
    await database.run(trust.add, b"two", 1, 1.0, limit=2)


async def test_a_root_that_was_removed_is_not_found(database: Database) -> None:
    root = await add(database, b"root")
    await database.run(trust.remove, root.id)
    assert await database.run(trust.every) == ()
    for verb in (trust.get, trust.remove):
        with pytest.raises(TrustRootNotFound, match=root.id):
            await database.run(verb, root.id)
