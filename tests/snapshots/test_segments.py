"""A snapshot hashed in segments: its SHA-256, or nothing; whatever its publisher said of it."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.snapshots import segments
from agent.snapshots.course import Result
from agent.snapshots.download import Download, Telling
from agent.snapshots.files import FileArchive
from agent.snapshots.hashing import let_be
from agent.snapshots.landing import Landing
from agent.snapshots.parts import PART_BYTES
from agent.snapshots.publish import Publication, publish
from agent.snapshots.segments import MOST_SEGMENTS, InSegments, hash_of, sums_of
from agent.snapshots.values import Checksum, Head, Metadata, Midstates, Version
from depot.streams.resumable_sha256 import ResumableSha256
from tests.snapshots import making
from tests.snapshots.faulty import Faulty, MemoryArchive
from tests.snapshots.making import checksum_of, metadata_of

CONTENT: Final = os.urandom(PART_BYTES) * 3 + b"the end"
STATES: Final = making.midstates_of(CONTENT)
OTHERS: Final = making.midstates_of(bytes(len(CONTENT)))
FIRST_WRONG: Final = Midstates(PART_BYTES, (OTHERS.states[0], *STATES.states[1:]))
LAST_WRONG: Final = Midstates(PART_BYTES, (*STATES.states[:-1], OTHERS.states[-1]))
# What says nothing of these bytes, so that they are hashed in one go.
USELESS: Final = {
    "too few": Midstates(PART_BYTES, STATES.states[:-1]),
    "too many": Midstates(PART_BYTES, STATES.states * 2),
    "none": Midstates(PART_BYTES * 4, ()),
    "in the middle of a part": Midstates(PART_BYTES - 64, STATES.states),
}


ONE: Final = "A" * 43 + "="


def saying(midstates: Midstates | None) -> Metadata:
    return replace(metadata_of(CONTENT), midstates=midstates)


def head(midstates: Midstates | None, compression: str | None = None) -> Head:
    said = replace(saying(midstates), compression=compression)
    return Head(Version("name", "v1", "v1"), len(CONTENT), said)


def hashed(content: bytes, midstates: Midstates) -> Checksum | None:
    with InSegments(midstates, len(content)) as running:
        for start, stop in running.parts():
            # Of the machine's own memory, as parts are.
            running.update(start, memoryview(bytearray(content[start:stop])), let_be)
        return running.finish()


def in_segments(head: Head) -> bool:
    return isinstance(hash_of(head), InSegments)


@given(
    size_bytes=st.integers(1, 40 * PART_BYTES),
    stride_bytes=st.integers(1, 5).map(lambda parts: parts * PART_BYTES),
)
def test_every_byte_is_in_one_part_and_no_segment_goes_backwards(
    size_bytes: int, stride_bytes: int
) -> None:
    parts = list(InSegments(Midstates(stride_bytes, ()), size_bytes).parts())

    at = 0
    for start, stop in sorted(parts):
        assert start == at
        assert 0 < stop - start <= PART_BYTES
        at = stop
    assert at == size_bytes
    for segment in range(0, size_bytes, stride_bytes):
        starts = [start for start, _ in parts if segment <= start < segment + stride_bytes]
        assert starts == sorted(starts)


def test_two_segments_grow_side_by_side() -> None:
    parts = InSegments(Midstates(3 * PART_BYTES, ()), 12 * PART_BYTES).parts()

    assert [start // PART_BYTES for start, _ in parts] == [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]


@pytest.mark.parametrize(
    "size_bytes",
    [
        *(PART_BYTES + 1, 2 * PART_BYTES, 2 * PART_BYTES + 5),
        *(MOST_SEGMENTS * PART_BYTES, MOST_SEGMENTS * PART_BYTES + 1),
    ],
)
def test_what_a_publisher_notes_is_of_use_to_a_download(tmp_path: Path, size_bytes: int) -> None:
    content = (CONTENT * (size_bytes // len(CONTENT) + 1))[:size_bytes]
    (tmp_path / "file").write_bytes(content)

    sums = sums_of(tmp_path / "file")

    assert sums is not None
    checksum, midstates = sums
    assert midstates is not None
    assert midstates == making.midstates_of(content, midstates.stride_bytes)
    said = Metadata(checksum=checksum, size_bytes=size_bytes, midstates=midstates)
    assert len(str(said.items())) < 1_500  # a bucket keeps 2 KB
    assert Metadata.parse(said.items()).midstates == midstates
    assert in_segments(Head(Version("name", None, "tag"), size_bytes, said))
    assert hashed(content, midstates) == checksum == checksum_of(content)


@pytest.mark.parametrize("size_bytes", [len(CONTENT) * 9, PART_BYTES - 1], ids=["grows", "shrinks"])
def test_what_changes_while_it_is_hashed_has_no_midstates(
    size_bytes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_bytes(CONTENT)

    class Changing(ResumableSha256):
        def update(self, content: memoryview) -> None:
            os.truncate(file, size_bytes)
            super().update(content)

    monkeypatch.setattr(segments, "ResumableSha256", Changing)
    sums = sums_of(file)

    assert sums == (checksum_of(file.read_bytes()), None)


def test_what_is_one_part_needs_no_midstates(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT[:PART_BYTES])

    assert sums_of(tmp_path / "file") == (checksum_of(CONTENT[:PART_BYTES]), None)
    assert sums_of(tmp_path) is None


def test_midstates_that_are_not_of_these_bytes_find_nothing() -> None:
    assert hashed(CONTENT, STATES) == checksum_of(CONTENT)
    for wrong in (OTHERS, FIRST_WRONG, LAST_WRONG):
        assert hashed(CONTENT, wrong) is None


@given(data=st.data())
def test_no_bit_that_flipped_joins(data: st.DataObject) -> None:
    stride_bytes, right = 1 << 10, CONTENT[:4000]
    midstates = making.midstates_of(right, stride_bytes)
    content = bytearray(right)
    bit = data.draw(st.integers(0, len(content) * 8 - 1))
    content[bit // 8] ^= 1 << bit % 8

    with InSegments(midstates, len(content)) as running:
        for start in range(0, len(content), stride_bytes):
            running.update(start, memoryview(content)[start : start + stride_bytes], let_be)
        found = running.finish()

    # What is hashed last joins nothing, and has the SHA-256 that these bytes really have.
    assert found in (None, Checksum(hashlib.sha256(content).digest()))
    assert found != checksum_of(right)


@pytest.mark.parametrize("midstates", USELESS.values(), ids=USELESS)
def test_midstates_that_do_not_fit_are_let_be(midstates: Midstates) -> None:
    assert in_segments(head(STATES))
    assert not in_segments(head(midstates))


def test_so_many_midstates_are_let_be_that_nobody_publishes() -> None:
    def version(segments: int) -> Head:
        said = Metadata(midstates=Midstates(PART_BYTES, (bytes(32),) * (segments - 1)))
        return Head(Version("name", None, "tag"), segments * PART_BYTES, said)

    assert in_segments(version(MOST_SEGMENTS))
    assert not in_segments(version(MOST_SEGMENTS + 1))


def test_midstates_are_not_used_for_what_is_stored_otherwise_or_where_they_cannot_be(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert not in_segments(head(STATES, "zstd"))
    monkeypatch.setattr(segments, "available", lambda: False)
    assert not in_segments(head(STATES))
    (tmp_path / "file").write_bytes(CONTENT)
    assert sums_of(tmp_path / "file") == (checksum_of(CONTENT), None)


def test_midstates_are_read_as_they_are_said() -> None:
    assert Midstates.parse(f"8:{ONE}") == Midstates(8, (bytes(32),))
    assert Midstates.parse(str(STATES)) == STATES


@pytest.mark.parametrize(
    "text", ["", ":", f"8:{ONE[:-4]}", "8:!", f"0:{ONE}", f"-1:{ONE}", f"{10**18}:{ONE}"]
)
def test_midstates_that_cannot_be_read_are_none(text: str) -> None:
    assert Midstates.parse(text) is None
    assert Metadata.parse({"checksum-midstates": text}).midstates is None


class Downloaded:
    """What came of a download of `content`, for which an archive says `said`."""

    def __init__(
        self,
        directory: Path,
        said: Metadata,
        content: bytes = CONTENT,
        mangle: Callable[[int, bytes], bytes] = lambda _, block: block,
    ) -> None:
        self.lines: list[str] = []
        self.hashing = 0
        memory = MemoryArchive()
        memory.put("name", [content], said)
        archive = Faulty(memory)  # type: ignore[arg-type]
        archive.mangle, archive.on_read = mangle, self._look
        self.target = directory / "target"
        telling = Telling(
            line=self.lines.append, warning=_nothing, failure=_nothing, progress=_nothing
        )
        self.result = Download(archive, "name", self.target, telling).run().result  # type: ignore[arg-type]
        self.reads = [start // PART_BYTES for start, _ in memory.reads]
        assert hash_threads() == 0

    def _look(self) -> None:
        self.hashing = max(self.hashing, hash_threads())


def hash_threads() -> int:
    return sum(thread.name.startswith("snapshot-hash") for thread in threading.enumerate())


def test_a_download_is_hashed_by_two_threads_as_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = CONTENT * 3
    said = replace(metadata_of(content), midstates=making.midstates_of(content, 3 * PART_BYTES))
    monkeypatch.delattr(Landing, "checksum")  # it is not read again

    done = Downloaded(tmp_path, said, content)

    assert done.result is Result.DOWNLOADED
    assert done.target.read_bytes() == content
    assert done.hashing == 2
    # Those of four threads, which do not always come in the order in which they were begun.
    assert set(done.reads[:4]) & {3, 4}
    assert done.reads != sorted(done.reads)


def test_a_download_without_midstates_is_hashed_by_one_thread(tmp_path: Path) -> None:
    content = CONTENT * 3

    done = Downloaded(tmp_path, replace(metadata_of(content), midstates=None), content)

    assert done.result is Result.DOWNLOADED
    assert done.hashing == 1


def test_what_was_damaged_on_its_way_is_right_the_second_time_with_wrong_midstates(
    tmp_path: Path,
) -> None:
    damaged: list[int] = []

    def mangle(at: int, block: bytes) -> bytes:
        if at != PART_BYTES or damaged:
            return block
        damaged.append(at)
        return bytes([block[0] ^ 1]) + block[1:]

    done = Downloaded(tmp_path, saying(FIRST_WRONG), mangle=mangle)

    assert damaged
    assert "Downloading it once more" in done.lines
    assert done.result is Result.DOWNLOADED
    assert done.target.read_bytes() == CONTENT


@pytest.mark.parametrize("midstates", [STATES, OTHERS, None])
def test_how_long_the_check_took_includes_what_came_after_the_transfer(
    midstates: Midstates | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_back = Landing.checksum

    def slowly(landing: Landing) -> Checksum:
        time.sleep(0.2)
        return read_back(landing)

    monkeypatch.setattr(Landing, "checksum", slowly)
    done = Downloaded(tmp_path, saying(midstates))

    (line,) = (line for line in done.lines if line.startswith("The check took"))
    check_s, after_s = map(float, re.findall(r"[0-9.]+(?= s)", line))
    assert check_s > 0
    assert (after_s >= 0.2) == (midstates is OTHERS)
    if midstates is OTHERS:
        assert check_s >= 0.2


@pytest.mark.parametrize(
    "midstates", [STATES, None, OTHERS, FIRST_WRONG, LAST_WRONG, *USELESS.values()]
)
def test_a_download_finds_the_right_bytes_right_whatever_the_midstates_are(
    midstates: Midstates | None, tmp_path: Path
) -> None:
    done = Downloaded(tmp_path, saying(midstates))

    assert done.result is Result.DOWNLOADED
    assert done.target.read_bytes() == CONTENT
    assert f"Local checksum: {checksum_of(CONTENT)}" in done.lines


@pytest.mark.parametrize("midstates", [STATES, None, OTHERS, LAST_WRONG])
@pytest.mark.parametrize(
    "at", [0, PART_BYTES - 1, PART_BYTES, 2 * PART_BYTES + 9, len(CONTENT) - 1]
)
def test_a_download_finds_one_wrong_byte_whatever_the_midstates_are(
    midstates: Midstates | None, at: int, tmp_path: Path
) -> None:
    wrong = bytearray(CONTENT)
    wrong[at] ^= 1

    done = Downloaded(tmp_path, saying(midstates), bytes(wrong))

    assert done.result is Result.NOT_INTACT
    assert os.listdir(tmp_path) == []
    assert f"Local checksum: {checksum_of(bytes(wrong))}" in done.lines


def test_wrong_bytes_with_midstates_of_their_own_are_not_what_was_published(
    tmp_path: Path,
) -> None:
    other = CONTENT[::-1]

    done = Downloaded(tmp_path, saying(making.midstates_of(other)), other)

    assert done.result is Result.NOT_INTACT


def test_what_is_published_is_downloaded_in_segments(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    archive = FileArchive(tmp_path / "archive")
    published = Publication(path=tmp_path / "file", name="name")
    publish(archive, published, line=_nothing, progress=_nothing)

    assert archive.head("name").metadata.midstates == STATES
    assert in_segments(archive.head("name"))


def test_an_archive_need_not_keep_midstates(tmp_path: Path) -> None:
    class Forgetful(FileArchive):
        def put(self, name: str, blocks: Iterable[bytes], metadata: Metadata) -> Version:
            return super().put(name, blocks, replace(metadata, midstates=None))

    (tmp_path / "file").write_bytes(CONTENT)
    archive = Forgetful(tmp_path / "archive")
    published = Publication(path=tmp_path / "file", name="name")
    publish(archive, published, line=_nothing, progress=_nothing)

    assert not in_segments(archive.head("name"))


def test_what_is_published_compressed_has_no_midstates(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(CONTENT)
    archive = FileArchive(tmp_path / "archive")
    published = Publication(path=tmp_path / "file", name="name", compressed=True)
    publish(archive, published, line=_nothing, progress=_nothing)

    assert archive.head("name").metadata.midstates is None


def _nothing(*_: object) -> None:
    """Nobody is told."""
