"""What a sled says that happened there, as things to be told: pure.

Rules kept here:
- Each event is told once: what is not above the number that was told last is left out.
- Numbers that are missing are told as missing, and so is that a sled began to count anew.
- A log that went back, as one does that was restored from a backup, uses numbers again for what
  happens then: that is told under another name of the log, in which each is used once.
- What a sled says is not believed to be short, or to be any special kind of text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from agent.wire.events import EventBody, EventsBody
from coordinator.journal.values import CURSOR_MOVED_BACK, GAP, LOG_WENT_BACK
from coordinator.values import Told
from depot.artifact import ArtifactHash
from depot.errors import InvalidRequest

NEW_LOG: Final = "journal.new_event_log"
MAX_DATA_CHARACTERS: Final = 64 * 1024
MAX_KIND_CHARACTERS: Final = 64
_AGAIN: Final = "+"
# A sled names its log as it likes.
_RETURNS: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_OWN: Final = frozenset({"sequence", "time", "kind"})


@dataclass(frozen=True, slots=True)
class Cursor:
    """Up to where a sled's events are told.

    Attributes:
        epoch: the name that the sled has for its log.
        sequence: the number of the last one; 0 before there is any.
        other_log: another log of this sled was told of before.
        returns: how often the log went back.
    """

    sled_id: str
    epoch: str
    sequence: int = 0
    other_log: bool = False
    returns: int = 0

    @property
    def log(self) -> str:
        """The name that the journal has for the log."""
        return f"{self.epoch}{_AGAIN}{self.returns}" if self.returns else self.epoch


@dataclass(frozen=True, slots=True)
class Gathered:
    """What is to be told of a page of events, and up to where in which log that comes."""

    told: tuple[Told, ...]
    log: str
    sequence: int


def returns_of(log: str, epoch: str) -> int | None:
    """How often the log of this name has gone back, if it is the journal's of that epoch."""
    if log == epoch:
        return 0
    begin, _, returns = log.rpartition(_AGAIN)
    return int(returns) if begin == epoch and _RETURNS.fullmatch(returns) else None


def gathered(cursor: Cursor, page: EventsBody, told_to: int = 0) -> Gathered:
    """Tell what is new in a page that was asked for after `cursor`.

    Args:
        cursor: up to where the database says that it is told.
        page: what the sled says.
        told_to: up to where the journal itself has it.
    """
    told = list(_begun(cursor, page))
    if told_to > cursor.sequence:
        told.append(_moved_back(cursor, told_to))
        cursor = replace(cursor, sequence=told_to)
    last = cursor.sequence
    for event in page.events:
        if event.sequence <= last:
            continue
        if event.sequence > last + 1:
            told.append(_gap(cursor, last + 1, event.sequence - 1))
        told.append(_event(cursor, event))
        last = event.sequence
    return Gathered(tuple(told), cursor.log, last)


def gone_back(cursor: Cursor, page: EventsBody, told_to_s: float | None) -> Gathered:
    """Tell that the sled's log ends before `cursor`, although that was told; and go on from there.

    What it has now was told, but for what is later than all that was, by the sled's own clock.

    Args:
        cursor: up to where its log was told.
        page: the last that its log has.
        told_to_s: when that happened which was told last; None: nobody knows.
    """
    later = [
        event.sequence
        for event in page.events
        if told_to_s is not None and event.time.timestamp() > told_to_s
    ]
    again = replace(cursor, sequence=min(later, default=page.latest + 1) - 1)
    again = replace(again, returns=cursor.returns + 1)
    data = {
        "epoch": cursor.log,
        "told": cursor.sequence,
        "latest": page.latest,
        "goes_on_as": again.log,
    }
    told = [Told(LOG_WENT_BACK, sled_id=cursor.sled_id, data=data)]
    if again.sequence:
        told.append(_gap(again, 1, again.sequence))
    new = gathered(again, page)
    return Gathered((*told, *new.told), again.log, new.sequence)


def _begun(cursor: Cursor, page: EventsBody) -> Iterator[Told]:
    """That there is another log than before: what was in that one, and not told, never will be."""
    if cursor.other_log and not cursor.sequence and page.events:
        yield Told(NEW_LOG, sled_id=cursor.sled_id, data={"epoch": cursor.log})


def _moved_back(cursor: Cursor, told_to: int) -> Told:
    data = {"epoch": cursor.log, "cursor": cursor.sequence, "told": told_to}
    return Told(CURSOR_MOVED_BACK, sled_id=cursor.sled_id, data=data)


def _gap(cursor: Cursor, first: int, last: int) -> Told:
    data = {"epoch": cursor.log, "first": first, "last": last, "count": last - first + 1}
    return Told(GAP, sled_id=cursor.sled_id, data=data)


def _event(cursor: Cursor, event: EventBody) -> Told:
    said = event.model_dump(mode="json", exclude=set(_OWN))
    return Told(
        f"sled.{event.kind[:MAX_KIND_CHARACTERS]}".replace("\0", "�"),
        sled_id=cursor.sled_id,
        artifacts=_artifacts(said.get("sha256")),
        data=_bounded(said),
        time_s=event.time.timestamp(),
        source=(cursor.log, event.sequence),
    )


def _artifacts(sha256: object) -> tuple[ArtifactHash, ...]:
    try:
        return (ArtifactHash.parse(sha256),) if isinstance(sha256, str) else ()
    except InvalidRequest:
        return ()


def _bounded(said: Mapping[str, object]) -> Mapping[str, object]:
    size = len(json.dumps(said))
    return said if size <= MAX_DATA_CHARACTERS else {"omitted_characters": size}
