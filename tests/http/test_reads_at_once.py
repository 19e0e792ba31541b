"""What one turn of the event loop reads out of the kernel's memory, and what it does not."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from depot.http.compressing import Compressor
from depot.http.depot_api import depot_app
from depot.http.fast_path import FAST_PATH
from depot.http.hot_artifacts import HotArtifact, HotArtifacts
from depot.http.small_artifacts import TURN_S, ReadsAtOnce, SmallArtifact
from depot.streams.budget import Budget
from tests.fakes import FakeCachedFile, FakeStore
from tests.http.test_fast_path import SMALL, request
from tests.store.builders import hash_of


class Turns:
    """Reads of many files, each of which takes so long by a clock of the test's own."""

    def __init__(self, *, read_s: float) -> None:
        self.now_s = 0.0
        self._read_s = read_s
        self._reads = ReadsAtOnce(HotArtifacts(0), lambda: self.now_s)

    def file(self, content: bytes | None) -> FakeCachedFile:
        return FakeCachedFile(content, self._pass)

    def ask(self, content: bytes, file: FakeCachedFile | None) -> bytes | None:
        """As the fast path does: what is asked for is `content`."""
        name = str(hash_of(content)).encode()
        small = SmallArtifact(hash_of(content), len(content), b"", file)
        found: HotArtifact | None = self._reads.find(name) or self._reads.read(name, small)
        return None if found is None else found.content

    def _pass(self) -> None:
        self.now_s += self._read_s


CONTENTS = [bytes([number]) * 100 for number in range(20)]


async def test_each_is_read_once_for_all_who_ask_in_one_turn() -> None:
    turns = Turns(read_s=TURN_S / 100)
    files = [turns.file(content) for content in CONTENTS]
    for turn in (1, 2):
        for content, file in list(zip(CONTENTS, files, strict=True)) * 3:
            assert turns.ask(content, file) == content
        assert [file.reads for file in files] == [turn] * 20
        await asyncio.sleep(0)  # nothing is kept for the next turn


async def test_b4_no_read_begins_once_a_turn_has_had_its_time() -> None:
    turns = Turns(read_s=TURN_S / 3.5)
    files = [turns.file(content) for content in CONTENTS]
    for turn in (1, 2):
        found = [turns.ask(content, file) for content, file in zip(CONTENTS, files, strict=True)]
        assert found == [*CONTENTS[:4], *[None] * 16], "the rest is for the worker"
        assert [file.reads for file in files] == [turn] * 4 + [0] * 16
        assert turns.ask(CONTENTS[0], files[0]) == CONTENTS[0], "it has been read"
        await asyncio.sleep(0)


@pytest.mark.parametrize("found", [None, b"another"])
async def test_what_cannot_be_had_is_looked_for_once_in_a_turn(found: bytes | None) -> None:
    turns = Turns(read_s=0)
    file = turns.file(found)
    assert [turns.ask(SMALL, file) for _ in range(3)] == [None] * 3
    assert file.reads == 1
    await asyncio.sleep(0)
    assert turns.ask(SMALL, file) is None
    assert file.reads == 2


async def test_where_nobody_can_tell_nothing_is_read() -> None:
    assert Turns(read_s=0).ask(SMALL, None) is None


@pytest.fixture
def empty(tmp_path: Path) -> FakeStore:
    return FakeStore(tmp_path)


@pytest.fixture
async def store(empty: FakeStore) -> FakeStore:
    empty.cached[await empty.add(SMALL)] = FakeCachedFile(SMALL)
    return empty


async def test_what_is_not_to_be_answered_at_once_is_not_read(store: FakeStore) -> None:
    plain = request(SMALL)
    encoded = plain[:-2] + b"Accept-Encoding: zstd\r\n\r\n"
    part = plain[:-2] + b"Range: bytes=0-1\r\n\r\n"
    limited = depot_app(store, hot=HotArtifacts(0), budget=Budget(1 << 20))[FAST_PATH]
    compresses = Compressor(min_size_bytes=1)
    compressing = depot_app(store, hot=HotArtifacts(0), compressor=compresses)[FAST_PATH]
    assert limited.answer(plain) is None
    assert compressing.answer(encoded) is None
    assert compressing.answer(part) is None
    assert store.cached[hash_of(SMALL)].reads == 0
    assert compressing.answer(plain) is not None
    assert store.cached[hash_of(SMALL)].reads == 1


async def test_what_this_turn_has_read_is_given_to_nobody_once_it_is_gone(store: FakeStore) -> None:
    fast = depot_app(store, hot=HotArtifacts(0))[FAST_PATH]
    assert fast.answer(request(SMALL)) is not None
    store.gone = True
    assert fast.answer(request(SMALL)) is None
