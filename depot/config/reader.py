"""What every dataset says: its ledger and its pins, read when somebody has to know.

A dataset that cannot be read is not one that says nothing: each of its documents is then `unseen`,
with the reason, and the reason stays told until the document was read or written.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Final

from depot.artifact import ArtifactConfig, ArtifactHash, shared
from depot.config.ledger import LEDGER_NAME, Ledger, decode_ledger
from depot.config.pins import PINS_NAME, PinBook, decode_pins
from depot.dataset.dataset import Dataset
from depot.dataset.small_files import METADATA
from depot.document import Unreadable
from depot.errors import DatasetUnusable, FormatTooNew
from depot.mirrors.condition import MirrorState
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet

PINS_DOCUMENT: Final = f"{METADATA}/{PINS_NAME}"
"""Where a dataset has its pins."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one dataset says; `unseen` when its ledger cannot be read, `unpinned` its pins.

    Attributes:
        device_failed: one of them could not be read at all, which may go better another time.
    """

    ledger: Ledger | None
    book: PinBook | None = None
    unseen: str | None = None
    unpinned: str | None = None
    device_failed: bool = False


class Reader:
    """Reads the ledgers and the pins of a store's datasets."""

    def __init__(self, mirrors: MirrorSet) -> None:
        self._mirrors = mirrors
        self._kept: dict[int, tuple[Dataset, Reading]] = {}
        self._troubles: dict[tuple[int, str], str] = {}  # by dataset and document

    @property
    def troubles(self) -> tuple[str, ...]:
        """Which documents could not be read, and why, for the status."""
        return tuple(self._troubles.values())

    async def read_all(self) -> list[Reading]:
        """Read what each dataset says, in their order."""
        every = self._mirrors.all
        held = [mirror.artifacts.rows for mirror in every]
        ledgers = _Ledgers(self._mirrors.sled_id, held)
        readings = await asyncio.gather(*(self._reading(mirror, ledgers) for mirror in every))
        self._troubles = {
            (mirror.index, name): trouble
            for mirror, found in zip(every, readings, strict=True)
            for name, trouble in ((LEDGER_NAME, found.unseen), (PINS_DOCUMENT, found.unpinned))
            if trouble is not None
        }
        return readings

    def written(self, mirror: Mirror, name: str) -> None:
        """Note that a document was written anew: what was wrong with it is over."""
        self._troubles.pop((mirror.index, name), None)
        dataset, kept = self._kept.get(mirror.index, (None, None))
        if dataset is not None and kept is not None:  # or a suspect's would be told of again
            mended = (
                replace(kept, unseen=None) if name == LEDGER_NAME else replace(kept, unpinned=None)
            )
            self._kept[mirror.index] = (dataset, mended)

    async def _reading(self, mirror: Mirror, ledgers: _Ledgers) -> Reading:
        # What is suspect was read when it was attached and nothing was written to it since. Its
        # device may hang, and whoever waits here holds up the others (B4).
        if mirror.state is MirrorState.SUSPECT and not mirror.joining:
            dataset, kept = self._kept.get(mirror.index, (None, None))
            if kept is not None and dataset is mirror.dataset:
                return kept
        reading = await _read(mirror, ledgers)
        if mirror.readable:
            self._kept[mirror.index] = (mirror.dataset, reading)
        return reading


async def _read(mirror: Mirror, ledgers: _Ledgers) -> Reading:
    if not mirror.readable:
        return Reading(None, unseen=f"dataset {mirror.path} is missing: {mirror.last_error}")
    try:
        book, unpinned = await _read_pins(mirror)
        ledger, unseen = await _read_ledger(mirror, ledgers)
    except FormatTooNew as error:
        mirror.detach(str(error))  # an older program must not write what it cannot read
        return Reading(None, unseen=f"dataset {mirror.path}: {error}")
    except DatasetUnusable as error:
        return Reading(None, unseen=f"dataset {mirror.path}: {error}")
    return Reading(
        ledger,
        book,
        None if unseen is None else f"dataset {mirror.path}: {unseen}",
        None if unpinned is None else f"dataset {mirror.path}: {unpinned}",
        device_failed=any(isinstance(error, OSError) for error in (unseen, unpinned)),
    )


async def _read_ledger(
    mirror: Mirror, ledgers: _Ledgers
) -> tuple[Ledger | None, OSError | Unreadable | None]:
    try:
        content = await mirror.read(Dataset.read_document, LEDGER_NAME)
        if content is None:
            return None, None
        return await ledgers.decoded(content), None
    except (OSError, Unreadable) as error:
        return None, error


async def _read_pins(mirror: Mirror) -> tuple[PinBook | None, OSError | Unreadable | None]:
    try:
        content = await mirror.read(Dataset.read_document, PINS_DOCUMENT)
        return None if content is None else await asyncio.to_thread(decode_pins, content), None
    except (OSError, Unreadable) as error:
        return None, error


class _Ledgers:
    """What the datasets say, decoded; the same document only once, as it is on all of them.

    Args:
        held: for each dataset the artifacts on it, whose objects the configs share.
    """

    def __init__(self, sled_id: str | None, held: Sequence[Collection[ArtifactHash]]) -> None:
        self._sled_id = sled_id
        self._held = held
        self._last: tuple[bytes, Ledger] | None = None
        self._lock = asyncio.Lock()

    async def decoded(self, content: bytes) -> Ledger:
        """Raises Unreadable and FormatTooNew as `decode_ledger`."""
        async with self._lock:
            if self._last is None or self._last[0] != content:
                ledger = await asyncio.to_thread(_decoded, content, self._sled_id, self._held)
                self._last = content, ledger
            return self._last[1]


def _decoded(
    content: bytes, sled_id: str | None, held: Sequence[Collection[ArtifactHash]]
) -> Ledger:
    ledger = decode_ledger(content, sled_id)
    if ledger.config is not None:
        most = max(held, key=len) if held else ()  # what else is there is soon the same
        artifacts = shared(ledger.config.ordered, most)
        config = ArtifactConfig.make(ledger.config.generation, artifacts)
        ledger = replace(ledger, config=config)
    _ = ledger.rank  # worked out here, in a thread: it goes through every artifact, and is kept
    return ledger
