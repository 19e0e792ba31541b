"""The invariants, asserted from the outside: the status, the listing, and the disks themselves."""

from __future__ import annotations

from depot import ArtifactStore
from depot.errors import NoDataset
from depot.reading.answers import Listing
from tests import ondisk
from tests.model import oracle
from tests.model.rig import FOREIGN_HASH, Rig
from tests.model.state import Disk


class Checks:
    """Looks at everything after each step.

    Attributes:
        highest: the highest position in history that was seen (G1).
        names: the artifact files each disk had after the step before (D1).
    """

    def __init__(self) -> None:
        self.highest = (0, -1)
        self.names: dict[Disk, set[str]] = {}

    def look(self, rig: Rig) -> None:
        rig.observe()
        self.check_the_status(rig)
        check_the_listing(rig)
        for disk in rig.disks:
            check_bytes(disk)
            check_foreign_files(disk)
            self.check_deletions(rig, disk)
        check_quota(rig)
        check_ledgers(rig)
        rig.may_go = set()

    def check_the_status(self, rig: Rig) -> None:
        sled, status = rig.sled, rig.store.status()
        assert status.ledger == sled.standing, (status.ledger, sled.standing)
        assert (status.epoch, status.generation) == (
            sled.floor.epoch,
            None if sled.floor.generation < 0 else sled.floor.generation,
        )
        assert sled.floor.position >= self.highest, "G1"
        if status.generation_certain:
            self.highest = sled.floor.position
        assert [str(x) for x in status.under_replicated] == sled.under_replicated()
        for slot, dataset in zip(sled.slots, status.datasets, strict=True):
            assert dataset.used_bytes == slot.used_bytes
            assert dataset.reserved_bytes == sled.reserved_bytes(slot)
        assert rig.pins() == (sled.pins.held if sled.attached else {})

    def check_deletions(self, rig: Rig, disk: Disk) -> None:
        names = set(ondisk.artifact_files(disk.path))
        gone = self.names.get(disk, set()) - names
        assert gone <= rig.may_go | disk.set_aside, "D1"
        for name in disk.set_aside:
            assert disk.quarantined(name), "B6"
        disk.set_aside = set()
        self.names[disk] = names


def check_the_listing(rig: Rig) -> None:
    refusal = rig.sled.check_known() if rig.sled.attached else NoDataset
    listing = rig.expect(refusal, _list(rig.store))
    if listing is None:
        return
    wanted = rig.sled.wanted
    assert wanted is not None
    assert listing.generation == rig.sled.ledger.generation
    counts = {name: rig.sled.counts(name) for name in wanted}
    found = {str(artifact): count for artifact, count in listing.copies.items()}
    assert found == {name: count for name, count in counts.items() if count}


async def _list(store: ArtifactStore) -> Listing:
    return store.list_artifacts()


def check_bytes(disk: Disk) -> None:
    for name, inode in list(disk.tampered.items()):
        path = disk.path / name
        if not path.exists() or path.stat().st_ino != inode:
            del disk.tampered[name]  # the store has replaced it: from now on it must be right
    assert set(ondisk.wrong_bytes(disk.path)) <= disk.tampered.keys(), "B1"


def check_foreign_files(disk: Disk) -> None:
    assert (disk.path / "lost+found").is_dir(), "Q3"
    assert (disk.path / "notes.txt").read_text() == "somebody's", "Q3"
    assert (disk.path / f"{FOREIGN_HASH}.part").read_text() == "somebody's", "Q3"
    assert (disk.path / FOREIGN_HASH.upper()).read_text() == "somebody's", "Q3"
    assert (disk.path / FOREIGN_HASH).is_symlink(), "Q3"


def check_quota(rig: Rig) -> None:
    for slot in rig.sled.slots:
        if slot.attached:
            stored_bytes = ondisk.stored_bytes(slot.attached.path)
            assert stored_bytes + rig.sled.promised_bytes(slot) <= oracle.QUOTA_BYTES, "Q1"
        if slot.truthful and not rig.lives:
            assert ondisk.staged_files(slot.path) == [], "Q3"
    assert ondisk.staged_files(rig.state_dir) == [], "Q3"


def check_ledgers(rig: Rig) -> None:
    for slot in rig.sled.slots:
        disk = slot.attached
        if disk is None or not slot.truthful or disk.torn:
            continue
        found, expected = ondisk.read_ledger(disk.path), disk.ledger
        assert (found is None) == (expected is None), "G3"
        if found is not None and expected is not None:
            assert found.position == expected.position, "G3"
            assert found.artifacts == expected.artifacts, "G3"
            assert found.graced == expected.graced, "D4"
