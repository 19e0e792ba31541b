"""What a write has staged and nobody names: removed, and its space given back only then (Q1).

A dataset that left is not touched: the next attach clears its staging directory. One that hangs is
waited for no longer than its mirror is, or not at all when it is known (B4); the removal goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Future

from depot.concurrency.threads import waiting_for
from depot.dataset.dataset import Dataset
from depot.mirrors.mirror import Mirror
from depot.mirrors.quota import Reservation
from depot.writing.ingest import Ingested, StagedCopy
from depot.writing.lanes import Target


async def discard(mirror: Mirror, file: StagedCopy, reservations: dict[int, Reservation]) -> None:
    """Remove a staged file, and take what is reserved for it out of `reservations`."""
    if not mirror.has(file.dataset):
        return  # the next attach clears the staging directory
    discarding = mirror.begin(Dataset.discard, file.dataset, file.name)
    if reservation := reservations.pop(mirror.index, None):
        _release_after(discarding, reservation)
    if mirror.healthy:  # or it may hang, and has been waited for already (B4)
        # It goes on when it takes too long, and when the put is cancelled.
        await asyncio.wait((waiting_for(discarding),), timeout=mirror.timeout_s)


def discard_late(
    targets: Mapping[int, Target],
    reservations: Mapping[int, Reservation],
    running: Future[Ingested],
) -> None:
    """Remove what an ingest staged that nobody waited for, once it has ended."""
    # It has no owner any more; a dataset that left is cleared when it is attached.
    known = not running.cancelled() and running.exception() is None
    staged = running.result().staged if known else {}
    for index, reservation in reservations.items():
        if file := staged.get(index):
            discarding = targets[index].host.submit(Dataset.discard, file.dataset, file.name)
            _release_after(discarding, reservation)
        else:
            reservation.release()


def _release_after(discarding: Future[None], reservation: Reservation) -> None:
    # Until then the bytes are on the disk (Q1).
    discarding.add_done_callback(lambda _: reservation.release())
