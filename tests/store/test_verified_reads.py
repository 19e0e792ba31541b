"""Block digests beside the artifacts: kept at ingest, never believed when wrong, made anew."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from depot.errors import NotFound
from depot.reading.reader import VerifyReads
from depot.store import ArtifactStore
from depot.streams.block_digests import BlockDigests, decode_digests, encode_digests
from depot.streams.stream_hash import stream_hash
from tests.store.builders import (
    MIB,
    A,
    B,
    Node,
    config,
    copies,
    hash_of,
    off_loop,
    put,
    states,
    used_bytes,
)
from tests.store.faulty import HANG_S, FaultyDisk

LARGE = random.Random(1).randbytes(3 * MIB + 17)
OTHER = random.Random(2).randbytes(3 * MIB + 17)
ONE_BLOCK = random.Random(3).randbytes(MIB)


class CheckingDisk(FaultyDisk):
    """A disk whose filesystem checks its data."""

    def checksums_data(self, path: Path) -> bool:
        return True


class StutteringDisk(FaultyDisk):
    """A disk that gives less than was asked for."""

    def pread(self, fd: int, size_bytes: int, offset_bytes: int) -> bytes:
        return super().pread(fd, min(size_bytes, 300_001), offset_bytes)

    def pread_into(self, fd: int, buffer: memoryview, offset_bytes: int) -> int:
        return super().pread_into(fd, buffer[:300_001], offset_bytes)


def digest_file(node: Node, index: int, content: bytes) -> Path:
    return node.paths[index] / ".sled-depot/blocks" / str(hash_of(content))


async def kept(node: Node, index: int, content: bytes) -> BlockDigests | None:
    path = digest_file(node, index, content)
    found = await off_loop(lambda: path.read_bytes() if path.exists() else None)
    return None if found is None else decode_digests(found, hash_of(content), len(content))


def expected(content: bytes, *, chained: bool = False) -> BlockDigests:
    hashing = stream_hash(None, lambda digest, *, chained: None, chained=chained)
    for update in hashing.updates:
        for start in range(0, len(content), MIB):
            update(memoryview(content)[start : start + MIB])
    digests = hashing.block_digests(len(content))
    assert digests is not None
    return digests


async def keeps_right_ones(node: Node, index: int, content: bytes) -> bool:
    """Whether a dataset has the block digests of `content`, of whichever kind."""
    found = await kept(node, index, content)
    return found is not None and found == expected(content, chained=found.chained)


async def stock(store: ArtifactStore, *contents: bytes) -> None:
    await store.put_config(config(1, *contents))
    for content in contents:
        await put(store, content)


async def read_checked(store: ArtifactStore, content: bytes) -> bytes:
    """Read an artifact as the depot does, but for the socket."""

    def read() -> bytes:
        assert opened.read is not None, "nothing checks the bytes"
        buffer, filled = memoryview(bytearray(opened.size_bytes)), 0
        while count := opened.read(opened.fd, buffer[filled:], filled):
            filled += count
        return bytes(buffer[:filled])

    with await store.open_artifact(hash_of(content)) as opened:
        return await off_loop(read)


# ---- at ingest


@pytest.mark.parametrize("announced", [True, False])
async def test_each_mirror_keeps_the_block_digests_of_what_it_takes(
    node: Node, announced: bool
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, LARGE))
        await put(store, LARGE, announced=announced)
        assert used_bytes(store) == [len(LARGE)] * 2, "digests count as artifacts"
    for index in (A, B):
        assert await keeps_right_ones(node, index, LARGE)
        assert await node.names(index) == {str(hash_of(LARGE))}


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("content", [b"", b"small", ONE_BLOCK])
async def test_an_artifact_of_one_block_needs_no_digests(
    node: Node, content: bytes, announced: bool
) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await store.put_config(config(1, content))
        await put(store, content, announced=announced)
        assert await read_checked(store, content) == content
    for index in (A, B):
        assert not await off_loop(digest_file(node, index, content).exists)


async def test_b4_a_mirror_that_cannot_keep_digests_keeps_its_copy(node: Node) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        node.disk(A).fail("rename", errno.EIO, name="blocks/")
        await stock(store, LARGE)
        assert copies(store) == {hash_of(LARGE): 2}
        assert await read_checked(store, LARGE) == LARGE
    assert await kept(node, A, LARGE) is None
    assert await keeps_right_ones(node, B, LARGE)
    assert await node.leftovers() == []


async def test_a_healed_copy_gets_its_digests_with_it(node: Node) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
        await off_loop(digest_file(node, B, LARGE).unlink)
        await off_loop(node.file(B, LARGE).unlink)
        await store.reconcile()
        assert await store.remirror() == 1
    assert await keeps_right_ones(node, B, LARGE)


async def test_q3_digests_leave_with_their_artifact(node: Node) -> None:
    async with node.open(delete_grace_s=0) as store:
        await stock(store, LARGE)
        await store.put_config(config(2))
        await store.reconcile()
    for index in (A, B):
        assert not await off_loop(digest_file(node, index, LARGE).exists)


async def test_the_setting_says_of_which_kind_digests_are_and_both_are_read(
    node: Node, chained_digests: bool
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
    found = await kept(node, A, LARGE)
    assert found is not None
    assert found.chained is chained_digests
    async with node.open(
        chained_digests=not chained_digests, verify_reads=VerifyReads.ALWAYS
    ) as store:
        assert await read_checked(store, LARGE) == LARGE
    assert await kept(node, A, LARGE) == found, "they did well, and were made anew"


# ---- digests that are not to be believed

Spoil = Callable[[bytes], bytes | None]
SPOILT: dict[str, Spoil] = {
    "missing": lambda _: None,
    "empty": lambda _: b"",
    "torn": lambda content: content[:-40],
    "altered": lambda content: content[:60] + bytes([content[60] ^ 1]) + content[61:],
    "with more behind it": lambda content: content + b"x",
    "of another artifact": lambda _: encode_digests(expected(OTHER)),
    "of another size": lambda _: encode_digests(
        BlockDigests(hash_of(LARGE), 2 * MIB, expected(LARGE).digests[:64])
    ),
    "of another version": lambda content: content[:7] + b"\3" + content[8:],
    "of the other kind": lambda content: content[:7] + bytes([content[7] ^ 3]) + content[8:],
}


async def spoil(node: Node, index: int, how: Spoil) -> None:
    def change() -> None:
        path = digest_file(node, index, LARGE)
        spoilt = how(path.read_bytes())
        path.unlink()
        if spoilt is not None:
            path.write_bytes(spoilt)

    await off_loop(change)


@pytest.mark.parametrize("how", SPOILT.values(), ids=SPOILT.keys())
async def test_digests_that_cannot_be_believed_are_made_anew_on_both_mirrors(
    node: Node, how: Spoil
) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await stock(store, LARGE)
        for index in (A, B):
            await spoil(node, index, how)
        assert await read_checked(store, LARGE) == LARGE
        assert copies(store) == {hash_of(LARGE): 2}
    for index in (A, B):
        assert await keeps_right_ones(node, index, LARGE)


@pytest.mark.parametrize("how", SPOILT.values(), ids=SPOILT.keys())
async def test_the_other_mirrors_digests_do_as_well(node: Node, how: Spoil) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await stock(store, LARGE)
        await spoil(node, A, how)
        node.disk(A).calls.clear()
        assert await read_checked(store, LARGE) == LARGE
        artifact_reads = [name for call, name in node.disk(A).calls if call == "pread"]
        assert not [name for name in artifact_reads if name == str(node.file(A, LARGE))]
    assert await keeps_right_ones(node, A, LARGE)


async def test_b6_digests_are_never_derived_from_a_bad_copy(node: Node) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await stock(store, LARGE)
        for index in (A, B):
            await spoil(node, index, lambda _: None)
        await node.write_file(A, str(hash_of(LARGE)), OTHER)
        assert await read_checked(store, LARGE) == LARGE
        assert copies(store) == {hash_of(LARGE): 1}
    assert await keeps_right_ones(node, B, LARGE)


async def test_b6_with_no_good_copy_and_no_digests_nothing_is_opened(node: Node) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await stock(store, LARGE)
        for index in (A, B):
            await spoil(node, index, lambda _: None)
            await node.write_file(index, str(hash_of(LARGE)), OTHER)
        with pytest.raises(NotFound) as refused:
            await store.open_artifact(hash_of(LARGE))
        assert refused.value.damaged == 2
    for index in (A, B):
        assert await kept(node, index, LARGE) is None


async def test_digests_are_of_whole_blocks_also_when_reads_come_short(node: Node) -> None:
    node.disks[node.paths[A]] = StutteringDisk()
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await stock(store, LARGE)
        for index in (A, B):
            await spoil(node, index, lambda _: None)
        assert await read_checked(store, LARGE) == LARGE
        assert copies(store) == {hash_of(LARGE): 2}
    assert await keeps_right_ones(node, A, LARGE)


async def test_a_device_that_hangs_while_digests_are_derived_says_nothing_of_the_copy(
    node: Node,
) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS, device_timeout_s=HANG_S) as store:
        await stock(store, LARGE)
        for index in (A, B):
            await spoil(node, index, lambda _: None)
        hang = node.disk(A).hang("pread", name=str(hash_of(LARGE)))
        with await store.open_artifact(hash_of(LARGE)) as opened:
            assert opened.dataset == B
        assert states(store)[A] == "suspect"
        assert copies(store) == {hash_of(LARGE): 2}
        hang.let_go()


async def test_b4_a_device_that_hangs_over_block_digests_is_waited_for_once(node: Node) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS, device_timeout_s=HANG_S) as store:
        await stock(store, LARGE)
        hang = node.disk(A).hang("pread", name=f"blocks/{hash_of(LARGE)}")
        with await store.open_artifact(hash_of(LARGE)) as opened:
            assert opened.dataset == B  # and not A, with B's digests, until its blocks hang as well
        await off_loop(hang.wait_begun)
        assert states(store)[A] == "suspect"
        assert copies(store) == {hash_of(LARGE): 2}
        hang.let_go()
    assert await keeps_right_ones(node, A, LARGE)


async def test_b4_missing_block_digests_are_not_waited_for_on_the_other_device(node: Node) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS, device_timeout_s=HANG_S) as store:
        await stock(store, LARGE)
        await spoil(node, A, lambda _: None)
        hang = node.disk(B).hang("pread", name=f"blocks/{hash_of(LARGE)}")
        assert await read_checked(store, LARGE) == LARGE  # derived from the copy that answers
        await off_loop(hang.wait_begun)
        hang.let_go()
    assert await keeps_right_ones(node, A, LARGE)


# ---- when to check


async def test_never_leaves_the_zero_copy_path_free(node: Node) -> None:
    async with node.open(verify_reads=VerifyReads.NEVER) as store:
        await stock(store, LARGE)
        with await store.open_artifact(hash_of(LARGE)) as opened:
            assert opened.read is None


@pytest.mark.parametrize(
    ("verify_reads", "checked"), [(VerifyReads.AUTO, False), (VerifyReads.ALWAYS, True)]
)
async def test_auto_trusts_a_filesystem_that_checks_its_data(
    node: Node, verify_reads: VerifyReads, checked: bool
) -> None:
    node.disks[node.paths[A]] = CheckingDisk()
    async with node.open(verify_reads=verify_reads) as store:
        await stock(store, LARGE)
        with await store.open_artifact(hash_of(LARGE)) as opened:
            assert (opened.dataset, opened.read is not None) == (A, checked)
        with await store.open_artifact(hash_of(LARGE), exclude={A}) as opened:
            assert opened.read is not None, "the other filesystem does not"


async def test_what_is_only_looked_at_is_not_read(node: Node) -> None:
    async with node.open(verify_reads=VerifyReads.ALWAYS) as store:
        await stock(store, LARGE)
        for index in (A, B):
            await spoil(node, index, lambda _: None)
            node.disk(index).calls.clear()
        with await store.open_artifact(hash_of(LARGE), to_read=False) as opened:
            assert opened.size_bytes == len(LARGE)
        assert not [call for index in (A, B) for call in node.disk(index).calls if "pread" in call]


@pytest.mark.parametrize("verify_reads", list(VerifyReads))
@pytest.mark.parametrize("size_bytes", [5, MIB, 2 * MIB])
async def test_a_short_copy_never_says_how_long_the_artifact_is(
    node: Node, verify_reads: VerifyReads, size_bytes: int
) -> None:
    async with node.open() as store:
        await stock(store, LARGE)
    await off_loop(node.file(A, LARGE).chmod, 0o644)
    await off_loop(os.truncate, node.file(A, LARGE), size_bytes)
    async with node.open(verify_reads=verify_reads) as store:
        with await store.open_artifact(hash_of(LARGE), to_read=False) as opened:
            assert (opened.dataset, opened.size_bytes) == (B, len(LARGE))
        assert copies(store) == {hash_of(LARGE): 1}
