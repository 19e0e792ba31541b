"""What a sled is made of, for the model: ledgers, pins, disks, slots they stand in, open puts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests import ondisk

EMPTY_NAME: Final = ondisk.sha256(b"")


@dataclass(frozen=True)
class Ledger:
    """One state that was accepted; generation -1 means no config."""

    epoch: int = 0
    generation: int = -1
    artifacts: frozenset[str] = frozenset()
    graced: bool = False

    @property
    def position(self) -> tuple[int, int]:
        return self.epoch, self.generation

    def same(self, other: Ledger) -> bool:
        return (self.position, self.artifacts) == (other.position, other.artifacts)


NOTHING: Final = Ledger()


@dataclass(frozen=True)
class Pins:
    version: int = 0
    held: dict[str, frozenset[str]] = field(default_factory=dict)

    @property
    def artifacts(self) -> frozenset[str]:
        return frozenset().union(*self.held.values())


@dataclass(eq=False)
class Disk:
    """One dataset directory, wherever it is now.

    Attributes:
        ledger: the intact one on it; None when there is none or it was torn.
        tampered: files the test itself damaged, with their inode then.
        set_aside: what the last step was to move to the quarantine.
        marked: files said to be damaged when the disk was let go of, and not asked about since.
    """

    path: Path
    ledger: Ledger | None = None
    torn: bool = False
    pins: Pins = field(default_factory=Pins)
    tampered: dict[str, int] = field(default_factory=dict)
    set_aside: set[str] = field(default_factory=set)
    marked: set[str] = field(default_factory=set)

    def intact(self, name: str) -> bool:
        """Look whether a file's bytes hash to its name now."""
        return ondisk.sha256((self.path / name).read_bytes()) == name

    def quarantined(self, name: str) -> list[Path]:
        """Damaged copies that were set aside, and whatever stood in a good copy's place."""
        return ondisk.quarantined_files(self.path, name)

    def sizes(self) -> dict[str, int]:
        return {name: found.st_size for name, found in ondisk.artifact_files(self.path).items()}


@dataclass
class Copy:
    """What the store has on record of one file.

    Attributes:
        doubted: it was never verified, and another copy had another size: it does not count.
    """

    size_bytes: int
    damaged: bool = False
    doubted: bool = False

    def counts(self, name: str) -> bool:
        return not self.damaged and (self.size_bytes > 0 or name == EMPTY_NAME)


@dataclass(eq=False)
class Slot:
    """A configured path: the disk it leads to, and the one the store has attached.

    Attributes:
        attachments: how often one was attached: a stream ends with the attachment it began under.
    """

    index: int
    path: Path
    present: Disk | None = None
    shelf: list[Disk] = field(default_factory=list)
    attached: Disk | None = None
    attachments: int = 0
    copies: dict[str, Copy] = field(default_factory=dict)

    @property
    def truthful(self) -> bool:
        """The store is attached to what the path leads to."""
        return self.attached is not None and self.attached is self.present

    @property
    def used_bytes(self) -> int:
        return sum(copy.size_bytes for copy in self.copies.values())

    def good(self, name: str) -> bool:
        copy = self.copies.get(name)
        return self.attached is not None and copy is not None and copy.counts(name)

    def certain(self, name: str) -> bool:
        return self.good(name) and not self.copies[name].doubted

    def opens(self, name: str) -> bool:
        """Open the copy for reading; one of another size is found to be damaged."""
        if not self.good(name):
            return False
        assert self.attached is not None
        size_bytes = self.attached.sizes().get(name)
        if size_bytes is None:
            del self.copies[name]
        elif size_bytes != self.copies[name].size_bytes:
            self.copies[name] = Copy(self.copies[name].size_bytes, damaged=True)
        return self.good(name)

    def attach(self) -> None:
        self.attached = self.present
        self.attachments += 1
        sizes = self.present.sizes() if self.present else {}
        self.copies = {name: Copy(size_bytes) for name, size_bytes in sizes.items()}

    def detach(self) -> None:
        if self.attached is not None:
            self.attached.marked |= {name for name, copy in self.copies.items() if copy.damaged}
        self.attached, self.copies = None, {}

    def look_again(self) -> None:
        """Take what appeared, forget what is gone, doubt what changed its size."""
        assert self.attached is not None
        on_disk = self.attached.sizes()
        for name in self.copies.keys() - on_disk.keys():
            del self.copies[name]
        for name, size_bytes in on_disk.items():
            if self.copies.setdefault(name, Copy(size_bytes)).size_bytes != size_bytes:
                self.copies[name] = Copy(size_bytes, damaged=True)

    def look_again_at(self, name: str) -> None:
        """Read a copy that is said to be damaged."""
        assert self.attached is not None
        copy = self.copies.get(name)
        if copy is not None and copy.damaged and (self.attached.path / name).exists():
            same_size = self.attached.sizes()[name] == copy.size_bytes
            copy.damaged = not (same_size and self.attached.intact(name))

    def verify(self, name: str) -> bool:
        """Read the copy, as the store does before it relies on one."""
        if not self.good(name):
            return False
        assert self.attached is not None
        if not (self.attached.path / name).exists():
            del self.copies[name]
            return False
        self.copies[name].damaged = not self.attached.intact(name)
        self.copies[name].doubted = False
        return not self.copies[name].damaged

    def settle(self, name: str) -> bool:
        """Judge a damaged copy once more: it is good after all, or it is set aside."""
        if self.attached is None or name not in self.copies or self.good(name):
            return self.good(name)
        path = self.attached.path / name
        if not path.exists():
            del self.copies[name]
        elif self.attached.intact(name):
            self.copies[name] = Copy(path.stat().st_size)
        elif not self.truthful:
            self.detach()
        else:
            del self.copies[name]
            self.attached.set_aside.add(name)
        return self.good(name)


@dataclass(eq=False)
class OpenPut:
    """A write that was admitted and has not ended.

    Attributes:
        disks: what was in each slot with `reserved` bytes when they were promised.
    """

    name: str
    length_bytes: int | None
    counted: bool
    healthy: int
    good: list[Slot]
    reserved: dict[int, int]
    disks: dict[int, Disk | None]
    streams_to: dict[int, int] | None = None
