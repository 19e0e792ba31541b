"""What an operator does to datasets: let go of one, take it back, put an empty disk in its place.

Rules kept here:
- A released dataset is left alone until it is attached again or the process starts anew: nothing of
  ours is open on it, so it can be unmounted and pulled.
- A disk takes another one's place only when it is empty (`depot.dataset.adopt`), and only while
  some other dataset can be read: that one knows the sled, the ledger and the artifacts.
- What was replaced is retired. Its disk is not taken back by itself; `attach` takes it back, and
  then its copies are verified before they count. Its ledger is compared by rank like any (G1).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Final

from depot.config.keeper import EventSink
from depot.dataset.adopt import adopt
from depot.dataset.disk import DiskOf
from depot.dataset.marker import Marker
from depot.errors import DatasetRefused, DatasetUnusable, NoDataset, NotFound
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.os_errors import describe_error

_RELEASED: Final = "released by an operator; 'sled-agent datasets attach' takes it back"


class DatasetDesk:
    """Changes which datasets are in use.

    Args:
        look: looks at a mirror now, attaching what can be attached.
    """

    def __init__(
        self,
        mirrors: MirrorSet,
        look: Callable[[Mirror], Awaitable[None]],
        disk_of: DiskOf,
        on_event: EventSink,
    ) -> None:
        self._mirrors = mirrors
        self._look = look
        self._disk_of = disk_of
        self._emit = on_event
        self._changing = asyncio.Lock()

    async def release(self, path: Path, *, last: bool = False) -> None:
        """Let go of the dataset at `path`, so that it can be unmounted. Idempotent.

        What runs on it goes on with the other dataset or fails. Only with `last` when no other
        dataset can be read.

        Raises:
            NotFound, DatasetRefused.
        """
        mirror = self._mirror(path)
        others = [other for other in self._mirrors.readable() if other is not mirror]
        if mirror.readable and not others and not last:
            raise DatasetRefused(
                "it is the last dataset that can be read: without it this sled serves nothing and "
                "takes nothing; bring another one back first, or release it as the last one"
            )
        await mirror.release(_RELEASED)

    async def attach(self, path: Path) -> None:
        """Take a released or retired dataset back into use. Idempotent.

        One that was released, and is refused, stays released: whatever comes to stand at its path
        is taken into use only when somebody asks again.

        Raises:
            NotFound: no dataset is configured at `path`.
            DatasetRefused: what is there cannot be used; the message says why.
        """
        mirror = self._mirror(path)
        was_released = mirror.released
        mirror.reclaim()
        mirror.pardoned = True
        try:
            await self._look(mirror)
            self._require_use(mirror)
        except DatasetRefused:
            # One that hangs is still being attached: that is to be ended, not left half-done.
            if was_released and not self._mirrors.is_attaching(mirror):
                await mirror.release(_RELEASED)
            raise
        finally:
            mirror.pardoned = False
        async with self._changing:
            await self._know_each_other(retired=())

    async def replace(self, path: Path, *, plain_directory: bool = False) -> str:
        """Adopt the empty disk at `path` in place of the dataset that was there; its UUID.

        Everything is re-mirrored onto it in the background. `plain_directory` says that the path
        is meant to be no mount although others are.

        Raises:
            NotFound, NoDataset, DatasetRefused.
        """
        mirror = self._mirror(path)
        async with self._changing:
            await self._look(mirror)
            if mirror.readable:
                raise DatasetRefused(
                    "the dataset there is in use: nothing is replaced. To change its disk: "
                    "'datasets release', unmount it, mount the empty disk there, and then "
                    "'datasets replace'"
                )
            marker = self._new_marker(mirror)
            await self._adopt(mirror, marker, plain_directory=plain_directory)
            mirror.reclaim()
            await self._look(mirror)
            await self._know_each_other(retired=marker.retired)
        self._emit(
            "dataset_replaced",
            {
                "dataset": str(path),
                "dataset_id": marker.dataset_id,
                "retired": sorted(set(marker.retired)),
            },
        )
        self._require_use(mirror)
        return marker.dataset_id

    def _mirror(self, path: Path) -> Mirror:
        for mirror in self._mirrors.all:
            if mirror.path == path:
                return mirror
        raise NotFound("no dataset is configured at that path")

    def _new_marker(self, mirror: Mirror) -> Marker:
        others = self._known()
        if not others:
            raise NoDataset(
                "no other dataset can be read, so there is nothing to mirror from; bring one back "
                "first (with the agent stopped, 'sled-agent init' begins anew with empty disks)"
            )
        ids = {other.dataset_id for other in others}
        gone = {sibling for other in others for sibling in other.siblings} - ids
        replaced = _replaced(mirror, gone)
        retired = {name for other in others for name in other.retired} | replaced
        return Marker(
            dataset_id=str(uuid.uuid4()),
            siblings=tuple(sorted(ids | gone - replaced - retired)),
            sled_id=others[0].sled_id,
            retired=tuple(sorted(retired)),
        )

    def _known(self) -> list[Marker]:
        markers = (mirror.marker for mirror in self._mirrors.readable())
        return [marker for marker in markers if marker is not None]

    async def _adopt(self, mirror: Mirror, marker: Marker, *, plain_directory: bool) -> None:
        expects_mount = not plain_directory and self._mirrors.expects_mount(mirror)
        disk = self._disk_of(mirror.path)
        try:
            mirror.host.start()
            await mirror.host.ready()
            await mirror.wait(
                mirror.begin(adopt, mirror.path, marker, expects_mount=expects_mount, disk=disk)
            )
        except DatasetUnusable as error:
            raise self._refused(str(error)) from error
        except OSError as error:
            raise self._refused(f"{mirror.path}: {describe_error(error)}") from error

    def _require_use(self, mirror: Mirror) -> None:
        if not mirror.readable:
            # The reason may begin with the path again.
            reason = (mirror.last_error or "no reason known").removeprefix(f"{mirror.path}: ")
            rest = reason.removeprefix(f"{mirror.path} ")
            reason = reason if rest == reason else f"it {rest}"
            raise self._refused(f"{mirror.path} cannot be used: {reason}")

    def _refused(self, message: str) -> DatasetRefused:
        # The index, not the path: this message is on the wire (S4).
        for mirror in self._mirrors.all:
            message = message.replace(str(mirror.path), f"dataset {mirror.index + 1}")
        return DatasetRefused(message)

    async def _know_each_other(self, retired: Collection[str]) -> None:
        """Tell every dataset that can be written who its siblings are now, and who is retired."""
        markers = self._known()
        ids = {marker.dataset_id for marker in markers}
        gone = {sibling for marker in markers for sibling in marker.siblings} - ids
        every = {name for marker in markers for name in marker.retired} | set(retired)
        for mirror in self._mirrors.healthy():
            if mirror.marker is not None:
                await mirror.write_marker(
                    replace(
                        mirror.marker,
                        siblings=tuple(sorted((ids | gone - every) - {mirror.marker.dataset_id})),
                        retired=tuple(sorted(every - ids)),
                    )
                )


def _replaced(mirror: Mirror, gone: Collection[str]) -> set[str]:
    """Which dataset's place it is: the one last seen there, else the only one that is away."""
    last = mirror.marker.dataset_id if mirror.marker else None
    if last in gone:
        return {str(last)}
    return set(gone) if len(gone) == 1 else set()
