"""A snapshot downloaded and checked, beside the same download of one that has no checksum.

Twice the size of the large artifact: what is checked is that the hash runs beside the transfer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Final
from unittest import mock

from agent.snapshots.archive import Archive
from agent.snapshots.course import Result
from agent.snapshots.download import Download, Telling
from agent.snapshots.files import FileArchive
from agent.snapshots.hashing import checksum_of
from agent.snapshots.opening import open_archive
from agent.snapshots.publish import Publication, publish
from agent.snapshots.values import Metadata
from tests.benchmarks.measure import MIB, MIB_PER_S, Row, Sample, Target, versus
from tests.benchmarks.rig import Rig

CHECKED, UNCHECKED = "checked", "unchecked"
# The checked download may take 1.10 times as long.
TARGET: Final = Target(1 / 1.10)
# A fast network, at whose other end other cores do the sending.
LINK_GBIT_PER_S: Final = 2.5
AGAINST: Final = "the same without a checksum"
_CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench"}


def from_file(rig: Rig) -> list[Row]:
    """Out of a directory on the same disk."""
    archive = _published(rig)
    return [_row(rig, "snapshot-file", "out of a directory", archive)]


def from_s3(rig: Rig) -> list[Row]:
    """Over loopback, from a server that does nothing but send files: unbounded, and paced."""
    return [
        _from_bucket(rig, "snapshot-s3", "out of a bucket, loopback"),
        _from_bucket(
            rig, "snapshot-link", f"out of a bucket, {LINK_GBIT_PER_S} Gbit/s", LINK_GBIT_PER_S
        ),
    ]


def _from_bucket(rig: Rig, key: str, whence: str, gbit_per_s: float | None = None) -> Row:
    _published(rig)
    with (
        _server(rig, gbit_per_s) as endpoint,
        mock.patch.dict(os.environ, _CREDENTIALS),
        closing(open_archive("s3://archive", endpoint)) as archive,
    ):
        return _row(rig, key, whence, archive)


def _row(rig: Rig, key: str, whence: str, archive: Archive) -> Row:
    checked, unchecked = (partial(_download, rig, archive, name) for name in (CHECKED, UNCHECKED))
    unchecked()
    size_text = f"{2 * rig.scale.size_bytes // MIB} MiB"
    return versus(
        key,
        f"download a snapshot of {size_text} {whence}, check it",
        rig.pairs(checked, unchecked),
        AGAINST,
        unit=MIB_PER_S,
        target=TARGET,
    )


def _download(rig: Rig, archive: Archive, name: str) -> Sample:
    target = rig.directory / "snapshot"
    telling = Telling(line=_nothing, warning=_nothing, failure=_nothing, progress=_nothing)
    began_s = time.perf_counter()
    end = Download(archive, name, target, telling).run()
    seconds = time.perf_counter() - began_s
    assert end.result is Result.DOWNLOADED, end
    size_bytes = target.stat().st_size
    target.unlink()
    return Sample.of_bytes(size_bytes, seconds)


def _published(rig: Rig) -> FileArchive:
    """The same bytes twice: with their checksum, and without any."""
    archive = FileArchive(rig.directory / "archive")
    if not archive.versions(UNCHECKED):
        source = rig.body.path
        twice = rig.directory / "twice"
        with twice.open("wb") as file:
            for path in repeat(source, 2):
                file.write(path.read_bytes())
        publication = Publication(path=twice, name=CHECKED)
        publish(archive, publication, line=_nothing, progress=_nothing)
        archive.put(UNCHECKED, _blocks(twice), Metadata(version="unchecked"))
        assert checksum_of(twice) == archive.head(CHECKED).metadata.checksum
        twice.unlink()
    return archive


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while block := file.read(MIB):
            yield block


@contextmanager
def _server(rig: Rig, gbit_per_s: float | None) -> Iterator[str]:
    command = [sys.executable, "-m", "tests.benchmarks.bucket", str(rig.directory)]
    if gbit_per_s is not None:
        command.append(str(gbit_per_s * 1e9 / 8))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            yield f"http://127.0.0.1:{server.stdout.readline().strip()}"
        finally:
            server.terminate()


def _nothing(*_: object) -> None:
    """Nobody is told."""
