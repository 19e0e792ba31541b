"""The checkpoints of the fleet's journal that this sled was sent, so that nobody unsends them.

Whoever can edit a coordinator's database, or has its keys, cannot edit what sleds were told before.
They are kept in `checkpoints.json` in the state directory, one small checksummed document.

Rules kept here:
- What was taken is on stable storage before it is acknowledged.
- Nothing takes the place of what it contradicts: another root for a size that is known is refused,
  and so is a tree that has shrunk. Of each tree the first is kept for good, and the last ones.
- When there is no room for another tree, it is refused: what is old is what proves most.

Signatures are for whoever compares: the sled has no key to believe, and keeps text.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import structlog

from depot.dataset.small_files import open_root, read_document, write_document
from depot.document import Unreadable, decode, encode
from depot.errors import FormatTooNew, InvalidRequest

CHECKPOINTS_NAME: Final = "checkpoints.json"
FORMAT: Final = 1
KEPT: Final = 16
"""Of one tree: the first, and the last ones."""
MAX_TREES: Final = 256
MAX_NOTE_CHARACTERS: Final = 4096
_HEAD: Final = re.compile(
    r"(?P<origin>[\x21-\x7e]{1,256})\n(?P<size>[1-9][0-9]{0,18})\n(?P<root>[A-Za-z0-9+/]{43}=)\n"
)

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class KeptCheckpoint:
    """How large a tree was, its root, and the signed note that says so."""

    origin: str
    size: int
    root: str
    note: str

    @classmethod
    def parse(cls, note: str) -> Self:
        """Read a note; raises InvalidRequest when it is none of a checkpoint."""
        head = _HEAD.match(note)
        if head is None or len(note) > MAX_NOTE_CHARACTERS or "\n\n" not in note:
            raise InvalidRequest("note: expected a signed checkpoint (c2sp.org/tlog-checkpoint)")
        return cls(head["origin"], int(head["size"]), head["root"], note)


def taken(kept: Sequence[KeptCheckpoint], new: KeptCheckpoint) -> tuple[KeptCheckpoint, ...]:
    """What is kept with another checkpoint; the same as before when it is known.

    Raises:
        InvalidRequest: it contradicts what is kept, or there is no room for another tree.
    """
    same = [each for each in kept if each.origin == new.origin]
    others = [each for each in kept if each.origin != new.origin]
    for each in same:
        if each.size == new.size:
            if each.root != new.root:
                raise InvalidRequest(
                    f"note: {new.origin} had another root at {new.size} entries: {each.root}"
                )
            return tuple(kept)
    if not same and len({each.origin for each in others}) >= MAX_TREES:
        raise InvalidRequest(f"note: checkpoints of {MAX_TREES} trees are kept here already")
    if same and new.size < same[-1].size:
        raise InvalidRequest(f"note: {new.origin} had {same[-1].size} entries, not {new.size}")
    first, *last = *same, new
    return (*others, first, *last[-(KEPT - 1) :])


class CheckpointBook:
    """The checkpoints of this sled, on disk and in memory."""

    def __init__(self, state_dir: Path, kept: Sequence[KeptCheckpoint]) -> None:
        self._state_dir = state_dir
        self._kept = tuple(kept)
        self._writing = asyncio.Lock()

    @classmethod
    async def open(cls, state_dir: Path) -> Self:
        """Read what was kept before; what cannot be read is moved aside, and not deleted."""
        return cls(state_dir, await asyncio.to_thread(_read, state_dir))

    def notes(self) -> tuple[str, ...]:
        """Every note; those of one tree by size."""
        return tuple(each.note for each in self._kept)

    async def take(self, note: str) -> None:
        """Keep another one, durably.

        Raises:
            InvalidRequest: it is none, contradicts what is kept, or there is no room.
            OSError: it cannot be written.
        """
        new = KeptCheckpoint.parse(note)
        async with self._writing:
            kept = taken(self._kept, new)
            if kept != self._kept:
                await asyncio.to_thread(_write, self._state_dir, kept)
                self._kept = kept


def _read(state_dir: Path) -> tuple[KeptCheckpoint, ...]:
    try:
        with open_root(state_dir) as root:
            content = read_document(root, CHECKPOINTS_NAME)
        found = decode(content, name=CHECKPOINTS_NAME, newest=FORMAT) if content else {}
        notes = found.get("notes", [])
        return tuple(map(KeptCheckpoint.parse, notes if isinstance(notes, list) else []))
    except (OSError, Unreadable, FormatTooNew, InvalidRequest) as error:
        aside = state_dir / f"{CHECKPOINTS_NAME}.corrupt"
        _log.warning("kept checkpoints cannot be read", error=str(error), kept_as=aside.name)
        with suppress(OSError):
            os.replace(state_dir / CHECKPOINTS_NAME, aside)
        return ()


def _write(state_dir: Path, kept: Sequence[KeptCheckpoint]) -> None:
    notes = [each.note for each in kept]
    with open_root(state_dir) as root:
        write_document(root, CHECKPOINTS_NAME, encode({"notes": notes}, version=FORMAT))
