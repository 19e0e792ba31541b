"""Healing without room on the disk: the quarantine yields before a heal is refused (B5, Q1)."""

from __future__ import annotations

import errno
import os
import random
from pathlib import Path

from depot.artifact import Generation
from depot.dataset.space import RESERVE
from depot.store import ArtifactStore
from tests.store.builders import MIB, A, B, Node, config, copies, hash_of, put, states
from tests.store.damage import flip, hurt, quarantined
from tests.store.faulty import FaultyDisk

LARGE = random.Random(31).randbytes(3 * MIB + 5)
OTHER = random.Random(32).randbytes(3 * MIB + 9)


class SmallDisk(FaultyDisk):
    """A disk of so many bytes, the reserve left out: it says what is free, and refuses the rest."""

    def __init__(self, path: Path, limit_bytes: int, refusal: int = errno.ENOSPC) -> None:
        super().__init__()
        self.path = path
        self.limit_bytes = limit_bytes
        self.refusal = refusal

    def free_bytes(self) -> int:
        files = [file for file in self.path.rglob("*") if file.is_file()]
        used_bytes = sum(f.stat().st_size for f in files if f != self.path / RESERVE)
        return max(0, self.limit_bytes - used_bytes)

    def write(self, fd: int, content: memoryview) -> int:
        if len(content) > self.free_bytes():
            raise OSError(self.refusal, os.strerror(self.refusal))
        return super().write(fd, content)

    def statvfs(self, fd: int) -> os.statvfs_result:
        found = list(super().statvfs(fd))
        f_frsize, f_bavail = 1, 4
        found[f_bavail] = self.free_bytes() // found[f_frsize]
        return os.statvfs_result(found)


async def rot(node: Node, store: ArtifactStore, index: int, content: bytes = LARGE) -> None:
    """Damage a copy, and have it found and set aside."""
    await hurt(node, index, content, flip(9))
    async with store.begin_put(hash_of(content), Generation(1), len(content), counted=False):
        return


def purged(node: Node) -> list[object]:
    return [fields["why"] for kind, fields in node.events if kind == "quarantine_purged"]


async def test_b5_the_quarantine_is_purged_before_a_heal_is_refused_for_space(node: Node) -> None:
    node.disks[node.paths[A]] = SmallDisk(node.paths[A], 8 * MIB)
    async with node.open() as store:
        await store.put_config(config(1, LARGE))
        await put(store, LARGE)
        for turn in (1, 2):  # room for two, not for three
            await rot(node, store, A)
            assert len(await quarantined(node, A)) == turn
            await store.check_datasets()
            assert purged(node) == []
            assert await store.remirror() == 1, store.status().warnings
            purged_now, node.events[:] = purged(node), []
            assert purged_now == ["space"] * (turn - 1)
        assert copies(store) == {hash_of(LARGE): 2}
        assert len(await quarantined(node, A)) == 1
    assert await node.read(A, LARGE) == LARGE


async def test_d1_a_heal_is_refused_for_space_rather_than_that_a_last_copy_goes(
    node: Node,
) -> None:
    node.disks[node.paths[A]] = SmallDisk(node.paths[A], 5 * MIB)
    async with node.open() as store:
        await store.put_config(config(1, LARGE, OTHER))
        await put(store, LARGE)
        for index in (A, B):
            await rot(node, store, index)
        assert await store.remirror() == 0
        assert (await put(store, OTHER)).copies == 1  # on B alone
        assert (purged(node), len(await quarantined(node, A))) == ([], 1)
        await store.check_datasets()
        assert await store.remirror() == 0
        assert (purged(node), len(await quarantined(node, A))) == ([], 1)
        assert states(store) == ["healthy", "healthy"]
        assert any(
            f"{hash_of(OTHER)} cannot be re-mirrored: dataset 1 is full" in said
            for said in store.status().warnings
        )


class DiskWithQuota(SmallDisk):
    """A disk that says it has room which a quota forbids."""

    def __init__(self, path: Path, limit_bytes: int) -> None:
        super().__init__(path, limit_bytes, errno.EDQUOT)

    def statvfs(self, fd: int) -> os.statvfs_result:
        return FaultyDisk.statvfs(self, fd)


async def test_b5_a_quota_that_the_filesystem_does_not_tell_of_has_the_quarantine_purged_too(
    node: Node,
) -> None:
    node.disks[node.paths[A]] = DiskWithQuota(node.paths[A], 8 * MIB)
    async with node.open() as store:
        await store.put_config(config(1, LARGE))
        await put(store, LARGE)
        for _ in range(2):
            await rot(node, store, A)
            await store.remirror()
        assert purged(node) == []
        assert copies(store) == {hash_of(LARGE): 1}
        await store.check_datasets()
        assert await store.remirror() == 1, store.status().warnings
        assert purged(node) == ["space"]
        assert copies(store) == {hash_of(LARGE): 2}
    assert await node.read(A, LARGE) == LARGE
