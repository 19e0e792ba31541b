"""Which filesystems are trusted to check their own data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from depot.dataset.filesystem import (
    Mount,
    dirty_bytes,
    mount_of,
    reports_syncfs,
    sync_whole,
    tells_page_cache,
    verifies,
)


def mount(point: str, kind: str, *options: str) -> Mount:
    return Mount(Path(point), kind, frozenset(options))


@pytest.mark.parametrize(
    ("kind", "options", "trusted"),
    [
        ("zfs", (), True),
        ("btrfs", ("rw",), True),
        ("btrfs", ("rw", "nodatasum"), False),
        ("btrfs", ("rw", "nodatacow"), False),
        ("ext4", (), False),
        ("xfs", (), False),
        ("tmpfs", (), False),
    ],
)
def test_only_filesystems_that_check_their_data_are_trusted(
    kind: str, options: tuple[str, ...], trusted: bool
) -> None:
    assert verifies(mount("/m2/a", kind, *options)) is trusted


def test_the_innermost_and_last_mount_holds_a_path() -> None:
    mounts = [
        mount("/", "ext4"),
        mount("/m2/a", "zfs"),
        mount("/m2/a", "xfs"),
        mount("/m2", "btrfs"),
    ]
    found = mount_of(Path("/m2/a/x"), mounts)
    assert found is not None
    assert found.kind == "xfs"
    assert mount_of(Path("/m2/ab"), mounts) == mounts[3]
    assert mount_of(Path("/x"), []) is None


@pytest.mark.parametrize(
    ("kind", "release", "trusted"),
    [
        ("ext4", "6.1.0-13-amd64", True),
        ("xfs", "5.17.0", True),
        ("btrfs", "6.18.44", True),
        ("ext4", "5.16.20", False),
        ("ext4", "4.19", False),
        ("ext4", "unknown", False),
        ("fuse.sshfs", "6.1.0", False),
        ("overlay", "6.1.0", False),
        ("nfs4", "6.1.0", False),
    ],
)
def test_b3_one_sync_for_all_is_trusted_where_its_failure_is_reported(
    kind: str, release: str, trusted: bool
) -> None:
    assert reports_syncfs(kind, release) is trusted


@pytest.mark.parametrize(
    ("kind", "release", "told"),
    [
        ("ext4", "6.5.0", True),
        ("xfs", "6.18.44", True),
        ("btrfs", "7.0", True),
        ("xfs", "6.12.0", True),
        ("ext4", "6.4.16", False),
        ("btrfs", "6.4.16", False),
        ("xfs", "6.11.11", False),
        ("ext4", "6.1.0-13-amd64", False),
        ("ext4", "unknown", False),
        ("zfs", "6.18.44", False),
        ("fuse", "6.18.44", False),
        ("nfs4", "6.18.44", False),
    ],
)
def test_b4_what_memory_has_is_asked_for_where_no_device_is(
    kind: str, release: str, told: bool
) -> None:
    assert tells_page_cache(kind, release) is told


def test_one_sync_for_all_says_what_is_wrong_with_it(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    sync_whole(fd)
    os.close(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        sync_whole(fd)


def test_what_waits_to_be_written_back_is_counted(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb", buffering=0) as file:
        file.write(bytes(4 << 20))
        assert dirty_bytes() > 0
        file.truncate(0)
