"""Damaged copies on every mirror: judged once more, set aside, listed, restored, purged.

A copy that was found damaged is condemned only after it was read again, past the page cache, while
nobody else changes what stands under its name. Then one rename sets it aside: an event and a log
line say so (B6), and its bytes leave the quota. The quarantine of each dataset keeps within its
bound by purging the oldest, and makes room for a write that a full disk would refuse (Q1); what
`depot.dataset.quarantine_names` calls irreplaceable stays, also past the bound, and the status says
so.

The state store has what a scan of the directories found, and what was done since.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from depot.artifact import ArtifactHash
from depot.concurrency.keyed_lock import KeyedLock
from depot.concurrency.unhurried import gently_sorted
from depot.config.keeper import EventSink, LedgerKeeper
from depot.dataset import quarantine_files
from depot.dataset.dataset import Dataset
from depot.dataset.quarantine_names import (
    QuarantinedFile,
    Reason,
    choose_to_purge,
    file_name,
    irreplaceable,
)
from depot.errors import DatasetUnusable
from depot.mirrors.inventory import Copy
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.mirrors.verify import Verdict, judge_file, works
from depot.os_errors import describe_error
from depot.quarantine.shelf import Shelf, largest_of
from depot.quarantine.wanted import Test, needed_by, wanted_by
from depot.state.persistent import PersistentMap
from depot.state.tables import StateStore, Table


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A copy in quarantine, as it is listed.

    Attributes:
        id: names it among those of all datasets.
        dataset: the dataset's path.
        path: the file, for an operator on this machine.
        last_copy: it is the newest of its dataset, the artifact is wanted, and no verified copy
            of it exists.
    """

    id: str
    index: int
    file: QuarantinedFile
    dataset: str
    path: str
    last_copy: bool


