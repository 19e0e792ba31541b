"""A download into a file: what is there when it ends, and what never is."""

from __future__ import annotations

import gc
import mmap
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from agent.snapshots.archive import Archive
from agent.snapshots.course import NO_CHECKSUM, End, Result
from agent.snapshots.download import Download, Telling
from agent.snapshots.errors import Truncated
from agent.snapshots.fetching import BUFFERS
from agent.snapshots.parts import PART_BYTES
from agent.snapshots.patience import Patience
from agent.snapshots.values import Metadata
from tests.snapshots.faulty import Faulty, MemoryArchive
from tests.snapshots.making import metadata_of, put

# More parts than are fetched at once, the last one short.
CONTENT = os.urandom(1 << 20) * 8 * 7 + b"the end"
# For servers that are slow.
SOME = CONTENT[: PART_BYTES * 2 + 5]
SHORT = os.urandom(100_000)
SOON = Patience(attempts=3, first_s=0.001, longest_s=0.002)


class Heard:
    """What a download told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.warnings: list[str] = []
        self.failures: list[str] = []
        self.progress: list[int] = []

    @property
    def telling(self) -> Telling:
        return Telling(
            line=self.lines.append,
            warning=self.warnings.append,
            failure=lambda error, _: self.failures.append(str(error)),
            progress=self.progress.append,
        )


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def memory() -> MemoryArchive:
    return MemoryArchive()


@pytest.fixture
def faulty(memory: MemoryArchive) -> Faulty:
    return Faulty(memory)  # type: ignore[arg-type]


Run = Callable[..., End]


@pytest.fixture
def run(heard: Heard, faulty: Faulty, tmp_path: Path) -> Run:
    def download(archive: Archive | None = None, *, require_checksum: bool = False) -> End:
        return Download(
            archive or faulty,  # type: ignore[arg-type]
            "name",
            tmp_path / "target",
            heard.telling,
            require_checksum=require_checksum,
            patience=SOON,
        ).run()

    return download


def left(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir() if path.name != "archive")


def test_a_snapshot_of_many_parts_arrives(archive: Archive, run: Run, tmp_path: Path) -> None:
    put(archive, "name", SOME)

    end = run(archive)

    assert end.result is Result.DOWNLOADED
    assert (tmp_path / "target").read_bytes() == SOME
    assert left(tmp_path) == ["target"]


def test_a_compressed_snapshot_arrives_as_it_was(
    archive: Archive, run: Run, tmp_path: Path
) -> None:
    packed = zstandard.compress(SOME)
    archive.put("name", [packed], metadata_of(SOME, compression="zstd"))

    assert run(archive).result is Result.DOWNLOADED
    assert (tmp_path / "target").read_bytes() == SOME


def test_a_second_download_fetches_nothing(
    run: Run, memory: MemoryArchive, heard: Heard, tmp_path: Path
) -> None:
    put(memory, "name", SHORT)  # type: ignore[arg-type]
    run()
    before = (tmp_path / "target").stat()
    memory.reads.clear()

    assert run().result is Result.THERE_ALREADY
    assert memory.reads == []
    assert (tmp_path / "target").stat().st_mtime_ns == before.st_mtime_ns


def test_what_is_published_meanwhile_is_not_what_is_downloaded(
    archive: Archive, keeps_versions: bool, run: Run, tmp_path: Path
) -> None:
    put(archive, "name", SOME)
    faulty = Faulty(archive)
    newer = SOME[::-1]

    def publish() -> None:
        faulty.on_read = lambda: None
        put(archive, "name", newer)

    faulty.on_read = publish
    end = run(faulty)

    if keeps_versions:
        assert end.result is Result.DOWNLOADED
        assert (tmp_path / "target").read_bytes() == SOME
    else:
        assert end.result is Result.NOT_INTACT
        assert left(tmp_path) == []


def test_a_cut_connection_is_gone_on_with_where_it_was(
    run: Run, faulty: Faulty, memory: MemoryArchive, heard: Heard, tmp_path: Path
) -> None:
    put(memory, "name", CONTENT)  # type: ignore[arg-type]
    faulty.head_fails, faulty.read_fails = 2, 12

    assert run().result is Result.DOWNLOADED
    assert (tmp_path / "target").read_bytes() == CONTENT
    assert len(heard.failures) == 14
    # Every byte is asked for once but for what a cut answer still had: 12 resumed, none anew.
    assert len(memory.reads) == 8 + 12
    assert sum(start % PART_BYTES != 0 for start, _ in memory.reads) == 12


def test_an_archive_that_gives_more_than_it_was_asked_for_is_not_believed(
    run: Run, faulty: Faulty, memory: MemoryArchive, tmp_path: Path
) -> None:
    put(memory, "name", CONTENT)  # type: ignore[arg-type]
    faulty.mangle = lambda _, block: block + block

    assert run().result is Result.NOT_INTACT
    assert left(tmp_path) == []


def test_an_archive_that_never_answers_is_given_up(
    run: Run, faulty: Faulty, memory: MemoryArchive, heard: Heard, tmp_path: Path
) -> None:
    put(memory, "name", SHORT)  # type: ignore[arg-type]
    faulty.head_fails = 3

    assert run().result is Result.UNREACHABLE
    assert len(heard.failures) == 2
    assert left(tmp_path) == []


@pytest.mark.parametrize(
    "damage",
    [lambda block: bytes([block[0] ^ 1]) + block[1:], lambda block: block + block],
    ids=["other bytes", "more bytes"],
)
def test_bytes_that_are_damaged_once_are_fetched_again(
    run: Run,
    faulty: Faulty,
    memory: MemoryArchive,
    heard: Heard,
    damage: Callable[[bytes], bytes],
    tmp_path: Path,
) -> None:
    put(memory, "name", SHORT)  # type: ignore[arg-type]

    def once(_: int, block: bytes) -> bytes:
        faulty.mangle = lambda _, block: block
        return damage(block)

    faulty.mangle = once

    assert run().result is Result.DOWNLOADED
    assert (tmp_path / "target").read_bytes() == SHORT
    assert "Downloading it once more" in heard.lines


@pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").is_dir(), reason="no huge pages to tell them by"
)
def test_a_second_attempt_takes_no_more_memory_than_one(
    run: Run, faulty: Faulty, memory: MemoryArchive
) -> None:
    put(memory, "name", CONTENT)  # type: ignore[arg-type]
    before_bytes, most_bytes = buffers_bytes(), 0

    def look(_: int, block: bytes) -> bytes:
        nonlocal most_bytes
        most_bytes = max(most_bytes, buffers_bytes())
        return block

    def cut_at_the_end(at: int, block: bytes) -> bytes:
        if at + len(block) == len(CONTENT):
            faulty.mangle = look
            raise Truncated("too short")
        return block

    faulty.mangle = cut_at_the_end
    gc.disable()
    try:
        assert run().result is Result.DOWNLOADED
    finally:
        gc.enable()
    assert 4 * PART_BYTES <= most_bytes - before_bytes <= BUFFERS * PART_BYTES


def buffers_bytes() -> int:
    """What the buffers take: they alone are mapped as what may be huge pages."""
    mappings = re.split(
        r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.M
    )
    huge = [each for each in mappings if re.search(r"^VmFlags:.* hg( |$)", each, re.M)]
    return sum(int(kib) << 10 for each in huge for kib in re.findall(r"^Rss:\s*(\d+)", each, re.M))


def test_a_kernel_without_huge_pages_is_fine(
    run: Run, memory: MemoryArchive, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mmap, "MADV_HUGEPAGE", 1 << 20)  # no advice that any kernel knows
    with pytest.raises(OSError, match="Invalid argument"):
        mmap.mmap(-1, mmap.PAGESIZE).madvise(mmap.MADV_HUGEPAGE)
    put(memory, "name", SOME)  # type: ignore[arg-type]

    assert run().result is Result.DOWNLOADED
    assert (tmp_path / "target").read_bytes() == SOME


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "zstd"])
def test_an_older_target_is_untouched_by_what_fails(
    run: Run, memory: MemoryArchive, packed: bool, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"older, and good")
    before = target.stat()
    stored = zstandard.compress(SHORT) if packed else SHORT
    damaged = stored[:5000] + bytes([stored[5000] ^ 0x10]) + stored[5001:]
    memory.put("name", [damaged], metadata_of(SHORT, "zstd" if packed else None))

    assert run().result is Result.NOT_INTACT
    assert target.read_bytes() == b"older, and good"
    assert target.stat().st_ino == before.st_ino
    assert left(tmp_path) == ["target"]


def test_a_compressed_snapshot_that_was_cut_is_not_taken(
    run: Run, memory: MemoryArchive, tmp_path: Path
) -> None:
    stored = zstandard.compress(SHORT)
    memory.put("name", [stored[:-3]], metadata_of(SHORT, "zstd"))

    assert run().result is Result.NOT_INTACT
    assert left(tmp_path) == []


def test_what_unpacks_to_more_than_was_published_is_cut_off(
    run: Run, memory: MemoryArchive, tmp_path: Path
) -> None:
    memory.put("name", [zstandard.compress(bytes(1 << 28))], metadata_of(SHORT, "zstd"))

    assert run().result is Result.NOT_INTACT
    assert left(tmp_path) == []


def test_without_a_checksum_it_is_taken_with_a_warning(
    run: Run, memory: MemoryArchive, heard: Heard, tmp_path: Path
) -> None:
    memory.put("name", [SHORT], Metadata(version="v1"))

    assert run().result is Result.DOWNLOADED
    assert heard.warnings == [NO_CHECKSUM]
    assert (tmp_path / "target").read_bytes() == SHORT


def test_without_a_checksum_it_is_refused_where_one_is_required(
    run: Run, memory: MemoryArchive, tmp_path: Path
) -> None:
    memory.put("name", [SHORT], Metadata(version="v1"))

    assert run(require_checksum=True).result is Result.NOT_INTACT
    assert memory.reads == []
    assert left(tmp_path) == []
