"""Whatever is asked for once a path leads elsewhere, the disk that was there is not touched (B1).

The descriptor that is held still leads to it, as to a filesystem that was lazily unmounted. Nor is
anything written to what took its place.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from depot.artifact import Generation
from depot.errors import DepotError
from depot.initialise import init_datasets
from depot.store import ArtifactStore
from tests.store.builders import (
    MIB,
    ONE,
    THREE,
    TWO,
    B,
    Node,
    config,
    hash_of,
    off_loop,
    put,
    put_short,
    states,
)
from tests.store.damage import flip, hurt

LARGE = os.urandom(2 * MIB + 77)
WANTED = (ONE, TWO, LARGE)

Verb = Callable[[ArtifactStore], Awaitable[object]]


def seen(root: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and directory with its inode, size and time of change."""
    found = {}
    for path in root.rglob("*"):
        status = path.stat()
        found[str(path.relative_to(root))] = (status.st_ino, status.st_size, status.st_ctime_ns)
    return found


async def discover(store: ArtifactStore) -> None:
    async with store.begin_put(hash_of(ONE), Generation(1), len(ONE), counted=False):
        return


async def purge(store: ArtifactStore) -> None:
    for found in store.quarantined():
        await store.purge_quarantined(found.id, force=True)


async def restore(store: ArtifactStore) -> None:
    for found in store.quarantined():
        await store.restore_quarantined(found.id)


VERBS: dict[str, Verb] = {
    "put": lambda store: put(store, TWO),
    "put of a long body": lambda store: put(store, LARGE),
    "short put": lambda store: put_short(store, hash_of(TWO), Generation(1), TWO),
    "config": lambda store: store.put_config(config(2, *WANTED)),
    "same config": lambda store: store.put_config(config(1, *WANTED)),
    "reset": lambda store: store.reset(Generation(1)),
    "pin": lambda store: store.put_pin("service", [hash_of(ONE)]),
    "unpin": lambda store: store.delete_pin("host"),
    "look": lambda store: store.check_datasets(),
}


async def check(node: Node, store: ArtifactStore, verb: Verb, *, swapped: bool) -> None:
    await node.take_away(B)
    if swapped:
        await off_loop(node.paths[B].mkdir)
        await off_loop(init_datasets, [node.paths[B]], sled_id="another-sled")
    away, there = node.away_path(B), node.paths[B]
    before = await off_loop(seen, away), await off_loop(seen, there)
    with suppress(DepotError, OSError):
        await verb(store)
    assert await off_loop(seen, away) == before[0], "the disk that is not there any more"
    assert await off_loop(seen, there) == before[1], "what took its place"
    assert states(store) == ["healthy", "missing"]


@pytest.mark.parametrize("swapped", [False, True], ids=["gone", "swapped"])
@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())
async def test_b1_no_verb_writes_where_the_path_does_not_lead_any_more(
    node: Node, verb: Verb, swapped: bool
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, *WANTED))
        await put(store, ONE)
        await store.put_pin("host", [hash_of(ONE)])
        await check(node, store, verb, swapped=swapped)


@pytest.mark.parametrize("swapped", [False, True], ids=["gone", "swapped"])
async def test_d1_nothing_is_deleted_where_the_path_does_not_lead_any_more(
    node: Node, swapped: bool
) -> None:
    async with node.open(delete_grace_s=0.0) as store:
        await store.put_config(config(1, ONE, TWO))
        for content in (ONE, TWO):
            await put(store, content)
        await store.put_config(config(2, TWO, THREE))
        await check(node, store, lambda store: store.reconcile(), swapped=swapped)


@pytest.mark.parametrize("swapped", [False, True], ids=["gone", "swapped"])
async def test_b5_nothing_is_healed_where_the_path_does_not_lead_any_more(
    node: Node, swapped: bool
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        await off_loop(node.file(B, ONE).unlink)
        await store.reconcile()
        await check(node, store, lambda store: store.remirror(), swapped=swapped)


@pytest.mark.parametrize("verb", [discover, purge, restore])
async def test_b6_nothing_is_set_aside_purged_or_restored_where_the_path_does_not_lead_any_more(
    node: Node, verb: Verb
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, ONE))
        await put(store, ONE)
        await hurt(node, B, ONE, flip(3))
        if verb is not discover:
            await discover(store)
            assert len(store.quarantined()) == 1
        if verb is restore:  # or it would be refused for its bytes, or for the good copy
            found = store.quarantined()[0]
            await off_loop(Path(found.path).chmod, 0o644)
            await off_loop(Path(found.path).write_bytes, ONE)
        await check(node, store, verb, swapped=False)