class QuarantineKeeper:
    """The quarantines of a store.

    Args:
        limit_bytes: of each dataset's quarantine.
        commits: held for an artifact while its files get or lose their names.
        on_set_aside: called after each: there is something to heal, and the bound to keep.
    """

    def __init__(
        self,
        mirrors: MirrorSet,
        keeper: LedgerKeeper,
        commits: KeyedLock[ArtifactHash],
        *,
        limit_bytes: int,
        on_event: EventSink,
        on_set_aside: Callable[[], None],
        state: StateStore,
    ) -> None:
        self.limit_bytes = limit_bytes
        self._mirrors = mirrors
        self._keeper = keeper
        self._commits = commits
        self._emit = on_event
        self._on_set_aside = on_set_aside
        self._store = state
        self._files: dict[int, Table[str, QuarantinedFile]] = {
            mirror.index: state.table(f"quarantine of dataset {mirror.index + 1}")
            for mirror in mirrors.all
        }
        self._shelves = {mirror.index: Shelf() for mirror in mirrors.all}
        self._scanned: dict[int, Dataset] = {}
        self._sizes: tuple[object, Mapping[ArtifactHash, int]] = ((), {})
        self._last_ms = 0

    # What is there

    def check_shelves(self) -> None:
        """Where state is checksummed, read every row and see that the shelves say the same.

        Raises:
            StateCorrupted: a row was changed in place.
            RuntimeError: a shelf was, or somebody has forgotten to tell it something.
        """
        for index, table in self._files.items() if self._store.checked else ():
            if wrong := self._shelves[index].differs_from(table.rows.values()):
                raise RuntimeError(
                    f"what is worked out of table {table.name!r} is not what its rows come to: "
                    f"{', '.join(wrong)}"
                )

    def count(self, mirror: Mirror) -> int:
        """How many files lie on a dataset; none on one that is missing."""
        return self._shelves[mirror.index].count if mirror.readable else 0

    def used_bytes(self, mirror: Mirror) -> int:
        """Bytes in a dataset's quarantine."""
        return self._shelves[mirror.index].used_bytes if mirror.readable else 0

    def of_artifact(self, artifact: ArtifactHash) -> Iterator[tuple[Mirror, QuarantinedFile]]:
        """Every quarantined copy of one artifact."""
        for mirror in self._mirrors.readable():
            for file in self._shelves[mirror.index].of(artifact):
                yield mirror, file

    def sizes(self) -> Mapping[ArtifactHash, int]:
        """Artifacts of which copies are in quarantine, with the size of the largest in bytes."""
        readable = self._mirrors.readable()
        if not any(self.count(mirror) for mirror in readable):
            return {}
        key = tuple((mirror.index, self._files[mirror.index].revision) for mirror in readable)
        if self._sizes[0] != key:  # kept until something changes: each status asks
            self._sizes = (key, largest_of(self._shelves[mirror.index] for mirror in readable))
        return self._sizes[1]

    def listing(self) -> tuple[Quarantined, ...]:
        """Everything in quarantine, oldest first; for a thread, since it may be a lot."""
        found: list[Quarantined] = []
        is_needed = needed_by(self._keeper, self._healthy())
        for mirror in self._mirrors.readable():
            files = self._files[mirror.index].rows.values()
            kept = irreplaceable(files, is_needed)
            found += (_listed(mirror, file, last_copy=file.name in kept) for file in files)
        return tuple(gently_sorted(found, key=lambda each: (each.file.time_ms, each.id)))

    def listing_of(self, artifact: ArtifactHash) -> list[Quarantined]:
        """Those of one artifact."""
        is_needed = needed_by(self._keeper, self._healthy())
        return [
            _listed(mirror, file, last_copy=self._is_irreplaceable(mirror, file, is_needed))
            for mirror, file in self.of_artifact(artifact)
        ]

    def find(self, id_: str) -> Quarantined | None:
        """The one that is listed with that id."""
        file = QuarantinedFile.parse(id_.rpartition(".")[0], 0)
        found = self.listing_of(file.artifact) if file else ()
        return next((each for each in found if each.id == id_), None)

    def _is_irreplaceable(self, mirror: Mirror, file: QuarantinedFile, is_needed: Test) -> bool:
        return file.name in irreplaceable(self._shelves[mirror.index].of(file.artifact), is_needed)

    def _healthy(self) -> Sequence[Mirror]:
        # A copy on a dataset that fails may never be read again, and does not count.
        return self._mirrors.healthy()

    def _all(self) -> Sequence[Mirror]:
        # Here it does: the room may be for that very copy, off the disk that fails.
        return self._mirrors.all

    async def refresh(self, mirror: Mirror) -> None:
        """Look what lies on a dataset.

        What is found on a dataset that was looked at before is told like what is set aside now:
        whoever moved it was cancelled before it could.

        Raises:
            OSError, DatasetUnusable: it cannot be told; the state was moved accordingly.
        """
        table = self._files[mirror.index]
        dataset = mirror.dataset
        while True:
            before = table.revision
            found = await mirror.call(quarantine_files.scan)
            rows, shelf, untold = await asyncio.to_thread(_shelved, found, table.rows)
            untold = untold if self._scanned.get(mirror.index) is dataset else []
            for file in untold:
                await self._note_moved(mirror, file.artifact)
            if table.revision == before:  # or what the scan saw is older than what is known
                break
        self._shelves[mirror.index] = shelf
        with self._store.transaction() as change:
            change.replace(table, rows)
        for file in untold:
            self._on_set_aside()
            self.tell("quarantined", mirror, file, {})
        self._scanned[mirror.index] = dataset

    async def _note_moved(self, mirror: Mirror, artifact: ArtifactHash) -> None:
        """Have nobody take a copy for one that somebody has removed."""
        async with self._commits.hold(artifact):
            if artifact not in mirror.artifacts:
                return
            if await mirror.call(Dataset.artifact_size, artifact) is None:
                mirror.record(artifact, None)

    async def refresh_all(self) -> None:
        """Look at every dataset that can be read."""
        for mirror in self._mirrors.readable():
            with suppress(OSError, DatasetUnusable):
                await self.refresh(mirror)

    # Setting aside

    async def settle(self, mirror: Mirror, artifact: ArtifactHash) -> bool:
        """Judge a copy that was found damaged, and set it aside unless it is good after all.

        Tells whether a good copy stands there now. A dataset that cannot be written keeps the
        copy, marked as damaged.
        """
        before = mirror.artifacts.get(artifact)
        async with self._commits.hold(artifact):
            copy = mirror.artifacts.get(artifact)
            if copy is None or not mirror.healthy:
                return False
            if copy is not before and copy.verified_at_s is not None:
                return True  # settled, or replaced, while the lock was waited for
            with suppress(OSError, DatasetUnusable):
                return await self._settle(mirror, artifact)
            return False

    async def clear_name(self, mirror: Mirror, artifact: ArtifactHash) -> bool:
        """Set aside what stands under a name unless it is good; the caller holds the commit lock.

        Raises:
            OSError, DatasetUnusable: it cannot be; the state was moved accordingly.
        """
        return not await self._settle(mirror, artifact)

    async def _settle(self, mirror: Mirror, artifact: ArtifactHash) -> bool:
        size_bytes = await mirror.call(Dataset.artifact_size, artifact)
        if size_bytes is None:
            mirror.gone(artifact)
            return False
        try:
            async with mirror.verifying:
                verdict = await judge_file(mirror, artifact, size_bytes)
        except OSError as error:
            await self._set_aside(mirror, artifact, Reason.UNREADABLE, describe_error(error))
            return False
        match verdict:
            case Verdict.GOOD:
                mirror.record(artifact, Copy(size_bytes, verified_at_s=time.time()))
            case Verdict.GONE:
                mirror.gone(artifact)
            case Verdict.BAD:
                # A device that garbles what it reads would have every good copy set aside.
                if not await works(mirror):
                    return False
                short = self._is_short(artifact, size_bytes)
                reason = Reason.SHORT if short else Reason.MISMATCH
                await self._set_aside(mirror, artifact, reason)
            case Verdict.UNKNOWN:
                pass
        return verdict is Verdict.GOOD

    def _is_short(self, artifact: ArtifactHash, size_bytes: int) -> bool:
        copies = (mirror.artifacts.get(artifact) for mirror in self._mirrors.all)
        return size_bytes == 0 or any(copy and size_bytes < copy.size_bytes for copy in copies)

    async def _set_aside(
        self, mirror: Mirror, artifact: ArtifactHash, reason: Reason, error: str | None = None
    ) -> None:
        name = self.new_name(artifact, reason)
        size_bytes = await mirror.call(quarantine_files.set_aside, artifact, name)
        mirror.record(artifact, None)
        if size_bytes is not None:
            self.note(mirror, name, size_bytes, error)

    def new_name(self, artifact: ArtifactHash, reason: Reason) -> str:
        """Make a name that nothing in any quarantine has."""
        self._last_ms = max(self._last_ms + 1, time.time_ns() // 1_000_000)
        return file_name(artifact, self._last_ms, reason)

    def note(self, mirror: Mirror, name: str, size_bytes: int, error: str | None = None) -> None:
        """Take note of a file that was set aside, unless a look at the dataset came first."""
        if name in self._files[mirror.index]:
            return
        file = QuarantinedFile.parse(name, size_bytes)
        assert file is not None, name
        with self._store.transaction() as change:
            change.put(self._files[mirror.index], name, file)
        self._shelves[mirror.index].add(file)
        self._on_set_aside()
        self.tell("quarantined", mirror, file, {"error": error} if error else {})

    # Letting go

    async def trim(self) -> None:
        """Bring every quarantine within its bound, as far as that may be."""
        for mirror in self._mirrors.healthy():
            over_bytes = self.used_bytes(mirror) - self.limit_bytes
            if over_bytes > 0:
                with suppress(OSError, DatasetUnusable):
                    await self._purge(mirror, over_bytes, "bound", self._healthy)

    def is_in_the_way(self, mirror: Mirror, size_bytes: int) -> bool:
        """Tell whether `make_room` would look for something to purge."""
        lacks_room = mirror.full or mirror.over_quota or not mirror.room_for(size_bytes)
        return lacks_room and self.count(mirror) > 0

    async def make_room(self, mirror: Mirror, size_bytes: int) -> None:
        """Purge what may go, if that makes room on the disk for a write that has none."""
        if not self.is_in_the_way(mirror, size_bytes):
            return
        with suppress(OSError, DatasetUnusable):
            mirror.space = space = await mirror.call(Dataset.space)
            lacking_bytes = size_bytes - space.free_bytes
            if mirror.over_quota:
                # What the filesystem calls free may be refused all the same.
                lacking_bytes = max(size_bytes, 1)
                mirror.made_room()
            if lacking_bytes > 0 or space.free_inodes == 0:
                await self._purge(mirror, max(lacking_bytes, 1), "space", self._all)
                mirror.space = await mirror.call(Dataset.space)

    async def _purge(
        self,
        mirror: Mirror,
        need_bytes: int,
        why: str,
        counting: Callable[[], Sequence[Mirror]],
    ) -> None:
        choose = partial(
            choose_to_purge,
            is_needed=needed_by(self._keeper, counting()),
            is_wanted=wanted_by(self._keeper),
        )
        files = self._files[mirror.index].rows.values()
        for file in await asyncio.to_thread(choose, files, need_bytes):
            # Asked again: the last good copy may have gone while the disk was busy.
            if not self._is_irreplaceable(mirror, file, needed_by(self._keeper, counting())):
                await self.purge(mirror, file, why)

    async def purge(self, mirror: Mirror, file: QuarantinedFile, why: str) -> None:
        """Delete one.

        Raises:
            OSError, DatasetUnusable: the state was moved accordingly.
        """
        await mirror.call(quarantine_files.purge, file)
        self.forget(mirror, file)
        self.tell("quarantine_purged", mirror, file, {"why": why})

    def forget(self, mirror: Mirror, file: QuarantinedFile) -> None:
        """Take note that a file left the quarantine."""
        with self._store.transaction() as change:
            change.delete(self._files[mirror.index], file.name)
        self._shelves[mirror.index].remove(file)

    def tell(
        self, kind: str, mirror: Mirror, file: QuarantinedFile, more: dict[str, object]
    ) -> None:
        """Record an event about a file."""
        fields = {
            "sha256": str(file.artifact),
            "dataset": str(mirror.path),
            "reason": str(file.reason),
            "size_bytes": file.size_bytes,
        }
        self._emit(kind, {**fields, **more})


def _listed(mirror: Mirror, file: QuarantinedFile, *, last_copy: bool) -> Quarantined:
    path, id_ = str(mirror.path / file.path), f"{file.name}.{mirror.index + 1}"
    return Quarantined(id_, mirror.index, file, str(mirror.path), path, last_copy)


def _shelved(
    found: Sequence[QuarantinedFile], known: Mapping[str, QuarantinedFile]
) -> tuple[Mapping[str, QuarantinedFile], Shelf, list[QuarantinedFile]]:
    """What a scan found as rows and on a shelf, and those of it that were not known."""
    rows = PersistentMap.of({file.name: file for file in found})
    return rows, Shelf(found), [file for file in found if file.name not in known]
