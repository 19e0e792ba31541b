"""Block digests: what they bind, and that no altered file is believed."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.artifact import ArtifactHash
from depot.document import Unreadable
from depot.streams.block_digests import BlockDigests, block_count, decode_digests, encode_digests
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.resumable_sha256 import ResumableSha256

MIB = BLOCK_SIZE_BYTES
CONTENT = bytes(range(256)) * 4096 * 2 + b"the short last block"


KINDS = pytest.mark.parametrize("chained", [False, True], ids=["separate", "chained"])


def digests_of(content: bytes, *, chained: bool = False) -> BlockDigests:
    blocks = [content[start : start + MIB] for start in range(0, len(content), MIB)]
    entries = [hashlib.sha256(block).digest() for block in blocks]
    if chained:
        running, entries = ResumableSha256(), []
        for block in blocks:
            running.update(memoryview(block))
            entries.append(running.state() if len(block) == MIB else running.digest())
    return BlockDigests(ArtifactHash.of(content), len(content), b"".join(entries), chained)


@pytest.mark.parametrize(
    ("size_bytes", "count"), [(0, 0), (1, 1), (MIB, 1), (MIB + 1, 2), (2 * MIB, 2)]
)
def test_an_artifact_has_as_many_blocks_as_its_size_takes(size_bytes: int, count: int) -> None:
    assert block_count(size_bytes) == count


@KINDS
def test_what_is_written_is_read_back(chained: bool) -> None:
    digests = digests_of(CONTENT, chained=chained)
    assert decode_digests(encode_digests(digests), digests.artifact, len(CONTENT)) == digests


@KINDS
@pytest.mark.parametrize("content", [CONTENT, CONTENT[: 2 * MIB]], ids=["short end", "full end"])
def test_each_block_is_matched_whole_and_alone(chained: bool, content: bytes) -> None:
    digests = digests_of(content, chained=chained)
    for offset in (0, MIB - 1, MIB, 2 * MIB - 1, len(content) - 1):
        start, end = digests.block_bounds(offset)
        assert start <= offset < end <= len(content)
        block = bytearray(content[start:end])
        assert digests.matches(start, memoryview(block))
        block[-1] ^= 1
        assert not digests.matches(start, memoryview(block))
        assert not digests.matches(start, memoryview(block)[:-1])


@KINDS
def test_a_block_is_not_taken_for_another(chained: bool) -> None:
    other = digests_of(b"a" * MIB + b"b" * MIB, chained=chained)
    assert other.matches(0, memoryview(b"a" * MIB))
    assert not other.matches(MIB, memoryview(b"a" * MIB))
    assert other.matches(MIB, memoryview(b"b" * MIB))
    assert not other.matches(0, memoryview(b"b" * MIB))


@KINDS
def test_what_one_block_is_compared_with_crosses_to_a_worker_process(chained: bool) -> None:
    for start, end in ((0, MIB), (MIB, 2 * MIB), (2 * MIB, len(CONTENT))):
        digest = pickle.loads(pickle.dumps(digests_of(CONTENT, chained=chained).of_block(start)))
        assert digest.matches(memoryview(CONTENT)[start:end])
        assert not digest.matches(memoryview(CONTENT)[start + 1 : end])


def test_chained_digests_end_in_the_name_of_the_artifact() -> None:
    assert digests_of(CONTENT, chained=True).digests[-32:] == ArtifactHash.of(CONTENT).digest


def test_one_kind_is_not_taken_for_the_other() -> None:
    separate, chained = digests_of(CONTENT), digests_of(CONTENT, chained=True)
    for made, other in ((separate, chained), (chained, separate)):
        forged = replace(made, digests=other.digests)
        assert not forged.matches(MIB, memoryview(CONTENT)[MIB : 2 * MIB])


@pytest.mark.parametrize("content", [b"", b"x", b"y" * MIB])
def test_the_name_of_an_artifact_of_one_block_says_its_digest(content: bytes) -> None:
    artifact = ArtifactHash.of(content)
    digests = BlockDigests.of_one_block(artifact, len(content))
    assert digests == digests_of(content)


@given(st.data(), st.booleans())
def test_no_altered_byte_is_believed(data: st.DataObject, chained: bool) -> None:
    digests = digests_of(CONTENT, chained=chained)
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
