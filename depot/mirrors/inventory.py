"""What is worked out of the copies on one dataset, kept with each change instead of counted anew.

Whoever wants to know what is missing, or how much there is, asks sets and sums of this: going
through every copy for each question would keep the event loop from everything else.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final, NamedTuple

from depot.artifact import ArtifactHash
from depot.state.persistent import PersistentMap

EMPTY_ARTIFACT: Final = ArtifactHash.of(b"")


@dataclass(frozen=True, slots=True)
class Copy:
    """One artifact's file on one dataset.

    Attributes:
        verified_at_s: Unix time when its bytes last hashed to its name; None: never seen.
        damaged: known not to hold the bytes its name says.
    """

    size_bytes: int
    verified_at_s: float | None = None
    damaged: bool = False


class Inventory:
    """Sets and sums over the copies of one dataset. Of one event loop, like who changes them.

    Attributes:
        good: sizes in bytes of the copies that are not known to be damaged and can be whole.
        bad: the others.
        never_verified: copies that nobody verified and that are not known to be damaged.
        used_bytes: of all.
    """

    __slots__ = ("bad", "good", "never_verified", "used_bytes")

    def __init__(self) -> None:
        self.good: dict[ArtifactHash, int] = {}
        self.bad: dict[ArtifactHash, Copy] = {}
        self.never_verified = 0
        self.used_bytes = 0

    @property
    def undamaged(self) -> int:
        """Copies that are not known to be damaged, also those that cannot be whole."""
        return len(self.good) + sum(not copy.damaged for copy in self.bad.values())

    @property
    def undamaged_bytes(self) -> int:
        """Bytes of these."""
        return self.used_bytes - sum(c.size_bytes for c in self.bad.values() if c.damaged)

    def outside(self, wanted: Set[ArtifactHash]) -> set[ArtifactHash]:
        """Artifacts that are here and not wanted."""
        return {a for copies in (self.good, self.bad) for a in copies if a not in wanted}

    def good_but(self, doubted: Iterable[ArtifactHash]) -> Set[ArtifactHash]:
        """Artifacts whose copies are good, without those in doubt, as of now; to keep."""
        # A copy, since the inventory changes. So does what is in doubt, which is rarely anything.
        good = self.good.copy()
        for artifact in doubted:
            good.pop(artifact, None)
        return good.keys()

    def copy(self) -> Inventory:
        """Make one that stays as this is now, for other threads."""
        inventory = Inventory()
        inventory.good, inventory.bad = self.good.copy(), self.bad.copy()
        inventory.never_verified, inventory.used_bytes = self.never_verified, self.used_bytes
        return inventory

    def differs_from(self, copies: Mapping[ArtifactHash, Copy]) -> list[str]:
        """Name what these copies do not come to; goes through all of them."""
        anew = Inventory()
        anew.take_in(copies)
        return [name for name in self.__slots__ if getattr(self, name) != getattr(anew, name)]

    def take_in(self, copies: Mapping[ArtifactHash, Copy]) -> None:
        """Take note of all copies of a dataset that comes: what `changed` does for each, at once.

        Nearly all of them are good, and not empty.
        """
        usual = {a: copy for a, copy in copies.items() if copy.size_bytes and not copy.damaged}
        self.good = {artifact: copy.size_bytes for artifact, copy in usual.items()}
        self.used_bytes = sum(self.good.values())
        self.never_verified = sum(copy.verified_at_s is None for copy in usual.values())
        for artifact in copies.keys() - usual.keys() if len(usual) < len(copies) else ():
            self._add(artifact, copies[artifact])

    def changed(self, artifact: ArtifactHash, before: Copy | None, after: Copy | None) -> None:
        """Take note that a copy appeared, changed or left."""
        if before is not None:
            self._remove(artifact, before)
        if after is not None:
            self._add(artifact, after)

    def _add(self, artifact: ArtifactHash, copy: Copy) -> None:
        if is_good(artifact, copy):
            self.good[artifact] = copy.size_bytes
        else:
            self.bad[artifact] = copy
        self.used_bytes += copy.size_bytes
        self.never_verified += copy.verified_at_s is None and not copy.damaged

    def _remove(self, artifact: ArtifactHash, copy: Copy) -> None:
        self.good.pop(artifact, None)
        self.bad.pop(artifact, None)
        self.used_bytes -= copy.size_bytes
        self.never_verified -= copy.verified_at_s is None and not copy.damaged


class Stock(NamedTuple):
    """The copies of a dataset that comes, and what is worked out of them."""

    copies: Mapping[ArtifactHash, Copy]
    inventory: Inventory


def take_stock(copies: Mapping[ArtifactHash, Copy]) -> Stock:
    """Work it out; for a thread, since it goes through every copy."""
    inventory = Inventory()
    inventory.take_in(copies)
    return Stock(PersistentMap.of(copies), inventory)


def is_good(artifact: ArtifactHash, copy: Copy) -> bool:
    """Tell whether a copy is not known to be damaged and can be whole."""
    return not copy.damaged and (copy.size_bytes > 0 or artifact == EMPTY_ARTIFACT)


def good_in(copies: Mapping[ArtifactHash, Copy], artifact: ArtifactHash) -> Copy | None:
    """The artifact's copy among these, unless it is known to be damaged or cannot be whole."""
    copy = copies.get(artifact)
    return copy if copy is not None and is_good(artifact, copy) else None


def differing(
    good: Mapping[ArtifactHash, int], others: Iterable[Mapping[ArtifactHash, int]]
) -> set[ArtifactHash]:
    """Artifacts with a good copy here and one of another size elsewhere; for a thread."""
    return {
        artifact
        for there in others
        for artifact, size_bytes in good.items()
        if there.get(artifact, size_bytes) != size_bytes
    }


def missing_bytes(
    artifacts: Collection[ArtifactHash], readable: Collection[Inventory], datasets: int
) -> int:
    """Bytes that are to be written so that each of `datasets` has a copy of these artifacts."""
    known_bytes: dict[ArtifactHash, int] = {}
    there_bytes = 0
    for inventory in readable:
        sizes = inventory.good
        # Of the first one's size, whatever it has here: copies in doubt may differ.
        there_bytes += sum(known_bytes.setdefault(a, sizes[a]) for a in artifacts if a in sizes)
    return sum(known_bytes.values()) * datasets - there_bytes
