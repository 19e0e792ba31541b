"""What a sled says that happened there, as things to be told: pure.

Rules kept here:
- Each event is told once: what is not above the number that was told last is left out.
- Numbers that are missing are told as missing, and so is that a sled began to count anew.
- What a sled says is not believed to be short, or to be any special kind of text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from agent.wire import EventBody, EventsBody
from coordinator.journal.values import GAP
from coordinator.values import Told
from depot.artifact import ArtifactHash
from depot.errors import InvalidRequest

NEW_LOG: Final = "journal.new_event_log"
MAX_DATA_CHARACTERS: Final = 64 * 1024
MAX_KIND_CHARACTERS: Final = 64
_OWN: Final = frozenset({"sequence", "time", "kind"})


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to where a sled's events are told.

    Attributes:
        sequence: the number of the last one; 0 before there is any.
        other_log: another log of this sled was told of before.
    """

    sled_id: str
    epoch: str
    sequence: int = 0
    other_log: bool = False


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is to be told of a page of events, and up to where that comes."""

    told: tuple[Told, ...]
    sequence: int


def gathered(cursor: Cursor, page: EventsBody) -> Gathered:
    """Tell what is new in a page that was asked for after `cursor`."""
    told = list(_begun(cursor, page))
    last = cursor.sequence
    for event in page.events:
        if event.sequence <= last:
            continue
        if event.sequence > last + 1:
            told.append(_gap(cursor, last + 1, event.sequence - 1))
        told.append(_event(cursor, event))
        last = event.sequence
    return Gathered(tuple(told), last)


def _begun(cursor: Cursor, page: EventsBody) -> Iterator[Told]:
    """That there is another log than before: what was in that one, and not told, never will be."""
    if cursor.other_log and not cursor.sequence and page.events:
        yield Told(NEW_LOG, sled_id=cursor.sled_id, data={"epoch": cursor.epoch})


def _gap(cursor: Cursor, first: int, last: int) -> Told:
    data = {"epoch": cursor.epoch, "first": first, "last": last, "count": last - first + 1}
    return Told(GAP, sled_id=cursor.sled_id, data=data)


def _event(cursor: Cursor, event: EventBody) -> Told:
    said = event.model_dump(mode="json", exclude=set(_OWN))
    return Told(
        f"sled.{event.kind[:MAX_KIND_CHARACTERS]}".replace("\0", "�"),
        sled_id=cursor.sled_id,
        artifacts=_artifacts(said.get("sha256")),
        data=_bounded(said),
        time_s=event.time.timestamp(),
        source=(cursor.epoch, event.sequence),
    )


def _artifacts(sha256: object) -> tuple[ArtifactHash, ...]:
    try:
        return (ArtifactHash.parse(sha256),) if isinstance(sha256, str) else ()
    except InvalidRequest:
        return ()


def _bounded(said: Mapping[str, object]) -> Mapping[str, object]:
    size = len(json.dumps(said))
    return said if size <= MAX_DATA_CHARACTERS else {"omitted_characters": size}
