"""Reads for many at the same time: each thing once, several in a call, and everybody is told."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping, Sequence
from typing import Any

import pytest

from depot.http.activity import Activity
from depot.http.shared_reads import (
    BATCH_BYTES,
    BATCH_NAMES,
    MOST_READS,
    MOST_WAITING,
    SharedReads,
)


class Reader:
    """Reads once it is let.

    Attributes:
        calls: what it was asked to read, call by call.
        told: what those who asked were told.
    """

    def __init__(self, error: Exception | None = None) -> None:
        self.calls = asyncio.Queue[list[str]]()
        self.told = asyncio.Queue[str | None]()
        self.may_read = asyncio.Event()
        self.activity = Activity()
        self.reads = SharedReads(self.read, self.activity)
        self._error = error

    async def read(self, keys: Sequence[str]) -> Sequence[str | None]:
        self.calls.put_nowait(list(keys))
        await self.may_read.wait()
        if self._error:
            raise self._error
        return [key.upper() if key != "none" else None for key in keys]

    def ask(self, *keys: str, size_bytes: int = 1) -> None:
        for key in keys:
            assert self.reads.ask(key, size_bytes, self.told.put_nowait)

    async def answers(self, count: int) -> list[str | None]:
        self.may_read.set()
        told = [await self.told.get() for _ in range(count)]
        assert self.told.empty()
        return told


@pytest.fixture
async def reader() -> Reader:
    return Reader()


async def test_what_is_asked_for_in_one_turn_is_read_in_one_call_and_once(reader: Reader) -> None:
    reader.ask("a", "b", "a", "none")
    assert await reader.answers(4) == ["A", "A", "B", None]
    assert await reader.calls.get() == ["a", "b", "none"]
    assert reader.calls.empty()


async def test_what_is_asked_for_while_it_is_read_is_read_again(reader: Reader) -> None:
    reader.ask("a")
    assert await reader.calls.get() == ["a"]
    reader.ask("a")
    assert await reader.answers(2) == ["A", "A"]
    assert await reader.calls.get() == ["a"]


async def test_s1_a_call_has_so_many_bytes_and_there_are_so_many_calls(reader: Reader) -> None:
    keys = [f"key-{number:02}" for number in range(4 * MOST_READS)]
    reader.ask(*keys, size_bytes=BATCH_BYTES // 2)
    for number in range(MOST_READS):
        assert await reader.calls.get() == keys[2 * number : 2 * number + 2]
    assert reader.activity.running == MOST_READS
    assert reader.calls.empty()
    assert sorted(map(str, await reader.answers(len(keys)))) == [key.upper() for key in keys]


async def test_s1_a_call_has_so_many_names_however_short_what_they_name_is(reader: Reader) -> None:
    keys = [f"key-{number:04}" for number in range(BATCH_NAMES + 1)]
    reader.ask(*keys, size_bytes=0)
    assert await reader.calls.get() == keys[:-1]
    assert await reader.calls.get() == keys[-1:]
    assert len(await reader.answers(len(keys))) == len(keys)


async def test_s5_one_who_cannot_be_told_keeps_nobody_else_from_being(
    reader: Reader, logged: list[MutableMapping[str, Any]]
) -> None:
    def cannot_be_told(_value: str | None) -> None:
        raise ConnectionResetError("injected")

    assert reader.reads.ask("a", 1, cannot_be_told)
    reader.ask("a", "b")
    # And so much that it waits for another call.
    reader.ask(*map(str, range(4 * MOST_READS)), size_bytes=BATCH_BYTES)
    assert len(await reader.answers(2 + 4 * MOST_READS)) == 2 + 4 * MOST_READS
    assert [entry["log_level"] for entry in logged] == ["error"]
    # Nobody who was told has a place any more.
    reader.ask(*["a"] * MOST_WAITING)
    await reader.answers(MOST_WAITING)


async def test_s1_who_finds_no_place_is_told_so(reader: Reader) -> None:
    reader.ask(*["a"] * MOST_WAITING)
    assert not reader.reads.ask("a", 1, reader.told.put_nowait)
    assert await reader.answers(MOST_WAITING) == ["A"] * MOST_WAITING
    reader.ask("a")
    assert await reader.answers(1) == ["A"]


@pytest.mark.parametrize("turns", range(4))
async def test_after_the_end_everybody_was_told_that_there_is_nothing(
    reader: Reader, turns: int
) -> None:
    reader.ask(*map(str, range(3 * MOST_READS)), size_bytes=BATCH_BYTES)
    for _ in range(turns):
        await asyncio.sleep(0)
    await reader.reads.close()
    assert await reader.answers(3 * MOST_READS) == [None] * 3 * MOST_READS
    assert not reader.reads.ask("a", 1, reader.told.put_nowait)
    assert not reader.activity.running


async def test_b4_after_a_read_that_took_too_long_none_is_begun_for_a_while() -> None:
    reader = Reader(TimeoutError())
    reader.ask("a", "b")
    assert await reader.answers(2) == [None, None]
    assert not reader.reads.ask("a", 1, reader.told.put_nowait)


async def test_b4_after_a_read_that_took_too_long_nobody_waits_for_another() -> None:
    reader = Reader(TimeoutError())
    count = 8 * MOST_READS
    reader.ask(*map(str, range(count)), size_bytes=BATCH_BYTES)
    assert await reader.answers(count) == [None] * count
    assert reader.calls.qsize() == MOST_READS


async def test_s5_a_read_that_breaks_is_logged_and_leaves_nobody_waiting(
    logged: list[MutableMapping[str, Any]],
) -> None:
    reader = Reader(KeyError("a"))
    reader.ask("a", "b")
    assert await reader.answers(2) == [None, None]
    assert [entry["log_level"] for entry in logged] == ["error"]
