"""What entries say of what is not in the journal, though it was: pure.

Rules kept here:
- Each shard that is dropped has an entry that says so, which the entries about later ones carry
  on: what is only marked is hidden.
- That a sled lost its last events, or that somebody wanted some told again, is a remark.
- What others kept, and contradicts the journal, is a finding, unless the journal says where that it
  was put back to an older copy: then it is of what was lost.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from coordinator.journal.findings import Checked, Finding
from coordinator.journal.restores import Restore
from coordinator.journal.values import (
    CURSOR_MOVED_BACK,
    EARLIER,
    LOG_WENT_BACK,
    RESTORES,
    SHARD_DROPPED,
)

_REMARKABLE: Final = {
    LOG_WENT_BACK: "says that sled {} has lost events that it had told, as a backup does that is "
    "put back",
    CURSOR_MOVED_BACK: "says that events of sled {} counted as untold that were told: somebody has "
    "changed the database",
}


class ToldShard(Protocol):
    """What an export says of a shard, as far as that is needed."""

    id: str
    first_index: int
    size: int
    sealed: bool


@dataclass(frozen=True, slots=True)
class _Doubt:
    """What somebody else has of a shard, of so many entries, and is not in the journal."""

    shard: str
    size: int
    finding: Finding


class Explanations:
    """Is told what is missing, and of the entries that may explain it; judges at the end."""

    def __init__(self) -> None:
        self._shards: set[str] = set()
        # Those that are dropped, until an entry says that they were.
        self._hidden: dict[str, ToldShard] = {}
        # By shard, with the index of the entry that says so.
        self._restores: dict[str, tuple[int, Restore]] = {}
        self._doubts: list[_Doubt] = []
        self._told: list[Finding] = []

    def begin(self, shard: ToldShard) -> None:
        """A shard is here, or its end is."""
        self._shards.add(shard.id)

    def miss(self, shard: ToldShard) -> None:
        """A shard is dropped: some entry, before or after this, has to say so."""
        self._hidden[shard.id] = shard

    def doubt(self, shard_id: str, size: int, finding: Finding) -> None:
        """Somebody has something else of a shard, when it had so many entries."""
        self._doubts.append(_Doubt(shard_id, size, finding))

    def take(self, shard: ToldShard, position: int, content: str) -> None:
        """Read what the next entry says."""
        index = shard.first_index + position
        if SHARD_DROPPED in content:
            self._take_drop(index, content)
        self._told += _remarks_in(index, content)
        restore = Restore.parse(content)
        if restore is None:
            return
        if shard.sealed and restore.is_at_its_place(shard.id, shard.size, position):
            self._restores[shard.id] = (index, restore)
        else:
            what = "says that the database was put back, but no shard ends there: it explains none"
            self._told.append(Finding(index, what))

    def _take_drop(self, index: int, content: str) -> None:
        kind, data = said_in(content)
        if kind != SHARD_DROPPED:
            return
        told = {
            str(each): self._hidden.pop(str(each), None)
            for each in (data.get("shard"), *_listed(data, EARLIER))
        }
        for each in _listed(data, RESTORES):
            restore = Restore.of(each)
            its = told.get(restore.shard) if restore else None
            if restore and its and restore.is_at_its_place(its.id, its.size, its.size - 2):
                self._restores[its.id] = (index, restore)

    def end(self, checked: Checked) -> None:
        """Add what is not explained to the findings, and what explains something to the remarks."""
        if checked.shards > 1:
            checked.findings += (
                Finding(its.first_index, f"is hidden: no entry says that shard {its.id} is dropped")
                for its in self._hidden.values()
            )
        explained: Counter[str] = Counter()
        for doubt in self._doubts:
            ended = self._explained_by(doubt)
            if ended is None:
                checked.findings.append(doubt.finding)
            else:
                explained[ended] += 1
        checked.restores = len(self._restores)
        checked.remarks += self._told
        checked.remarks += self._remarks(explained)

    def _explained_by(self, doubt: _Doubt) -> str | None:
        """The shard that the database was put back to, where that says why this is not here."""
        # A shard that is here was not lost: only its own end says something of it.
        own = (doubt.shard,) if doubt.shard in self._shards else self._restores
        for ended in own:
            found = self._restores.get(ended)
            if found is not None and found[1].explains(doubt.shard, doubt.size):
                return ended
        return None

    def _remarks(self, explained: Mapping[str, int]) -> Iterator[Finding]:
        for ended, (index, restore) in self._restores.items():
            known, those = restore.lost_entries, explained.get(ended, 0)
            kept = (
                "checkpoint kept elsewhere is" if those == 1 else "checkpoints kept elsewhere are"
            )
            more = f"; {those} {kept} of these" if those else ""
            yield Finding(
                index,
                f"says that the database was put back to a copy with {restore.kept} entries of "
                f"shard {restore.shard}: what came after that is lost, {known} entries as far as "
                f"was known{more}",
            )


def said_in(content: str) -> tuple[object, Mapping[str, Any]]:
    """The kind of an entry, and its data; nothing, when somebody has changed it."""
    try:
        said = json.loads(content)
        return said.get("kind"), dict(said.get("data", {}))
    except (ValueError, TypeError, AttributeError):
        return None, {}


def _remarks_in(index: int, content: str) -> Iterator[Finding]:
    if not any(kind in content for kind in _REMARKABLE):
        return
    try:
        said = json.loads(content)
        what = _REMARKABLE.get(said["kind"])
    except (ValueError, TypeError, KeyError):
        return
    if what is not None:
        yield Finding(index, what.format(said.get("sled")))


def _listed(data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name)
    return found if isinstance(found, list) else []
