"""The hash whose state can be taken: the same as Python's, in whatever pieces it comes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.streams.resumable_sha256 import CHUNK_BYTES, ResumableSha256, available


def test_it_is_available_where_the_tests_run() -> None:
    # Or every test of what is built on it would pass without it.
    assert available()


@given(st.lists(st.binary(max_size=200), max_size=12))
def test_it_is_sha256_however_the_bytes_are_cut(parts: list[bytes]) -> None:
    running, whole = ResumableSha256(), hashlib.sha256()
    for part in parts:
        running.update(memoryview(part))
        whole.update(part)
        assert running.digest() == whole.digest()


@given(st.binary(max_size=1000), st.data())
def test_it_goes_on_from_any_state_that_was_taken(content: bytes, data: st.DataObject) -> None:
    chunks = data.draw(st.integers(0, len(content) // CHUNK_BYTES))
    split = chunks * CHUNK_BYTES
    first = ResumableSha256()
    first.update(memoryview(content)[:split])
    second = ResumableSha256(first.state(), split)
    second.update(memoryview(bytearray(content))[split:])
    assert second.digest() == hashlib.sha256(content).digest()


@pytest.mark.parametrize("exponent", [29, 32, 40])
def test_lengths_of_more_than_half_a_gibibyte_are_counted_in_both_words(exponent: int) -> None:
    # 2^29 bytes are 2^32 bits: what is hashed depends on the length too, and only on it.
    state = ResumableSha256().state()
    here, there = (ResumableSha256(state, (1 << exponent) + extra) for extra in (0, CHUNK_BYTES))
    assert here.digest() != there.digest()
    assert here.digest() != ResumableSha256(state, 0).digest()


def test_a_state_in_the_middle_of_a_chunk_is_a_mistake() -> None:
    running = ResumableSha256()
    running.update(memoryview(b"x"))
    with pytest.raises(AssertionError, match="middle of a chunk"):
        running.state()
