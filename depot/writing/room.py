"""Where one write goes: the mirrors without a good copy on which room is reserved for it.

Rules kept here:
- A copy that is there is verified before anything is sent. A good one is not written again; a bad
  one is set aside: what is put replaces it (B5), and its bytes leave the quota.
- Nothing is written that has no reservation (Q1). A stream of unknown length asks for more as it
  grows, and a mirror that has none drops out of it.
- What can never fit is refused for that, and not for what happens to be there now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from depot.artifact import ArtifactHash
from depot.errors import LengthMismatch, QuotaExceeded, TooLarge
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.mirrors.quota import Reservation
from depot.mirrors.verify import verify_copy
from depot.quarantine.keeper import QuarantineKeeper
from depot.writing.ground import Ground
from depot.writing.lanes import Target
from depot.writing.stored import Stored, Tally


class Room:
    """The mirrors of one write.

    Args:
        healthy: those that could be written when it began.
        length_bytes: of what will be sent; None: that turns out.
        max_artifact_size_bytes: no write is larger.
        tally: is told which dataset has no room.

    Attributes:
        held: every healthy dataset that has room already holds a copy that was verified just now;
            nothing needs to be sent.
        good: the mirrors of such copies.
        reservations: by mirror; whoever takes one out of it gives it back.
    """

    def __init__(
        self,
        artifact: ArtifactHash,
        length_bytes: int | None,
        mirrors: MirrorSet,
        healthy: Sequence[Mirror],
        quarantine: QuarantineKeeper,
        max_artifact_size_bytes: int,
        tally: Tally,
    ) -> None:
        self.held: Stored | None = None
        self.good: list[Mirror] = []
        self.reservations: dict[int, Reservation] = {}
        self._artifact = artifact
        self._length_bytes = length_bytes
        self._mirrors = mirrors
        self._healthy = healthy
        self._quarantine = quarantine
        self._max_artifact_size_bytes = max_artifact_size_bytes
        self._tally = tally

    async def look_for_copies(self) -> None:
        """Verify the copies that are there; with one on every healthy dataset the put is held.

        Raises:
            TooFewCopies: it would be held, but by fewer datasets than `min_copies`.
        """
        found = self._found()
        if not found:
            return
        verified = await asyncio.gather(*map(self._verify, found))
        self.good = [m for m, good in zip(found, verified, strict=True) if good]
        if self.good and len(self.good) == len(self._healthy):
            self.held = self._held()

    async def make(self) -> None:
        """Have the quarantine yield where the disk has no room for what may come."""
        for mirror in self._lacking():
            size_bytes = self._length_bytes
            if size_bytes is None:  # it may be small: what lies there yields only to a full disk
                size_bytes = self._max_artifact_size_bytes if mirror.full else 0
            await self._quarantine.make_room(mirror, size_bytes)

    def reserve(self) -> None:
        """Reserve space on every healthy dataset without a good copy.

        Raises:
            TooLarge, QuotaExceeded, TooFewCopies.
        """
        size_bytes = self._length_bytes or 0
        self._check_size(size_bytes)
        for mirror in self._lacking():
            reservation = mirror.quota.reserve(size_bytes) if mirror.room_for(size_bytes) else None
            if reservation is None:
                self._tally.failures.append(f"dataset {mirror.index + 1} is full")
            else:
                self.reservations[mirror.index] = reservation
        if self.reservations:
            return
        if not self.good:
            self._mirrors.require_healthy()  # they may have gone while they were looked at
            raise QuotaExceeded(f"no dataset has room for the {size_bytes} bytes now")
        self.held = self._held()

    def reserve_at_once(self, ground: Ground) -> bool:
        """Reserve space on every healthy dataset; False, and nothing is, where that is not all.

        There may be a copy to look at, or one of them may have no room.
        """
        size_bytes = self._length_bytes
        if size_bytes is None or not 0 <= size_bytes <= self._most_bytes(ground):
            return False
        if ground.has(self._artifact):
            return False
        for mirror in ground.healthy:
            reservation = mirror.quota.reserve(size_bytes)
            if reservation is None:
                self.release()
                return False
            self.reservations[mirror.index] = reservation
        return True

    def choose_targets(self) -> Mapping[int, Target]:
        """Choose where it is written: where room is reserved, and the dataset is still healthy."""
        mirrors = self._mirrors.all
        targets = {
            i: Target(mirrors[i].dataset, mirrors[i].host)
            for i in self.reservations
            if mirrors[i].healthy
        }
        for index in self.reservations.keys() - targets.keys():
            self.reservations.pop(index).release()
        return targets

    def admit(self, size_bytes: int) -> Collection[int]:
        """See `ingest.Admit`.

        Raises:
            LengthMismatch, TooLarge, QuotaExceeded.
        """
        # Runs in the filler's thread; reservations and quotas are made for that.
        if self._length_bytes is not None:
            if size_bytes > self._length_bytes:
                raise LengthMismatch(self._length_bytes, size_bytes)
            return ()
        self._check_size(size_bytes)
        reservations = self.reservations
        grown = {i: r.grow(size_bytes - r.size_bytes) for i, r in reservations.items()}
        if not any(grown.values()) and not self.good:
            raise QuotaExceeded(f"no dataset has room for more than {size_bytes} bytes now")
        return [index for index, fits in grown.items() if not fits]

    def abandon(self) -> Mapping[int, Reservation]:
        """Hand over what is reserved: a stream that still runs, for nobody, gets no more of it."""
        reservations, self.reservations, self.good = self.reservations, {}, []
        return reservations

    def release(self) -> None:
        """Give back what is still reserved."""
        for reservation in self.reservations.values():
            reservation.release()

    def _most_bytes(self, ground: Ground) -> int:
        return min(self._max_artifact_size_bytes, ground.most_bytes)

    def _found(self) -> list[Mirror]:
        return [mirror for mirror in self._healthy if self._artifact in mirror.artifacts]

    async def _verify(self, mirror: Mirror) -> bool:
        if await verify_copy(mirror, self._artifact):
            return True
        return await self._quarantine.settle(mirror, self._artifact)

    def _lacking(self) -> list[Mirror]:
        return [m for m in self._healthy if m.healthy and m not in self.good]

    def _held(self) -> Stored:
        return self._tally.check(self._tally.stored(self.good))

    def _check_size(self, size_bytes: int) -> None:
        most_bytes = min(
            self._max_artifact_size_bytes,
            max((_capacity_bytes(mirror) for mirror in self._healthy), default=0),
        )
        if size_bytes > most_bytes:
            raise TooLarge(f"{size_bytes} bytes can never fit; at most {most_bytes} do")


def _capacity_bytes(mirror: Mirror) -> int:
    total_bytes = mirror.space.total_bytes if mirror.space else mirror.quota.limit_bytes
    return min(mirror.quota.limit_bytes, total_bytes)
