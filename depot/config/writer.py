"""The ledger and the pins onto every dataset that can be written, at once.

A failure moves the state of the dataset that it happened on, which comes back through a reading of
what it has. Where one dataset at least has taken a document, the others' failures are not told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import count

from depot.config.reader import Reader
from depot.dataset.dataset import Dataset
from depot.errors import DatasetUnusable, Io, NoDataset, QuotaExceeded
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.os_errors import full_disk

Outcome = OSError | DatasetUnusable | None
_Write = Callable[[Dataset, str, bytes, int], None]


class Writer:
    """Writes documents to the datasets of a store. One call at a time: the order is kept."""

    def __init__(self, mirrors: MirrorSet, reader: Reader) -> None:
        self._mirrors = mirrors
        self._reader = reader
        self._turns = count(1)

    async def write(self, name: str, content: bytes) -> int:
        """Replace a document, for a request; tell on how many datasets.

        Raises:
            NoDataset, QuotaExceeded, Io: on none.
        """
        return await self._renew(Dataset.write_document, name, content)

    async def ensure(self, name: str, content: bytes) -> int:
        """As `write`, where it is not known to be there already."""
        return await self._renew(Dataset.ensure_document, name, content)

    async def spread(
        self, name: str, content: bytes, joining: Sequence[Mirror] = ()
    ) -> list[Outcome]:
        """Have every healthy dataset have a document, and those that come back."""
        turn = next(self._turns)
        return await self._each(
            lambda m: m.call(Dataset.ensure_document, name, content, turn), joining
        )

    async def _renew(self, write: _Write, name: str, content: bytes) -> int:
        turn = next(self._turns)

        async def renew(mirror: Mirror) -> None:
            await mirror.call(write, name, content, turn)
            self._reader.written(mirror, name)

        return _holders(await self._each(renew))

    async def _each(
        self, work: Callable[[Mirror], Awaitable[None]], joining: Sequence[Mirror] = ()
    ) -> list[Outcome]:
        async def attempt(mirror: Mirror) -> Outcome:
            try:
                await work(mirror)
            except (OSError, DatasetUnusable) as error:
                return error
            return None

        # One that was full is healthy while it comes back: it is both, and is written to once.
        returning = [mirror for mirror in joining if mirror.joining and not mirror.healthy]
        return await asyncio.gather(*map(attempt, [*self._mirrors.healthy(), *returning]))


def _holders(outcomes: Sequence[Outcome]) -> int:
    failures = [outcome for outcome in outcomes if outcome is not None]
    if len(failures) < len(outcomes):
        return len(outcomes) - len(failures)
    if all(isinstance(e, DatasetUnusable) for e in failures):
        raise NoDataset("no dataset is there to be written")
    if all(isinstance(e, OSError) and full_disk(e) for e in failures):
        raise QuotaExceeded("every dataset is full, also its reserve for metadata")
    raise Io("no dataset could write it")
