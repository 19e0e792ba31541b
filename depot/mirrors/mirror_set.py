"""All datasets of a store: which are there, attaching those that come, watching those that are.

Several agents on one dataset, or another sled's disk in the slot, are kept out here: only a dataset
with this sled's marker whose lock could be taken becomes part of the set.

Of copies of one artifact that differ in size one at least is bad, and without a record of it nobody
can tell which. So, from the moment they are known, those that were never verified are in doubt.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from itertools import compress
from typing import Final, Self

from depot.artifact import ArtifactHash
from depot.concurrency.threads import waiting_for
from depot.dataset.attaching import Attachment, attach
from depot.dataset.disk import DiskOf
from depot.dataset.found_files import FoundFiles
from depot.dataset.marker import Marker
from depot.device.host import Host
from depot.device.resident import let_go
from depot.errors import DatasetBusy, DatasetUnusable, NoDataset
from depot.mirrors import records
from depot.mirrors.inventory import Copy, Stock, differing, is_good, take_stock
from depot.mirrors.mirror import Mirror
from depot.os_errors import describe_error

_HELD_ON_LOOKS: Final = 10
_HELD_ON_LOOK_S: Final = 0.1
CLOSE_TIMEOUT_S: Final = 1.0
"""How long a dataset that comes back waits for its old descriptors; a dead device keeps them."""

Recall = Callable[[int, str, FoundFiles], Awaitable[Mapping[ArtifactHash, Copy]]]


async def recall_nothing(
    _index: int, _dataset_id: str, files: FoundFiles
) -> Mapping[ArtifactHash, Copy]:
    """Know of each file only that it is there."""
    return {artifact: Copy(size_bytes) for artifact, size_bytes in files.sizes()}


@dataclass(frozen=True, slots=True)
class _Attaching:
    """An attach that runs, and the one future in which the event loop waits for it."""

    call: Future[Attachment]
    waiting: asyncio.Future[Attachment]

    @classmethod
    def of(cls, call: Future[Attachment]) -> Self:
        return cls(call, waiting_for(call))


class MirrorSet:
    """The mirrors of a store, in the order of the configuration.

    Args:
        sled_id: the sled whose datasets these are; None: whoever the first marker names.
        disk_of: the disk behind each path.
        recall: what is known of the files on the dataset of that index and UUID, as copies.

    Attributes:
        doubted: UUIDs of datasets, also of those that are away, whose copies are not believed.
    """

    def __init__(
        self,
        mirrors: Sequence[Mirror],
        *,
        require_mountpoint: bool,
        sled_id: str | None,
        disk_of: DiskOf,
        recall: Recall = recall_nothing,
    ) -> None:
        self.all = tuple(mirrors)
        self.sled_id = sled_id
        self._require_mountpoint = require_mountpoint
        self._disk_of = disk_of
        self._recall = recall
        self.doubted: frozenset[str] = frozenset()
        self._attaching: dict[int, _Attaching] = {}
        self._comparing = asyncio.Lock()
        self._appeared: set[ArtifactHash] = set()

    def healthy(self) -> list[Mirror]:
        """Those that can be read and written."""
        return [mirror for mirror in self.all if mirror.healthy]

    def readable(self) -> list[Mirror]:
        """Those that can be read, the healthy ones first."""
        return sorted((m for m in self.all if m.readable), key=lambda mirror: not mirror.healthy)

    def check_inventories(self) -> None:
        """See `records.check_inventory`."""
        for mirror in self.all:
            records.check_inventory(mirror)

    def require_readable(self) -> None:
        """Raise NoDataset when none can be read."""
        if not any(mirror.readable for mirror in self.all):
            raise NoDataset(f"no dataset can be read: {self._reasons()}")

    def require_healthy(self) -> None:
        """Raise NoDataset when none can be written."""
        if not any(mirror.healthy for mirror in self.all):
            raise NoDataset(f"no dataset can be written: {self._reasons()}")

    def share_a_device(self) -> bool:
        """Tell whether two datasets share a device, so that one failure takes both."""
        devices = [mirror.dataset.device_id for mirror in self.readable()]
        return len(set(devices)) < len(devices)

    async def attach(self, mirror: Mirror) -> None:
        """Try to attach a missing mirror; the reason is recorded when it cannot be.

        Raises:
            DatasetBusy: another process uses the dataset (also recorded).
        """
        if await self._begun(mirror):
            await self._take_in(mirror)

    async def _begun(self, mirror: Mirror) -> bool:
        """Begin to attach it, unless that runs; False, with the reason recorded: it cannot be."""
        if mirror.index in self._attaching:
            return True
        await _released(mirror)
        try:
            mirror.host.start()
            await mirror.host.ready()
        except DatasetUnusable as error:
            mirror.last_error = str(error)
            return False
        disk = self._disk_of(mirror.path)
        begun = mirror.begin(attach, mirror.path, self._require_mountpoint, self.sled_id, disk)
        self._attaching[mirror.index] = _Attaching.of(begun)
        return True

    async def _take_in(self, mirror: Mirror) -> None:
        """Wait for an attach that was begun, and take in what it found."""
        # A hung attach is awaited again at the next try, never started twice.
        attaching = self._attaching[mirror.index].call
        await asyncio.wait((self._attaching[mirror.index].waiting,), timeout=mirror.timeout_s)
        if not attaching.done():
            mirror.last_error = describe_error(OSError(errno.ETIMEDOUT, ""))
            return
        del self._attaching[mirror.index]
        try:
            await self._admit(mirror, attaching.result())
        except DatasetBusy as error:
            mirror.last_error = str(error)
            raise
        except DatasetUnusable as error:
            mirror.last_error = str(error)
        except OSError as error:
            mirror.last_error = describe_error(error)

    def is_attaching(self, mirror: Mirror) -> bool:
        """Tell whether an attach of it has not ended yet: its device does not answer."""
        return mirror.index in self._attaching

    async def attach_all(self, known_sled_id: str | None) -> None:
        """Attach every dataset that is there, at boot.

        `known_sled_id` names the sled this node was before, for when none is configured: another
        sled's disk in the first slot does not decide whose datasets these are (G1).

        Raises:
            DatasetBusy: other processes use all of them.
        """
        configured = self.sled_id
        self.sled_id = configured or known_sled_id
        await self._attach_each()
        if not self.readable() and self.sled_id != configured:
            self.sled_id = configured  # nothing of that sled is left here
            await self._attach_each()
        self.sled_id = self.sled_id or known_sled_id

    async def _attach_each(self) -> None:
        for mirror in self.all:
            mirror.host.start()  # all at once: a process takes a while to be ready
        busy = await self._attach_those(self.all)
        for _ in range(_HELD_ON_LOOKS):
            if not busy:
                return
            # An agent that was killed has just left them: its workers are about to end.
            await asyncio.sleep(_HELD_ON_LOOK_S)
            busy = await self._attach_those(busy)
        if len(busy) == len(self.all):
            raise next(iter(busy.values()))

    async def _attach_those(self, mirrors: Collection[Mirror]) -> dict[Mirror, DatasetBusy]:
        """Look at them side by side, and take in one after the other; those that others hold."""
        busy: dict[Mirror, DatasetBusy] = {}
        # Without a known sled the first one decides, so nothing is done with the others before.
        together = [mirrors] if self.sled_id is not None else [[mirror] for mirror in mirrors]
        for some in together:
            begun = await asyncio.gather(*map(self._begun, some))
            for mirror in compress(some, begun):
                try:
                    await self._take_in(mirror)
                except DatasetBusy as error:
                    busy[mirror] = error
        return busy

    async def close(self) -> None:
        """Release every dataset."""
        for index, attaching in self._attaching.items():
            attaching.call.add_done_callback(partial(_close_late, self.all[index].host))
        await asyncio.gather(*(mirror.close() for mirror in self.all))

    async def _admit(self, mirror: Mirror, attachment: Attachment) -> None:
        dataset = attachment.dataset
        if refusal := self._refusal(mirror, dataset.marker):
            mirror.begin(let_go, dataset)
            raise DatasetUnusable(f"{mirror.path} {refusal}")
        self.sled_id = dataset.marker.sled_id
        try:
            for other in self.readable():
                await asyncio.to_thread(attachment.files.share, other.artifacts.rows)
            copies = await self._recall(mirror.index, dataset.marker.dataset_id, attachment.files)
            stock = await asyncio.to_thread(take_stock, copies)
            async with self._comparing:  # or two that come at once are not compared
                await self._enter(mirror, attachment, stock)
        except BaseException:
            mirror.begin(let_go, dataset)
            raise

    async def _enter(self, mirror: Mirror, attachment: Attachment, stock: Stock) -> None:
        dataset = attachment.dataset
        self._appeared.clear()
        others = [other.inventory.good.copy() for other in self.readable()]
        differ = await asyncio.to_thread(differing, stock.inventory.good, others)
        if refusal := self._refusal(mirror, dataset.marker):  # all that took a while
            raise DatasetUnusable(f"{mirror.path} {refusal}")
        mirror.was_mount = attachment.mounted
        mirror.space = attachment.space
        doubtful = dataset.marker.dataset_id in self.doubted or self._is_retired(dataset.marker)
        mirror.attached(dataset, stock, attachment.problem, doubtful=doubtful)
        self._doubt_differing(differ | self._appeared)

    def note(
        self, mirror: Mirror, artifact: ArtifactHash, before: Copy | None, after: Copy | None
    ) -> None:
        """Compare a copy that has appeared with those on the other datasets; of `on_record`."""
        if after is None or not is_good(artifact, after):
            return
        if before is not None and before.size_bytes == after.size_bytes and not before.damaged:
            return
        if self._comparing.locked():
            self._appeared.add(artifact)
        for other in self.all:
            copy = None if other is mirror else other.artifacts.get(artifact)
            if copy is not None and copy.size_bytes != after.size_bytes:
                self._doubt_differing((artifact,))
                return

    def _doubt_differing(self, artifacts: Iterable[ArtifactHash]) -> None:
        """Have copies that were never verified in doubt where there is one of another size."""
        doubted: dict[Mirror, dict[ArtifactHash, Copy]] = {mirror: {} for mirror in self.all}
        for artifact in artifacts:
            copies = [(mirror, mirror.good_copy(artifact)) for mirror in self.all]
            good = [(mirror, copy) for mirror, copy in copies if copy is not None]
            if len({copy.size_bytes for _, copy in good}) > 1:
                for mirror, copy in good:
                    if copy.verified_at_s is None:
                        doubted[mirror][artifact] = copy
        for mirror, those in doubted.items():
            records.doubt(mirror, those)

    def _refusal(self, mirror: Mirror, marker: Marker) -> str | None:
        """Why what was found at a path is not taken in; None when it is."""
        if mirror.released:
            return "was released meanwhile"
        # Two paths may have raced for the first marker: the second is checked against it here.
        if self.sled_id not in (None, marker.sled_id):
            return f"belongs to sled {marker.sled_id}, not {self.sled_id}"
        for other in self.readable():
            if other.marker is not None and other.marker.dataset_id == marker.dataset_id:
                return (
                    f"holds dataset {marker.dataset_id} and so does {other.path}: one is a copy of "
                    "the other's disk; empty this one, then 'sled-agent datasets replace'"
                )
        if self._is_retired(marker) and not mirror.pardoned:
            return (
                f"holds dataset {marker.dataset_id}, which another disk has replaced; 'sled-agent "
                "datasets attach' takes it back, or empty it, then 'sled-agent datasets replace'"
            )
        return None

    def _is_retired(self, marker: Marker) -> bool:
        markers = (other.marker for other in self.readable())
        return any(known is not None and marker.dataset_id in known.retired for known in markers)

    def note_doubts(self) -> None:
        """Bring `doubted` up to date."""
        now = {m.marker.dataset_id for m in self.all if m.marker and m.doubtful}
        settled = {m.marker.dataset_id for m in self.readable() if m.marker and not m.doubtful}
        self.doubted = (self.doubted - settled) | now

    def expects_mount(self, mirror: Mirror) -> bool:
        """Tell whether the path is to be a mount of its own, as far as can be known."""
        others = (other.was_mount for other in self.all)
        return self._require_mountpoint or mirror.was_mount or any(others)

    def _reasons(self) -> str:
        # The index, not the path: this message is on the wire (S4).
        return "; ".join(f"dataset {m.index + 1} is {m.state}" for m in self.all)


async def _released(mirror: Mirror) -> None:
    """Wait, once, for the old descriptors, or our lock would be taken for another process's."""
    closing, mirror.closing = mirror.closing, None
    if closing is not None:
        await asyncio.wait((waiting_for(closing),), timeout=CLOSE_TIMEOUT_S)


def _close_late(host: Host, attaching: Future[Attachment]) -> None:
    if not attaching.cancelled() and attaching.exception() is None:
        host.submit(let_go, attaching.result().dataset)
