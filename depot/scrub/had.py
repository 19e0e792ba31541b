"""Which artifacts this sled has had: what is on no dataset any more is lost then, not awaited (B5).

A config may name what was never sent, and that is nobody's to heal. But an artifact of which a
dataset once had a copy must not go without a word: both files removed, or a disk replaced that had
the only one. So each is remembered that has a copy, until nobody wants it any more and it is on no
dataset. What is remembered is written to the database of `copy_records` within seconds; what was
not written when the process died is seen again, unless its dataset went with it. What another sled
had, whose state directory this was, is forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from itertools import filterfalse
from typing import Final

from depot.artifact import ArtifactHash
from depot.concurrency.unhurried import leisurely
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror_set import MirrorSet
from depot.scrub.copy_records import FLUSH_INTERVAL_S, CopyRecords

IsWanted = Callable[[ArtifactHash], bool]
_WHOSE: Final = "had by sled"


class Had:
    """The artifacts that this sled has had.

    Args:
        is_wanted: what tells, as of now, whether an artifact may still be asked for (D4).

    Attributes:
        revision: raised whenever they change.
    """

    def __init__(
        self, mirrors: MirrorSet, records: CopyRecords, is_wanted: Callable[[], IsWanted]
    ) -> None:
        self._mirrors = mirrors
        self._records = records
        self._is_wanted = is_wanted
        self._had: set[ArtifactHash] = set()
        self._unwritten: dict[ArtifactHash, bool] = {}
        self._recalled = False
        self._late: set[ArtifactHash] | None = None
        self._databases = 0
        self._writing = asyncio.Lock()
        self.revision = 0

    def among(self, artifacts: Iterable[ArtifactHash]) -> list[ArtifactHash]:
        """Those of the artifacts that this sled has had."""
        return list(filter(self._had.__contains__, artifacts))

    # What there is

    def note(self, artifact: ArtifactHash, after: Copy | None) -> None:
        """Take note that a copy appeared, changed or left."""
        if after is not None:
            if artifact not in self._had:
                self._remember((artifact,))
        elif artifact in self._had and not self._is_wanted()(artifact):
            self._forget(() if self._is_somewhere(artifact) else (artifact,))

    async def found(self, copies: Mapping[ArtifactHash, Copy]) -> None:
        """Take note of everything on a dataset that comes."""
        here = await asyncio.to_thread(frozenset, copies)  # they may be a hundred thousand
        if self._recalled:
            self._remember(here - self._had)
        else:
            self._had |= here  # nearly all are written: `recall` finds out which are not
            if self._late is not None:
                self._late |= here
            self.revision += 1

    # What nobody wants

    async def forget_unwanted(self) -> None:
        """Forget what is on no dataset and not wanted: it was deleted, or given up while lost."""
        nowhere = await self._nowhere()
        self._forget(list(filterfalse(self._is_wanted(), nowhere)))

    async def forget_gone(self) -> None:
        """Forget everything that is on no dataset: another life begins."""
        self._forget(await self._nowhere())

    def _is_somewhere(self, artifact: ArtifactHash) -> bool:
        return any(artifact in mirror.artifacts for mirror in self._mirrors.all)

    async def _nowhere(self) -> list[ArtifactHash]:
        """What is on no dataset, as of this step of the event loop."""
        here = [mirror.artifacts.rows for mirror in self._mirrors.readable()]
        # In a thread: they may be a hundred thousand. What has changed meanwhile is asked again.
        found = await asyncio.to_thread(_outside, self._had.copy(), here)
        return [a for a in found if a in self._had and not self._is_somewhere(a)]

    def _remember(self, artifacts: Iterable[ArtifactHash]) -> None:
        self._had.update(artifacts)
        self._unwritten.update(dict.fromkeys(artifacts, True))
        self.revision += 1

    def _forget(self, artifacts: Iterable[ArtifactHash]) -> None:
        self._had.difference_update(artifacts)
        self._unwritten.update(dict.fromkeys(artifacts, False))
        self.revision += 1

    # Across restarts

    async def recall(self) -> None:
        """Read, once, what was remembered before; tried again when that cannot be."""
        sled_id = self._mirrors.sled_id
        if self._recalled or sled_id is None:  # no dataset has said yet which sled this is
            return
        seen = frozenset(self._had)
        if self._late is None:  # or somebody else is at it, for whom it is of use as well
            self._late = set()
        found = await self._records.compare_had(seen)
        if found is None or self._recalled:
            return
        self._recalled = True
        before, new = found
        is_ours = self._records.read_note(_WHOSE) in (None, sled_id)
        is_wanted = self._is_wanted()
        overtaken = set(self._unwritten)
        gone = [a for a in before if a not in overtaken and a not in self._had]
        late = (self._late & self._had).difference(seen, before)
        self._late = None
        self._had.update(a for a in gone if is_ours and is_wanted(a))
        self._forget([a for a in gone if a not in self._had])
        self._unwritten = dict.fromkeys((new & self._had) | late, True) | self._unwritten
        if not is_ours:
            await self.save()
        await self._records.keep_note(_WHOSE, sled_id)

    async def run(self) -> None:
        """Write what changes, until cancelled."""
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            await self.recall()
            await self.save()

    async def save(self) -> None:
        """Write what is not written yet; what cannot be written now is kept for the next time."""
        async with self._writing:
            if self._databases != self._records.begun_anew:
                self._databases = self._records.begun_anew
                self._unwritten = dict.fromkeys(self._had, True) | self._unwritten
            changes, self._unwritten = self._unwritten, {}
            written = False
            try:
                written = not changes or await self._records.write_had(changes)
            finally:
                if not written:  # also when it was cancelled half-way
                    self._unwritten = changes | self._unwritten


def _outside(
    artifacts: set[ArtifactHash], here: Iterable[Iterable[ArtifactHash]]
) -> set[ArtifactHash]:
    for copies in here:
        for some in leisurely(copies, rests=2):  # a reset waits for it
            artifacts.difference_update(some)
    return artifacts
