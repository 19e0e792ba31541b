"""The model of a store: what it is to believe, to answer and to hold, in plain dicts.

Written from the contract and the invariants, one step after the other: no threads, no event loop,
no file of its own. What a file truly holds is looked up on the disk with `tests.ondisk`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from depot import errors
from tests import ondisk
from tests.model.state import NOTHING, Copy, Ledger, OpenPut, Pins, Slot

QUOTA_BYTES: Final = 48 << 10
MAX_ARTIFACT_BYTES: Final = 24 << 10
MAX_PUTS: Final = 2

Refusal = type[errors.DepotError]


@dataclass
class Sled:
    """Everything the store is to know."""

    slots: tuple[Slot, Slot]
    standing: str = "empty"
    ledger: Ledger = NOTHING
    floor: Ledger = NOTHING
    witness: Ledger | None = None
    pins: Pins = field(default_factory=Pins)
    puts: list[OpenPut] = field(default_factory=list)
    grace: bool = True
    """Whether a grace may last at all: one that an earlier setting began lasts no longer."""

    @property
    def attached(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.attached]

    @property
    def wanted(self) -> frozenset[str] | None:
        return self.ledger.artifacts if self.standing == "clear" else None

    @property
    def stored(self) -> frozenset[str]:
        return frozenset(name for slot in self.attached for name in slot.copies)

    def counts(self, name: str) -> int:
        return sum(slot.certain(name) for slot in self.slots)

    def is_anywhere(self, name: str) -> bool:
        return any(slot.good(name) for slot in self.slots)

    def reserved_bytes(self, slot: Slot) -> int:
        return sum(put.reserved.get(slot.index, 0) for put in self.puts)

    def promised_bytes(self, slot: Slot) -> int:
        """What may still come onto the disk in a slot.

        What was reserved of a disk that was there before never comes onto this one. It only keeps
        others from beginning until its put has ended.
        """
        here = [put for put in self.puts if put.disks.get(slot.index) is slot.attached]
        return sum(put.reserved.get(slot.index, 0) for put in here)

    def room_bytes(self, slot: Slot) -> int:
        return max(0, QUOTA_BYTES - slot.used_bytes - self.reserved_bytes(slot))

    # Datasets come and go

    def restart(self) -> None:
        self.pins = Pins()
        self.standing, self.ledger, self.floor = "unknown", NOTHING, NOTHING
        for slot in self.slots:
            slot.detach()
            if slot.present:
                slot.attach()
        self.reload(remembered=None)

    def notice(self) -> None:
        """What a look at every dataset is to find, once it has settled."""
        came = self.coming()
        for slot in self.slots:
            if not slot.truthful:
                slot.detach()
        for slot in came:
            slot.attach()
        if came:
            self.reload(remembered=self.remembered())

    def coming(self) -> list[Slot]:
        return [slot for slot in self.slots if slot.present and not slot.truthful]

    def remembered(self) -> Ledger | None:
        settled = self.standing in ("clear", "empty") and self.floor != NOTHING
        return self.ledger if settled else None

    def reload(self, *, remembered: Ledger | None) -> None:
        """G1 and G4: the highest valid generation that can be seen or is remembered."""
        before = self.standing, self.ledger, self.floor
        disks = [slot.attached for slot in self.slots if slot.attached]
        seen = [disk.ledger for disk in disks if disk.ledger]
        unseen = 2 - sum(not disk.torn for disk in disks)
        self._believe([*([remembered] if remembered else []), *seen], unseen)
        self._grace_anew(*before)
        self.pins = max((self.pins, *(disk.pins for disk in disks)), key=lambda x: x.version)
        if self.standing in ("clear", "empty") and self.floor != NOTHING:
            self._write_ledger(self.ledger)
            if self.witness or not unseen:
                self.witness = self.floor
        if self.pins.version:
            self._write_pins()

    def _grace_anew(self, standing: str, ledger: Ledger, floor: Ledger) -> None:
        """D4: what comes into force from a dataset has the grace of what is sent."""
        if standing == "unknown" or self.standing != "clear":
            return
        if floor.position == self.floor.position and floor.same(self.floor):
            return
        held = ledger.artifacts if ledger.generation >= 0 else self.stored
        mass = self.grace and 2 * len(held - self.ledger.artifacts) > len(held)
        graced = self.ledger.graced or ledger.graced or mass
        self.ledger = self.floor = replace(self.ledger, graced=graced)

    def _believe(self, ledgers: list[Ledger], unseen: int) -> None:
        if not ledgers and self.witness is None:
            self.standing, self.ledger, self.floor = "empty", NOTHING, NOTHING
            if unseen:
                self.standing = "unknown"
            return
        newest = max(ledgers, key=lambda x: x.position, default=NOTHING)
        self.ledger = self.floor = newest
        if self.witness and self.witness.position > newest.position:
            self.floor = self.witness
            self.standing = "behind"
            if self.witness.generation < 0:
                self.ledger, self.standing = self.witness, "empty"
            return
        evidence = [*ledgers, *([self.witness] if self.witness else [])]
        equals = [x for x in evidence if x.position == newest.position]
        if not all(x.same(newest) for x in equals):
            self.standing = "conflicted"
            return
        self.standing = "empty" if newest.generation < 0 else "clear"
        graced = any(x.graced for x in ledgers if x.same(newest))
        self.ledger = self.floor = replace(newest, graced=graced)

    def _write_ledger(self, ledger: Ledger) -> bool:
        """Bring it to every healthy dataset; one that turns out to be gone is let go."""
        for slot in self.attached:
            assert slot.attached is not None
            if slot.truthful:
                slot.attached.ledger, slot.attached.torn = ledger, False
            else:
                slot.detach()
        return bool(self.attached)

    def _write_pins(self) -> bool:
        for slot in self.attached:
            assert slot.attached is not None
            if slot.truthful:
                slot.attached.pins = self.pins
            else:
                slot.detach()
        return bool(self.attached)

    # Config and pins

    def put_config(
        self, generation: int, artifacts: frozenset[str], *, grace: bool
    ) -> Refusal | None:
        if not self.attached:
            return errors.NoDataset
        if self.standing == "unknown":
            return errors.LedgerUnknown
        floor = self.floor
        same = (generation, artifacts) == (floor.generation, floor.artifacts)
        if same and self.standing == "clear":
            if not self._write_ledger(self.ledger):
                return errors.NoDataset
            self.witness = self.floor
            return None
        if not (same and self.standing == "behind"):
            if generation <= floor.generation:
                return errors.ConfigGeneration
            if self.pins.artifacts - artifacts:
                return errors.ArtifactInUse
        # D4; after a reset, what is stored is what there is to drop.
        held = self.ledger.artifacts if self.ledger.generation >= 0 else self.stored
        mass = grace and 2 * len(held - artifacts) > len(held)
        return self._accept(
            Ledger(floor.epoch, generation, artifacts, graced=mass or self.ledger.graced)
        )

    def take_grace(self, found: Collection[ondisk.LedgerFile | None]) -> None:
        """Believe what the ledgers say of their grace period."""
        graced = any(ledger.graced for ledger in found if ledger)
        self.ledger = self.floor = replace(self.ledger, graced=graced)
        self._write_ledger(self.ledger)

    def reset(self, expected: int) -> Refusal | None:
        if len(self.attached) < len(self.slots):
            return errors.NoDataset
        if self.floor.generation < 0:
            return errors.NoConfig
        if expected != self.floor.generation:
            return errors.ConfigGeneration
        return self._accept(Ledger(self.floor.epoch + 1))

    def _accept(self, ledger: Ledger) -> Refusal | None:
        if not self._write_ledger(ledger):
            return errors.NoDataset
        self.standing = "empty" if ledger.generation < 0 else "clear"
        self.ledger = self.floor = self.witness = ledger
        return None

    def check_known(self) -> Refusal | None:
        if self.standing == "clear":
            return None
        return errors.NoConfig if self.standing == "empty" else errors.LedgerUnknown

    def put_pin(self, name: str, artifacts: frozenset[str]) -> Refusal | None:
        if not self.attached:
            return errors.NoDataset
        if refusal := self.check_known():
            return refusal
        if artifacts - self.ledger.artifacts:
            return errors.NotInConfig
        return self._replace_pins({**self.pins.held, name: artifacts})

    def delete_pin(self, name: str) -> Refusal | None:
        if not self.attached:
            return errors.NoDataset
        if name not in self.pins.held:
            return errors.NotFound
        return self._replace_pins({k: v for k, v in self.pins.held.items() if k != name})

    def _replace_pins(self, held: dict[str, frozenset[str]]) -> Refusal | None:
        before, self.pins = self.pins, Pins(self.pins.version + 1, held)
        if self._write_pins():
            return None
        self.pins = before
        return errors.NoDataset

    # Writes

    def admit(
        self, name: str, generation: int, length_bytes: int | None, *, counted: bool
    ) -> Refusal | OpenPut | int:
        """The refusal, the admitted put, or (held) the number of copies."""
        if refusal := self._may_start(name, generation):
            return refusal
        healthy = self.attached
        for slot in healthy:
            slot.verify(name)
        settled = [slot.settle(name) for slot in healthy]
        good = [slot for slot, fine in zip(healthy, settled, strict=True) if fine]
        if good and len(good) == len(healthy):
            return len(good)
        size_bytes = length_bytes or 0
        if size_bytes > MAX_ARTIFACT_BYTES:
            return errors.TooLarge
        lacking = [slot for slot in self.attached if slot not in good]
        roomy = [slot for slot in lacking if self.room_bytes(slot) >= size_bytes]
        if not roomy:
            return len(good) or (errors.QuotaExceeded if self.attached else errors.NoDataset)
        if counted and sum(put.counted for put in self.puts) >= MAX_PUTS:
            return errors.TooManyPuts
        reserved = {slot.index: size_bytes for slot in roomy}
        disks = {slot.index: slot.attached for slot in roomy}
        return OpenPut(name, length_bytes, counted, len(healthy), good, reserved, disks)

    def _may_start(self, name: str, generation: int) -> Refusal | None:
        if not self.attached:
            return errors.NoDataset
        floor = self.floor.generation
        if self.standing != "empty" and floor >= 0 and generation != floor:
            return errors.ArtifactGeneration
        if refusal := self.check_known():
            return refusal
        return None if name in self.ledger.artifacts else errors.NotInConfig

    def stream(self, put: OpenPut) -> None:
        """The files are being written; a dataset that is not there any more drops out."""
        slots = (self.slots[index] for index in put.reserved)
        put.streams_to = {slot.index: slot.attachments for slot in slots if slot.attached}
        put.reserved = {index: put.reserved[index] for index in put.streams_to}

    def finish(
        self, put: OpenPut, sent: bytes, staged: Collection[int], *, whole: bool
    ) -> Refusal | int:
        """The refusal, or the number of copies; `staged` names the slots that have a file.

        A body that is read whole is judged before any dataset is touched.
        """
        self.puts.remove(put)
        size_limit = MAX_ARTIFACT_BYTES if put.length_bytes is None else put.length_bytes
        full: list[int] = []
        if len(sent) > size_limit:
            return errors.TooLarge if put.length_bytes is None else errors.LengthMismatch
        if put.length_bytes is None and sent:
            full = [i for i in put.reserved if self.room_bytes(self.slots[i]) < len(sent)]
            if len(full) == len(put.reserved) and not put.good:
                return errors.QuotaExceeded
        if whole and (refusal := self._judge(put, sent, set(put.streams_to or ()))):
            return refusal
        # Of one that the quota ended, what came first is not laid down: that, or that it is gone.
        self._let_go(put, [*full, *staged])
        if refusal := self._judge(put, sent, set(staged) - set(full)):
            return refusal
        landed = [index for index in staged if index not in full and self._lands(put, index)]
        for index in landed:
            self.slots[index].copies[put.name] = Copy(len(sent))
        # Where the quota ended it, nothing was written that would show whether the path is there.
        self._let_go(put, [*full, *(index for index in staged if self.slots[index].truthful)])
        # What held it when the put began may have left since, with its copy.
        still_good = [slot for slot in put.good if slot.good(put.name)]
        return len(still_good) + len(landed) or errors.Io

    def _judge(self, put: OpenPut, sent: bytes, staged: set[int]) -> Refusal | None:
        if refusal := self._judge_content(put, sent, staged) or self.check_known():
            return refusal
        return None if put.name in self.ledger.artifacts else errors.ArtifactGeneration

    def _judge_content(self, put: OpenPut, sent: bytes, staged: set[int]) -> Refusal | None:
        if staged and put.length_bytes not in (None, len(sent)):
            return errors.LengthMismatch
        if staged and ondisk.sha256(sent) != put.name:
            return errors.HashMismatch
        return None

    def _let_go(self, put: OpenPut, fine: Collection[int]) -> None:
        assert put.streams_to is not None
        for index in put.streams_to.keys() - set(fine):
            # A failure counts when it is told, even if the dataset is back by then.
            if self.slots[index].attachments == put.streams_to[index]:
                self.slots[index].detach()

    def _lands(self, put: OpenPut, index: int) -> bool:
        assert put.streams_to is not None
        slot = self.slots[index]
        return slot.truthful and put.streams_to[index] == slot.attachments

    # Reads

    def open_copy(self, name: str) -> Slot | None:
        """The first that opens; when they disagree on the size, only after a look at the bytes."""
        sizes = {slot.copies[name].size_bytes for slot in self.attached if slot.good(name)}
        if len(sizes) > 1:
            for slot in self.attached:
                slot.verify(name)
        opened = next((slot for slot in self.attached if slot.opens(name)), None)
        if opened is None:
            # Nothing is left but what is said to be damaged: is it?
            for slot in self.attached:
                slot.look_again_at(name)
            opened = next((slot for slot in self.attached if slot.opens(name)), None)
        return opened

    # Duties

    def may_delete(self, name: str) -> bool:
        """D1 and D4."""
        if self.wanted is None or name in self.wanted or (self.ledger.graced and self.grace):
            return False
        return name not in self.pins.artifacts and all(put.name != name for put in self.puts)

    def unwanted(self, slot: Slot) -> list[str]:
        """Files that a reconcile would delete now."""
        assert slot.attached is not None
        return [name for name in slot.attached.sizes() if self.may_delete(name)]

    def reconcile(self) -> set[str]:
        deleted: set[str] = set()
        for slot in self.attached:
            assert slot.attached is not None
            slot.look_again()
            unwanted = {name for name in slot.copies if self.may_delete(name)}
            if unwanted and not slot.truthful:
                slot.detach()
                continue
            for name in unwanted:
                del slot.copies[name]
            deleted |= unwanted
        return deleted

    def under_replicated(self) -> list[str]:
        wanted = self.wanted or frozenset()
        some = (name for name in wanted if self.is_anywhere(name))
        return sorted(name for name in some if self.counts(name) < len(self.slots))

    def remirror(self) -> int:
        for slot in self.attached:
            for name in [name for name, copy in slot.copies.items() if copy.doubted]:
                slot.verify(name)
        for slot in self.attached:
            for name in list(slot.copies):
                slot.settle(name)
        healed = 0
        in_flight = {put.name for put in self.puts}
        for name in [*self.whole_in_quarantine(), *self.under_replicated()]:
            if name not in in_flight and not all(slot.good(name) for slot in self.attached):
                healed += self._heal(name)
        return healed

    def whole_in_quarantine(self) -> dict[str, Path]:
        """Wanted artifacts without a good copy that nevertheless lie whole in a quarantine."""
        missing = sorted(name for name in self.wanted or () if not self.is_anywhere(name))
        files = {
            name: [
                path
                for slot in self.attached
                if slot.attached
                for path in slot.attached.quarantined(name)
            ]
            for name in missing
        }
        return {
            name: path
            for name in missing
            for path in files[name]
            if ondisk.sha256(path.read_bytes()) == name
        }

    def _heal(self, name: str) -> bool:
        whole = self.whole_in_quarantine().get(name)
        sizes = [slot.copies[name].size_bytes for slot in self.slots if slot.good(name)]
        if not (sizes or whole):
            return False  # what held it was found to be gone when another one was healed
        size_bytes = sizes[0] if whole is None else whole.stat().st_size
        put = self.admit(name, self.floor.generation, size_bytes, counted=False)
        if not isinstance(put, OpenPut) or not (put.good or whole):
            return False
        lacking = len(self.attached) - len(put.good)
        self.puts.append(put)
        self.stream(put)
        if whole is None:
            assert put.good[0].attached is not None
            whole = put.good[0].attached.path / name
        copies = self.finish(put, whole.read_bytes(), self.stage(put), whole=False)
        return isinstance(copies, int) and copies == len(put.good) + lacking

    def stage(self, put: OpenPut) -> list[int]:
        """The slots where a file can be begun now; the others are found to be gone."""
        assert put.streams_to is not None
        return [i for i in put.streams_to if self.slots[i].truthful]
