"""What an ingest computes: the same hash either way, and digests that fit every block."""

from __future__ import annotations

import random

import pytest

from depot.artifact import ArtifactHash
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.stream_hash import stream_hash

MIB = BLOCK_SIZE_BYTES
CONTENT = random.Random(4).randbytes(3 * MIB + 5)
KINDS = pytest.mark.parametrize("chained", [False, True], ids=["separate", "chained"])


def blocks_of(content: bytes) -> list[memoryview]:
    return [memoryview(content)[start : start + MIB] for start in range(0, len(content), MIB)]


class Told:
    def __init__(self) -> None:
        self.digests: list[bytes] = []
        self.kinds: set[bool] = set()

    def __call__(self, digest: bytes, *, chained: bool) -> None:
        self.digests.append(digest)
        self.kinds.add(chained)


@KINDS
@pytest.mark.parametrize("size_bytes", [MIB + 1, 2 * MIB, 3 * MIB + 5])
@pytest.mark.parametrize("announced", [True, False])
def test_every_block_of_a_stream_can_be_checked_alone(
    chained: bool, size_bytes: int, announced: bool
) -> None:
    content, told = CONTENT[:size_bytes], Told()
    hashing = stream_hash(size_bytes if announced else None, told, chained=chained)
    for update in hashing.updates:
        for block in blocks_of(content):
            update(block)
    assert hashing.digest() == ArtifactHash.of(content)
    digests = hashing.block_digests(size_bytes)
    assert digests is not None
    assert digests.chained is chained
    assert told.kinds == {chained}
    assert b"".join(told.digests) == digests.digests
    for index, block in enumerate(blocks_of(content)):
        assert digests.matches(index * MIB, block)
        assert not digests.matches(index * MIB, block[:-1])


@KINDS
@pytest.mark.parametrize("announced", [True, False])
def test_an_artifact_of_one_block_has_no_block_digests(chained: bool, announced: bool) -> None:
    content = CONTENT[:MIB]
    hashing = stream_hash(MIB if announced else None, Told(), chained=chained)
    for update in hashing.updates:
        update(memoryview(content))
    assert hashing.digest() == ArtifactHash.of(content)
    assert hashing.block_digests(MIB) is None


@KINDS
def test_a_stream_that_was_not_hashed_to_its_end_has_no_block_digests(chained: bool) -> None:
    hashing = stream_hash(None, Told(), chained=chained)
    for update in hashing.updates:
        for block in blocks_of(CONTENT)[:2]:
            update(block)
    assert hashing.block_digests(len(CONTENT)) is None


def test_chained_digests_take_one_pass_and_one_thread() -> None:
    assert len(stream_hash(None, Told(), chained=True).updates) == 1
    assert len(stream_hash(None, Told(), chained=False).updates) == 2
