"""Making directories into datasets, and leaving everything else alone."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from depot.config.ledger import (
    LEDGER_NAME,
    NO_LEDGER,
    Attestation,
    Ledger,
    decode_ledger,
    encode_ledger,
)
from depot.config.state_dir import StateDir
from depot.dataset.dataset import Dataset
from depot.errors import DatasetBusy, DatasetForeign, DatasetUnusable, FormatTooNew
from depot.initialise import init_datasets
from tests.loop_mount import loop_disk
from tests.store.builders import ONE, config
from tests.store.faulty import FaultyDisk


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "m2-a", tmp_path / "m2-b"]
    for path in made:
        path.mkdir()
    return made


@pytest.fixture
def in_use(paths: list[Path]) -> Iterator[Dataset]:
    init_datasets(paths)
    dataset = Dataset.attach(paths[0], require_mountpoint=False, sled_id=None)
    yield dataset
    dataset.close()


def marker(path: Path) -> dict[str, object]:
    fields: dict[str, object] = json.loads((path / ".sled-depot/marker.json").read_bytes())
    return fields


def written_at(path: Path) -> tuple[int, int, int]:
    """Which file the marker is and when it was written; not when it was last read."""
    found = (path / ".sled-depot/marker.json").stat()
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns


def test_each_dataset_is_told_who_it_is_and_who_its_siblings_are(paths: list[Path]) -> None:
    reports = init_datasets(paths)
    assert [report.created for report in reports] == [True, True]
    first, second = map(marker, paths)
    assert first["dataset_id"] == reports[0].dataset_id
    assert first["dataset_id"] != second["dataset_id"]
    assert first["siblings"] == [second["dataset_id"]]
    assert second["siblings"] == [first["dataset_id"]]
    assert first["sled_id"] == second["sled_id"]


def test_a_power_cut_after_init_takes_no_dataset_away(paths: list[Path]) -> None:
    # The directory's name is durable before what is in it is relied on.
    disk = FaultyDisk()
    init_datasets(paths[:1], disk=disk)
    made = [name for call, name in disk.calls if call == "mkdir"]
    synced = [name for call, name in disk.calls if call == "fsync_directory"]
    assert made == [".sled-depot", ".sled-depot/staging"]
    assert synced[:2] == [str(paths[0]), str(paths[0] / ".sled-depot")]


def test_a_second_time_changes_nothing(paths: list[Path]) -> None:
    init_datasets(paths)
    before = [written_at(path) for path in paths]
    assert [report.created for report in init_datasets(paths)] == [False, False]
    assert [written_at(path) for path in paths] == before


def test_a_replaced_dataset_takes_the_place_of_the_old_one(
    paths: list[Path], tmp_path: Path
) -> None:
    old = init_datasets(paths)
    paths[1].rename(tmp_path / "broken")
    paths[1].mkdir()
    new = init_datasets(paths)
    assert [report.created for report in new] == [False, True]
    assert new[0].dataset_id == old[0].dataset_id
    assert new[1].dataset_id != old[1].dataset_id
    assert marker(paths[0])["siblings"] == [new[1].dataset_id]
    assert marker(paths[0])["retired"] == marker(paths[1])["retired"] == [old[1].dataset_id]
    assert marker(paths[0])["sled_id"] == marker(paths[1])["sled_id"]


@pytest.mark.parametrize("name", ["lost+found", ".zfs"])
def test_what_systems_put_there_makes_no_directory_foreign(paths: list[Path], name: str) -> None:
    (paths[0] / name).mkdir()
    assert all(report.created for report in init_datasets(paths))


def test_a_directory_with_something_in_it_is_left_alone(paths: list[Path]) -> None:
    (paths[0] / "photos").mkdir()
    with pytest.raises(DatasetForeign, match="photos"):
        init_datasets(paths)
    assert os.listdir(paths[0]) == ["photos"]


def test_a_missing_directory_is_named(paths: list[Path]) -> None:
    paths[1].rmdir()
    with pytest.raises(DatasetUnusable, match="m2-b"):
        init_datasets(paths)


def test_datasets_of_different_sleds_are_refused(paths: list[Path]) -> None:
    init_datasets(paths[:1], sled_id="one")
    init_datasets(paths[1:], sled_id="other")
    with pytest.raises(DatasetUnusable, match="different sleds"):
        init_datasets(paths)
    with pytest.raises(DatasetUnusable, match="the configuration"):
        init_datasets(paths[:1], sled_id="third")


def test_what_a_crash_left_half_made_is_finished(paths: list[Path]) -> None:
    (paths[0] / ".sled-depot").mkdir()
    assert [report.created for report in init_datasets(paths)] == [True, True]


def test_forcing_passes_over_what_is_not_there_and_keeps_it_as_a_sibling(
    paths: list[Path],
) -> None:
    old = init_datasets(paths)
    paths[1].rename(paths[1].with_name("away"))
    reports = init_datasets(paths, force=True)
    assert [report.dataset_id for report in reports] == [old[0].dataset_id, None]
    assert marker(paths[0])["siblings"] == [old[1].dataset_id]


def test_forcing_keeps_what_could_not_be_read(paths: list[Path]) -> None:
    init_datasets(paths)
    (paths[0] / LEDGER_NAME).write_bytes(b"torn")
    init_datasets(paths, force=True)
    assert decode_ledger((paths[0] / LEDGER_NAME).read_bytes()) == NO_LEDGER
    kept = list((paths[0] / ".sled-depot").glob(f"unreadable-*-{LEDGER_NAME}"))
    assert [path.read_bytes() for path in kept] == [b"torn"]


def test_forcing_moves_aside_what_is_no_file_at_all(paths: list[Path]) -> None:
    init_datasets(paths)
    (paths[0] / LEDGER_NAME).mkdir()
    init_datasets(paths, force=True)
    assert decode_ledger((paths[0] / LEDGER_NAME).read_bytes()) == NO_LEDGER
    assert len(list((paths[0] / ".sled-depot").glob(f"unreadable-*-{LEDGER_NAME}"))) == 1


def test_forcing_keeps_a_ledger_that_fails_to_be_read_today(paths: list[Path]) -> None:
    init_datasets(paths)
    content = encode_ledger(Ledger(0, config(5, ONE)))
    (paths[0] / LEDGER_NAME).write_bytes(content)
    disk = FaultyDisk()
    disk.fail("open", errno.EIO, name=LEDGER_NAME)
    init_datasets(paths, force=True, disk=disk)
    kept = list((paths[0] / ".sled-depot").glob(f"unreadable-*-{LEDGER_NAME}"))
    assert [path.read_bytes() for path in kept] == [content]


def test_g1_forcing_leaves_the_ledgers_of_a_node_that_remembers_alone(
    paths: list[Path], tmp_path: Path
) -> None:
    init_datasets(paths)
    for path in paths:
        (path / LEDGER_NAME).write_bytes(b"torn")
    state_dir = StateDir.open(tmp_path / "state")
    state_dir.write_witness(Attestation(Ledger(0, config(5, ONE)).rank))
    state_dir.close()
    init_datasets(paths, force=True, state_dir=tmp_path / "state")
    assert [(path / LEDGER_NAME).read_bytes() for path in paths] == [b"torn"] * 2
    assert not list(paths[0].glob(".sled-depot/unreadable-*"))


def test_forcing_leaves_an_intact_ledger_in_force(paths: list[Path]) -> None:
    init_datasets(paths)
    ledger = Ledger(0, config(5, ONE))
    (paths[1] / LEDGER_NAME).write_bytes(encode_ledger(ledger))
    init_datasets(paths, force=True)
    assert decode_ledger((paths[1] / LEDGER_NAME).read_bytes()) == ledger
    assert not (paths[0] / LEDGER_NAME).exists()


def test_forcing_refuses_a_ledger_of_a_newer_format(paths: list[Path]) -> None:
    init_datasets(paths)
    (paths[0] / LEDGER_NAME).write_bytes(b'{"format": 2}')
    with pytest.raises(FormatTooNew):
        init_datasets(paths, force=True)


@pytest.mark.usefixtures("in_use")
def test_forcing_refuses_a_dataset_in_use(paths: list[Path]) -> None:
    with pytest.raises(DatasetBusy, match=f"pid {os.getpid()}"):
        init_datasets(paths, force=True)


@pytest.mark.usefixtures("in_use")
@pytest.mark.parametrize("force", [False, True])
def test_nothing_is_marked_beside_a_dataset_in_use(paths: list[Path], force: bool) -> None:
    (paths[1] / ".sled-depot/marker.json").unlink()
    before = written_at(paths[0])
    with pytest.raises(DatasetBusy, match=f"pid {os.getpid()}"):
        init_datasets(paths, force=force)
    assert not (paths[1] / ".sled-depot/marker.json").exists()
    assert written_at(paths[0]) == before


def test_nothing_is_marked_under_an_agent_that_has_let_go_of_its_datasets(
    paths: list[Path], tmp_path: Path
) -> None:
    state_dir = tmp_path / "state"
    running = StateDir.open(state_dir)
    with pytest.raises(DatasetBusy, match=f"running process \\(pid {os.getpid()}\\)"):
        init_datasets(paths, state_dir=state_dir)
    assert [os.listdir(path) for path in paths] == [[], []]
    running.close()
    init_datasets(paths, state_dir=state_dir)


def test_a_state_directory_is_not_made_by_whoever_marks_datasets(
    paths: list[Path], tmp_path: Path
) -> None:
    init_datasets(paths, state_dir=tmp_path / "state")
    assert not (tmp_path / "state").exists()


def test_a_mount_point_without_its_disk_is_refused_beside_a_mounted_one(tmp_path: Path) -> None:
    mount_points = [tmp_path / "a", tmp_path / "b"]
    with loop_disk(mount_points[0], size_mib=16), loop_disk(mount_points[1], size_mib=16) as disk:
        old = init_datasets(mount_points)
        disk.take_away()
        with pytest.raises(DatasetUnusable, match="nothing is mounted"):
            init_datasets(mount_points)
        assert os.listdir(mount_points[1]) == []
        disk.mount()
        assert [r.dataset_id for r in init_datasets(mount_points)] == [r.dataset_id for r in old]
