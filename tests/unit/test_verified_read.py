"""Reads through block digests: exact wherever they begin and end, or an error."""

from __future__ import annotations

import hashlib
import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.artifact import ArtifactHash
from depot.block_digests import BlockDigests
from depot.blocks import BLOCK_SIZE_BYTES
from depot.verified_read import VerifiedRead

MIB = BLOCK_SIZE_BYTES
CONTENT = random.Random(6).randbytes(2 * MIB + 1000)


def reader() -> VerifiedRead:
    blocks = [CONTENT[start : start + MIB] for start in range(0, len(CONTENT), MIB)]
    joined = b"".join(hashlib.sha256(block).digest() for block in blocks)
    return VerifiedRead(BlockDigests(ArtifactHash.of(CONTENT), len(CONTENT), joined))


@contextmanager
def file_of(content: bytes) -> Iterator[int]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file.fileno()


def read_all(fd: int, start: int, most_bytes: int) -> bytes:
    """Read from `start` to the end, at most so many bytes at a time."""
    read, found, buffer = reader(), bytearray(), memoryview(bytearray(most_bytes))
    while count := read(fd, buffer, start + len(found)):
        found += buffer[:count]
    return bytes(found)


@given(st.integers(0, len(CONTENT)), st.integers(100_000, 2 * MIB))
def test_any_start_and_any_buffer_give_the_exact_bytes(start: int, most_bytes: int) -> None:
    with file_of(CONTENT) as fd:
        assert read_all(fd, start, most_bytes) == CONTENT[start:]


@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 7))
def test_b2_no_byte_of_a_block_leaves_when_any_bit_of_it_is_wrong(position: int, bit: int) -> None:
    harmed = bytearray(CONTENT)
    harmed[position] ^= 1 << bit
    bad = position // MIB * MIB
    with file_of(bytes(harmed)) as fd:
        for start in range(0, len(CONTENT), MIB):
            buffer = memoryview(bytearray(10))
            if start == bad:
                with pytest.raises(OSError, match=f"byte {bad} does not match"):
                    reader()(fd, buffer, start)
            else:
                assert reader()(fd, buffer, start) == 10
                assert buffer == CONTENT[start : start + 10]


def test_a_file_that_ends_early_is_an_error_and_not_an_end() -> None:
    with file_of(CONTENT[:-1]) as fd, pytest.raises(OSError, match=f"ends at byte {2 * MIB + 999}"):
        read_all(fd, 0, MIB)


def test_what_follows_the_artifact_in_a_longer_file_does_not_leave() -> None:
    with file_of(CONTENT + b"more") as fd:
        assert read_all(fd, 0, MIB) == CONTENT
        assert reader()(fd, memoryview(bytearray(9)), len(CONTENT)) == 0


def test_nothing_is_believed_from_one_read_to_the_next() -> None:
    read, buffer = reader(), memoryview(bytearray(MIB))
    with file_of(CONTENT) as fd:
        assert read(fd, buffer, 0) == MIB
        os.pwrite(fd, b"X" if CONTENT[:1] != b"X" else b"Y", 0)
        with pytest.raises(OSError, match="does not match"):
            read(fd, buffer, 0)
