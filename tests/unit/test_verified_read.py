"""Reads through block digests: exact wherever they begin and end, or an error."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.verified_read import VerifiedRead, only_for
from tests.unit.test_block_digests import KINDS, digests_of

MIB = BLOCK_SIZE_BYTES
CONTENT = random.Random(6).randbytes(2 * MIB + 1000)


def reader(*, chained: bool = False) -> VerifiedRead:
    return VerifiedRead(digests_of(CONTENT, chained=chained))


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
    with (
        file_of(CONTENT[:-1]) as fd,
        pytest.raises(OSError, match=f"nothing at byte {2 * MIB + 999}"),
    ):
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


@KINDS
@given(st.data())
def test_what_is_only_for_a_part_reads_that_part_and_nothing_else(
    chained: bool, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(CONTENT) - 1))
    end = data.draw(st.integers(start + 1, len(CONTENT)))
    read = only_for(reader(chained=chained), start, end)
    assert read is not None
    buffer, found = memoryview(bytearray(MIB)), bytearray()
    with file_of(CONTENT) as fd:
        while len(found) < end - start:
            count = read(fd, buffer[: end - start - len(found)], start + len(found))
            found += buffer[:count]
        assert found == CONTENT[start:end]
        after = range(-(-end // MIB) * MIB, len(CONTENT), MIB)
        before = range(0, 0 if chained else start - start % MIB, MIB)
        for outside in (*before, *after):
            with pytest.raises(RuntimeError, match="no digest"):
                read(fd, buffer, outside)


@KINDS
def test_what_is_only_for_a_part_takes_no_other_blocks_for_it(chained: bool) -> None:
    read = only_for(reader(chained=chained), MIB, 2 * MIB)
    assert read is not None
    with file_of(CONTENT[MIB:] + CONTENT[:MIB]) as fd, pytest.raises(OSError, match="not match"):
        read(fd, memoryview(bytearray(MIB)), MIB)


def test_what_is_no_verified_read_is_as_good_for_a_part() -> None:
    assert only_for(None, 0, 1) is None
