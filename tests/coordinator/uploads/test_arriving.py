from __future__ import annotations

import errno
import io
from pathlib import Path

import pytest

from coordinator.uploads import arriving
from coordinator.uploads.arriving import receive
from coordinator.uploads.errors import no_room
from depot.artifact import ArtifactHash
from depot.errors import Io, QuotaExceeded, TooLarge


class Body(io.BytesIO):
    """A body in memory, as a source."""

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        return super().readinto(buffer)

    def abort(self) -> None:
        """Nothing waits."""


@pytest.mark.parametrize("size", [0, 1, arriving.BLOCK_BYTES, 2 * arriving.BLOCK_BYTES + 1])
def test_a_body_arrives_whole_with_its_hash(tmp_path: Path, size: int) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    arrived = receive(Body(content[:size]), tmp_path / "x", size)
    assert (tmp_path / "x").read_bytes() == content[:size]
    assert arrived.size_bytes == size
    assert arrived.sha256 == ArtifactHash.of(content[:size])


def test_s1_a_body_that_goes_on_after_what_may_come_is_given_up(tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        receive(Body(bytes(11)), tmp_path / "x", 10)


def test_a_file_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("another one's")
    with pytest.raises(Io):
        receive(Body(b"mine"), tmp_path / "x", 10)
    assert (tmp_path / "x").read_text() == "another one's"


@pytest.mark.parametrize(
    ("number", "kind"),
    [(errno.ENOSPC, QuotaExceeded), (errno.EDQUOT, QuotaExceeded), (errno.EIO, Io)],
)
def test_a_full_disk_is_told_from_a_broken_one_and_no_path_is_named(
    number: int, kind: type[Exception]
) -> None:
    refusal = no_room(OSError(number, "why", "/secret/path"))
    assert type(refusal) is kind
    assert "/secret" not in str(refusal)
