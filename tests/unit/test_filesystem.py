"""Which filesystems are trusted to check their own data."""

from __future__ import annotations

from pathlib import Path

import pytest

from depot.filesystem import Mount, mount_of, verifies


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
