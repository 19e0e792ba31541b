"""Block digests: what they bind, and that no altered file is believed."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.artifact import ArtifactHash
from depot.block_digests import BlockDigests, block_count, decode_digests, encode_digests
from depot.blocks import BLOCK_SIZE_BYTES
from depot.document import Unreadable

MIB = BLOCK_SIZE_BYTES
CONTENT = bytes(range(256)) * 4096 * 2 + b"the short last block"


def digests_of(content: bytes) -> BlockDigests:
    blocks = [content[start : start + MIB] for start in range(0, len(content), MIB)]
    joined = b"".join(hashlib.sha256(block).digest() for block in blocks)
    return BlockDigests(ArtifactHash.of(content), len(content), joined)


@pytest.mark.parametrize(
    ("size_bytes", "count"), [(0, 0), (1, 1), (MIB, 1), (MIB + 1, 2), (2 * MIB, 2)]
)
def test_an_artifact_has_as_many_blocks_as_its_size_takes(size_bytes: int, count: int) -> None:
    assert block_count(size_bytes) == count


def test_what_is_written_is_read_back() -> None:
    digests = digests_of(CONTENT)
    assert decode_digests(encode_digests(digests), digests.artifact, len(CONTENT)) == digests


def test_each_block_is_matched_whole_and_alone() -> None:
    digests = digests_of(CONTENT)
    for offset in (0, MIB - 1, MIB, 2 * MIB, len(CONTENT) - 1):
        start, end = digests.block_bounds(offset)
        assert start <= offset < end <= len(CONTENT)
        block = bytearray(CONTENT[start:end])
        assert digests.matches(start, memoryview(block))
        block[-1] ^= 1
        assert not digests.matches(start, memoryview(block))
        assert not digests.matches(start, memoryview(block)[:-1])


def test_a_block_is_not_taken_for_another() -> None:
    other = digests_of(b"a" * MIB + b"b" * MIB)
    assert other.matches(0, memoryview(b"a" * MIB))
    assert not other.matches(MIB, memoryview(b"a" * MIB))


@pytest.mark.parametrize("content", [b"", b"x", b"y" * MIB])
def test_the_name_of_an_artifact_of_one_block_says_its_digest(content: bytes) -> None:
    artifact = ArtifactHash.of(content)
    digests = BlockDigests.of_one_block(artifact, len(content))
    assert digests == digests_of(content)


@given(st.data())
def test_no_altered_byte_is_believed(data: st.DataObject) -> None:
    digests = digests_of(CONTENT)
    encoded = bytearray(encode_digests(digests))
    position = data.draw(st.integers(0, len(encoded) - 1))
    encoded[position] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Unreadable):
        decode_digests(bytes(encoded), digests.artifact, len(CONTENT))


@given(st.integers(0, 10_000))
def test_no_truncated_file_is_believed(length: int) -> None:
    digests = digests_of(CONTENT)
    encoded = encode_digests(digests)
    with pytest.raises(Unreadable):
        decode_digests(encoded[: length % len(encoded)], digests.artifact, len(CONTENT))


def test_the_digests_of_another_artifact_or_size_are_not_believed() -> None:
    digests = digests_of(CONTENT)
    encoded = encode_digests(digests)
    for artifact, size_bytes in (
        (ArtifactHash.of(b"another"), len(CONTENT)),
        (digests.artifact, len(CONTENT) - 1),
    ):
        with pytest.raises(Unreadable, match="not those of"):
            decode_digests(encoded, artifact, size_bytes)


def test_a_wrong_number_of_digests_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 96 bytes"):
        BlockDigests(ArtifactHash.of(CONTENT), len(CONTENT), b"\0" * 32)
