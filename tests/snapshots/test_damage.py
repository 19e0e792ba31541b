"""Whatever happens to a real database on its way, nobody starts from what is left of it.

Over positions: every bit, every 4 KiB boundary, an older version in its place, an end that looks
like the end. Each example is the whole of a download, from the head to the rename.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.snapshots.archive import Archive
from agent.snapshots.course import Result
from agent.snapshots.download import Download, Telling
from agent.snapshots.files import FileArchive
from agent.snapshots.patience import Patience
from agent.snapshots.values import Version
from tests.snapshots.faulty import MemoryArchive
from tests.snapshots.making import database, metadata_of, put

PAGE_BYTES: Final = 4096
EXAMPLES: Final = int(os.environ.get("SNAPSHOT_EXAMPLES", "100"))
SOON: Final = Patience(attempts=2, first_s=0.0, longest_s=0.0)
OLD_TARGET: Final = b"an older snapshot, which is good"
PACKED: Final = [pytest.param(None, id="plain"), pytest.param("zstd", id="zstd")]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return database(tmp_path_factory.mktemp("db") / "state.db", rows=150)


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return database(tmp_path_factory.mktemp("db") / "state.db", rows=149)


def download(archive: Archive | MemoryArchive, target: Path) -> Result:
    telling = Telling(
        line=lambda _: None,
        warning=lambda _: None,
        failure=lambda _, __: None,
        progress=lambda _: None,
    )
    return Download(archive, "state", target, telling, patience=SOON).run().result  # type: ignore[arg-type]


def judge(content: bytes, stored: bytes, compression: str | None) -> None:
    """Have `stored` in the archive for `content`: it is refused, or `content` comes out of it."""
    archive = MemoryArchive()
    archive.put("state", [stored], metadata_of(content, compression))
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "target")
        target.write_bytes(OLD_TARGET)

        result = download(archive, target)

        assert os.listdir(directory) == ["target"]
        if compression is not None and result is Result.DOWNLOADED:
            # Some bits of a frame mean nothing.
            assert target.read_bytes() == content
        else:
            assert result is Result.NOT_INTACT
            assert target.read_bytes() == OLD_TARGET


@pytest.mark.parametrize("compression", PACKED)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_no_single_bit_that_flipped_is_taken(
    published: bytes, compression: str | None, data: st.DataObject
) -> None:
    stored = bytearray(zstandard.compress(published) if compression else published)
    bit = data.draw(st.integers(0, len(stored) * 8 - 1))

    stored[bit // 8] ^= 1 << bit % 8

    judge(published, bytes(stored), compression)


@pytest.mark.parametrize("compression", PACKED)
@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_nothing_that_was_cut_is_taken(
    published: bytes, compression: str | None, data: st.DataObject
) -> None:
    stored = zstandard.compress(published) if compression else published
    kept = data.draw(
        st.one_of(
            st.integers(0, (len(stored) - 1) // PAGE_BYTES).map(lambda page: page * PAGE_BYTES),
            st.integers(0, len(stored) - 1),
        )
    )

    judge(published, stored[:kept], compression)


def test_nothing_cut_at_any_page_is_taken(published: bytes) -> None:
    for kept in range(0, len(published), PAGE_BYTES):
        judge(published, published[:kept], None)
        # Of the same length, as a file that was never written to its end.
        if any(published[kept:]):
            judge(published, published[:kept].ljust(len(published), b"\0"), None)


@pytest.mark.parametrize("compression", PACKED)
def test_an_older_version_in_its_place_is_not_taken(
    published: bytes, older: bytes, compression: str | None
) -> None:
    judge(published, zstandard.compress(older) if compression else older, compression)


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_pages_of_an_older_version_among_its_own_are_not_taken(
    published: bytes, older: bytes, data: st.DataObject
) -> None:
    pages = len(older) // PAGE_BYTES
    different = [
        page
        for page in range(pages)
        if older[page * PAGE_BYTES :][:PAGE_BYTES] != published[page * PAGE_BYTES :][:PAGE_BYTES]
    ]
    page = data.draw(st.sampled_from(different)) * PAGE_BYTES

    mixed = published[:page] + older[page : page + PAGE_BYTES] + published[page + PAGE_BYTES :]

    judge(published, mixed, None)


class Ending(MemoryArchive):
    """A transfer that ends at an offset as if that were the end: what exits 0 half-way."""

    def __init__(self, at: int) -> None:
        super().__init__()
        self._at = at

    def read(self, version: Version, start: int, stop: int) -> Iterator[bytes]:
        for block in super().read(version, start, stop):
            if start + len(block) > self._at:
                yield block[: max(0, self._at - start)]
                return
            start += len(block)
            yield block


@settings(max_examples=EXAMPLES)
@given(data=st.data())
def test_a_transfer_that_ends_well_half_way_is_not_taken(
    published: bytes, data: st.DataObject
) -> None:
    archive = Ending(data.draw(st.integers(0, len(published) - 1)))
    put(archive, "state", published)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "target")

        assert download(archive, target) in (Result.UNREACHABLE, Result.NOT_INTACT)
        assert os.listdir(directory) == []


def test_a_download_that_is_killed_leaves_the_target_and_the_next_one_succeeds(
    tmp_path: Path,
) -> None:
    """By a signal that nobody can handle, with half of it written."""
    content = os.urandom(40 << 20)
    archive = FileArchive(tmp_path / "archive")
    put(archive, "state", content)
    target = tmp_path / "node" / "state.db"
    target.parent.mkdir()
    target.write_bytes(OLD_TARGET)
    code = (
        "import os, signal, sys\n"
        "from agent.snapshots.landing import Landing\n"
        "write = Landing.write_aligned\n"
        "def killed(self, block, offset_bytes):\n"
        "    write(self, block, offset_bytes)\n"
        "    if offset_bytes >= 20 << 20: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Landing.write_aligned = killed\n"
        "from agent.cli.depot import run\n"
        "sys.exit(run(sys.argv[1:]))\n"
    )
    arguments = ["snapshot", "download", "state", "--archive", archive.url, "-o", str(target)]
    killed = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, timeout=60, check=False
    )

    assert killed.returncode == -signal.SIGKILL
    assert target.read_bytes() == OLD_TARGET
    assert download(archive, target) is Result.DOWNLOADED
    assert target.read_bytes() == content
    assert list(target.parent.iterdir()) == [target]
