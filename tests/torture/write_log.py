"""What was written to some disks, in order, and what may be on them when the power goes. Pure.

A disk keeps what was written before its last flush. Of what was written since then any part may be
on it: each write or not, in any order, and of one write any of its 512-byte sectors.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

SECTOR_BYTES: Final = 512
_HEADER: Final = struct.Struct("<BBQI")


class Kind(IntEnum):
    """What a record is about."""

    WRITE = 0
    FLUSH = 1
    MARK = 2


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened.

    Attributes:
        disk: whose write or flush it is.
        content: what was written, or what the mark says.
    """

    kind: Kind
    disk: int = 0
    offset_bytes: int = 0
    content: bytes = b""


def encode(record: Record) -> bytes:
    size_bytes = len(record.content)
    return _HEADER.pack(record.kind, record.disk, record.offset_bytes, size_bytes) + record.content


def decode_all(log: bytes) -> Iterator[Record]:
    position = 0
    while position < len(log):
        kind, disk, offset_bytes, size_bytes = _HEADER.unpack_from(log, position)
        position += _HEADER.size
        content = log[position : position + size_bytes]
        position += size_bytes
        yield Record(Kind(kind), disk, offset_bytes, content)


def survivors(
    pending: Sequence[Record], rng: random.Random, *, whole: Sequence[range] = ()
) -> list[Record]:
    """Draw what is left of the writes since the last flush.

    All, none and most of them are as likely as any other subset; now and then one write is torn
    into sectors, of which only some are there. The parts of a disk that are `whole`, in bytes, are
    not torn.
    """
    share = rng.choice((0.0, 0.1, 0.5, 0.9, 1.0))
    kept = [write for write in pending if rng.random() < share]
    if kept and rng.random() < 0.3:
        index = rng.randrange(len(kept))
        kept[index : index + 1] = _torn(kept[index], rng, whole)
    return kept


def _torn(write: Record, rng: random.Random, whole: Sequence[range]) -> Iterator[Record]:
    start = 0
    while start < len(write.content):
        offset_bytes = write.offset_bytes + start
        around = next((part for part in whole if offset_bytes in part), None)
        ends_at = offset_bytes + SECTOR_BYTES if around is None else around.stop
        end = ends_at - write.offset_bytes
        if rng.random() < 0.5:
            piece = write.content[start:end]
            yield Record(Kind.WRITE, write.disk, offset_bytes, piece)
        start = end
