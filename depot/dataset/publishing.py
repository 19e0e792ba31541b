"""Giving artifacts their files on one dataset, durably, as many at once as there are.

Runs where the device is touched. The rules of one put hold for each of a batch: contents are
durable before they get a name, names before anybody is told, and what stands under a name and is
not known to be good is set aside first (B6). What only one entry can get wrong is its own; a sync
that fails fails them all, since it says of none of them that it is durable.

One `syncfs` makes many contents durable. It is used where the filesystem carries it out and reports
what failed, and as long as not much else waits to be written back, which it would take along.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Final, NamedTuple, Protocol, Self

from depot.artifact import ArtifactHash
from depot.dataset import quarantine_files, small_files
from depot.dataset.dataset import Dataset
from depot.dataset.staging_names import new_staged_name
from depot.os_errors import SyncFailed

MODE: Final = 0o444
MOST_DIRTY_BYTES: Final = 32 << 20
"""What may wait to be written back, of whomever, when all of it is for the sake of a few files."""


class Entry(NamedTuple):
    """An artifact that is to get its file; crosses to another process by the hundred.

    Attributes:
        staged: a synced file that becomes it; empty: `content` is to be written first.
        aside: the name in the quarantine for what stands under the artifact's name; None: that is
            known to be good, and is replaced.
    """

    artifact: ArtifactHash
    staged: str
    content: bytes
    aside: str | None


class Batch(tuple[Entry, ...]):
    """Entries on their way to another process, which takes them a tenth of the time like this."""

    __slots__ = ()

    def __reduce__(self) -> tuple[object, ...]:
        """Cross column by column."""
        return _batch_of, (
            b"".join([entry.artifact for entry in self]),
            [entry.staged for entry in self],
            [entry.content for entry in self],
            [entry.aside for entry in self],
        )


def _batch_of(
    digests: bytes,
    staged: Sequence[str],
    contents: Sequence[bytes],
    asides: Sequence[str | None],
) -> Batch:
    return Batch(map(Entry, ArtifactHash.divide(digests), staged, contents, asides))


class Published(NamedTuple):
    """The artifact's file is there for good.

    Attributes:
        aside_bytes: size of what was set aside for it; None: nothing was.
    """

    aside_bytes: int | None


_WHERE_NOTHING_WAS: Final = Published(None)
"""One for all, which crosses to another process once."""


@dataclass(slots=True)
class _Item:
    entry: Entry
    staged: str
    named: bool = False
    clearing: bool = False
    aside_bytes: int | None = None
    failure: OSError | None = None

    @property
    def was_cleared_in_vain(self) -> bool:
        """It failed after something else may have lost the name for its sake."""
        return self.clearing and self.failure is not None

    def failing_alone(self) -> Self:
        """Keep what goes wrong in a block as this one's failure, unless it is everybody's."""
        return self  # three times for each of a batch, so no generator

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> bool:
        if not isinstance(error, OSError) or isinstance(error, SyncFailed):
            return False
        self.failure = error
        return True


def publish(dataset: Dataset, entries: Sequence[Entry]) -> list[Published | OSError]:
    """Give each entry its name, durably, or say why it has none; in the order given.

    No artifact may come twice. Of an entry that failed nothing is left that was written here, and
    what was set aside for it has its name again.

    Raises:
        OSError, DatasetUnusable: no entry has its name for good. After SyncFailed what was named is
            taken back, and not counted until it is; what was set aside is found in the quarantine.
    """
    items = [_Item(entry, entry.staged) for entry in entries]
    try:
        dataset.check_identity()
        _write(dataset, [item for item in items if not item.staged])
        _clear_names(dataset, _left(items))
        _give_names(dataset, items)
    finally:
        _discard(dataset, [item for item in items if not (item.named or item.entry.staged)])
    return [item.failure or _published(item.aside_bytes) for item in items]


def _published(aside_bytes: int | None) -> Published:
    return _WHERE_NOTHING_WAS if aside_bytes is None else Published(aside_bytes)


def _left(items: Sequence[_Item]) -> list[_Item]:
    return [item for item in items if item.failure is None]


def _write(dataset: Dataset, items: Sequence[_Item]) -> None:
    if not items:
        return
    with ExitStack() as stack:
        contents = _contents(dataset, len(items), stack)
        for item in items:
            item.staged = new_staged_name()
            with item.failing_alone():
                contents.write(item.staged, item.entry.content)
        if _left(items):
            contents.sync()
    dataset.check_identity()  # that took a while


def _clear_names(dataset: Dataset, items: Sequence[_Item]) -> None:
    for item in items:
        if item.entry.aside is not None:
            item.clearing = True
            with item.failing_alone():
                item.aside_bytes = quarantine_files.move_aside(
                    dataset, item.entry.artifact, item.entry.aside
                )


def _give_names(dataset: Dataset, items: Sequence[_Item]) -> None:
    left = _left(items)
    if not left and not any(item.was_cleared_in_vain for item in items):
        return
    with dataset.naming([item.entry.artifact for item in left]) as unnamed:
        for item in left:
            artifact = item.entry.artifact
            with item.failing_alone():
                dataset.disk.rename(item.staged, str(artifact), dir_fd=dataset.root)
                unnamed.discard(artifact)
                item.named = True
        for item in items:
            if item.was_cleared_in_vain:
                _put_back(dataset, item)


def _put_back(dataset: Dataset, item: _Item) -> None:
    artifact, aside = item.entry.artifact, item.entry.aside
    assert aside is not None
    with item.failing_alone():  # what has no name then is found in the quarantine
        quarantine_files.put_back(dataset, artifact, aside)


def _discard(dataset: Dataset, items: Sequence[_Item]) -> None:
    for item in items:
        if item.staged:
            with suppress(OSError):  # the next attach clears the staging directory
                dataset.discard(item.staged)


class _Contents(Protocol):
    """Writes files and makes them durable."""

    def write(self, name: str, content: bytes) -> None: ...

    def sync(self) -> None: ...


def _contents(dataset: Dataset, count: int, stack: ExitStack) -> _Contents:
    # Asked last: it takes longer than to make one file durable.
    if count > 1 and dataset.syncs_whole and dataset.disk.dirty_bytes() <= MOST_DIRTY_BYTES:
        # A description of its own, from before the first byte: a failure is reported once to each.
        root = stack.enter_context(small_files.directory(dataset.root, ".", dataset.disk))
        return _Together(dataset, root)
    return _OneByOne(dataset, stack)


class _OneByOne:
    def __init__(self, dataset: Dataset, stack: ExitStack) -> None:
        self._dataset = dataset
        self._stack = stack
        self._fds: list[int] = []

    def write(self, name: str, content: bytes) -> None:
        fd = _create(self._dataset, name)
        self._stack.callback(os.close, fd)
        _fill(self._dataset, fd, content)
        self._fds.append(fd)

    def sync(self) -> None:
        for fd in self._fds:
            self._dataset.sync(fd)


class _Together:
    def __init__(self, dataset: Dataset, root: int) -> None:
        self._dataset = dataset
        self._root = root

    def write(self, name: str, content: bytes) -> None:
        fd = _create(self._dataset, name)
        try:
            _fill(self._dataset, fd, content)
        finally:
            os.close(fd)

    def sync(self) -> None:
        self._dataset.sync_whole(self._root)


def _create(dataset: Dataset, name: str) -> int:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    return dataset.disk.open(name, flags, MODE, dir_fd=dataset.root)


def _fill(dataset: Dataset, fd: int, content: bytes) -> None:
    small_files.write_all(fd, memoryview(content), dataset.disk)
    if stat.S_IMODE(os.fstat(fd).st_mode) != MODE:  # whatever the umask; not a change for nothing
        os.fchmod(fd, MODE)
