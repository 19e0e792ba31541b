"""Checking a whole journal by an export of it: pure, and with nothing but public keys.

Rules kept here:
- The first bad index is named: every entry is held against its hash, which is kept apart from it.
- An entry that is not found by what it says is named too: it was hidden, though not changed.
- Every checkpoint is held against the tree, those that others kept as well: what was signed once
  cannot be changed, dropped or added to in its middle.
- A shard follows the one before it, by what both say of each other and have signed.
- What contradicts it because the database was put back is told apart, where the journal says so.
- Each one that is dropped has an entry that says so, which the entries about later ones carry on:
  what is only marked is hidden.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from coordinator.journal.checkpoints import Checkpoint, opened
from coordinator.journal.notes import BadNote, VerifierKey
from coordinator.journal.restores import Restore
from coordinator.journal.tree import Edge, leaf_hash
from coordinator.journal.values import EARLIER, KEY_LOST, RESTORES, SHARD_DROPPED

FORMAT: Final = "sled-depot-journal-1"
_EXPORT: Final = "the export"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it has to be.

    Attributes:
        index: the first one of the journal that it is about; None: of no entry.
    """

    index: int | None
    what: str

    @property
    def line(self) -> str:
        """All of it, for people."""
        return self.what if self.index is None else f"entry {self.index} {self.what}"


@dataclass(slots=True)
class Checked:
    """What was looked at, and what was found."""

    shards: int = 0
    dropped: int = 0
    entries: int = 0
    checkpoints: int = 0
    witnessed: int = 0
    findings: list[Finding] = field(default_factory=list)
    # What weakens a proof, and was said by who had to.
    remarks: list[Finding] = field(default_factory=list)
    restores: int = 0

    @property
    def first_bad(self) -> int | None:
        """The first index that something was found about."""
        return min((each.index for each in self.findings if each.index is not None), default=None)


@dataclass(frozen=True, slots=True)
class _Doubt:
    """What somebody else has of a shard, of so many entries, and is not in the journal."""

    shard: str
    size: int
    finding: Finding


@dataclass(slots=True)
class _Shard:
    id: str
    first_index: int
    size: int
    root: str
    sealed: bool
    dropped: bool
    key: VerifierKey
    edge: Edge = field(default_factory=Edge)
    # By size: the checkpoints that are to be held against the tree then, and where each is from.
    due: dict[int, list[tuple[Checkpoint, str]]] = field(default_factory=lambda: defaultdict(list))
    first: Mapping[str, Any] = field(default_factory=dict)
    last: Mapping[str, Any] = field(default_factory=dict)
    # Of the checkpoints that the journal itself has; and what any checkpoint proved.
    largest: int = 0
    good: int = 0


class Checker:
    """Is given an export record by record, and says at its end what is wrong with it.

    Args:
        keys: by shard, the public keys that are known to be right; of others, the export's are
            believed.
        witnessed: notes that others kept, by where each is from.
    """

    def __init__(
        self,
        keys: Mapping[str, VerifierKey] | None = None,
        witnessed: Iterable[tuple[str, str]] = (),
    ) -> None:
        self._keys = dict(keys or {})
        self._witnessed: dict[str, list[tuple[str, str]]] = defaultdict(list)
        for source, note in witnessed:
            self._witnessed[note.partition("\n")[0].rpartition("/")[2]].append((source, note))
        self._checked = Checked()
        self._shard: _Shard | None = None
        self._before: _Shard | None = None
        self._shards: set[str] = set()
        # Those that are dropped, until an entry says that they were.
        self._hidden: dict[str, _Shard] = {}
        # By shard, with the index of the entry that says so.
        self._restores: dict[str, tuple[int, Restore]] = {}
        self._doubts: list[_Doubt] = []
        self._ended = False

    def feed(self, record: Mapping[str, Any]) -> None:
        """Take the next record.

        Raises:
            ValueError: this is no export.
        """
        match record:
            case {"format": str(found)}:
                if found != FORMAT:
                    raise ValueError(f"expected {FORMAT!r}, found {found[:40]!r}")
            case {"shard": dict(shard)}:
                self._begin(shard)
            case {"checkpoint": {"note": str(note)}} if self._shard:
                self._due(self._shard, note, _EXPORT)
                self._checked.checkpoints += 1
            case {"entry": dict(entry)} if self._shard:
                self._entry(self._shard, entry)
            case {"end": _}:
                self._ended = True
            case _:
                raise ValueError(f"unexpected record {json.dumps(record)[:80]}")

    def end(self) -> Checked:
        """Say what was found."""
        self._finish()
        if not self._ended:
            self._found(None, "the export breaks off")
        for its in self._hidden.values() if self._checked.shards > 1 else ():
            self._found(its.first_index, f"is hidden: no entry says that shard {its.id} is dropped")
        for shard_id, notes in self._witnessed.items():
            for source, note in notes:
                what = f"{source} has a checkpoint of shard {shard_id}, which is not here"
                self._doubt(shard_id, _size_of(note), Finding(None, what))
        self._judge_doubts()
        return self._checked

    def _doubt(self, shard_id: str, size: int, finding: Finding) -> None:
        """Remember something that is wrong unless an entry, which may come later, explains it."""
        self._doubts.append(_Doubt(shard_id, size, finding))

    def _judge_doubts(self) -> None:
        explained: Counter[str] = Counter()
        for doubt in self._doubts:
            # A shard that is here was not lost: only its own end says something of it.
            own = (doubt.shard,) if doubt.shard in self._shards else self._restores
            for ended in own:
                found = self._restores.get(ended)
                if found is not None and found[1].explains(doubt.shard, doubt.size):
                    explained[ended] += 1
                    break
            else:
                self._checked.findings.append(doubt.finding)
        self._checked.restores = len(self._restores)
        for ended, (index, restore) in self._restores.items():
            self._checked.remarks.append(Finding(index, _remark(restore, explained[ended])))

    def _begin(self, told: Mapping[str, Any]) -> None:
        self._finish()
        its_id = str(told["id"])
        key = VerifierKey.parse(told["verifier_key"])
        shard = _Shard(
            id=its_id,
            first_index=int(told["first_index"]),
            size=int(told["size"]),
            root=str(told["root_hash"]),
            sealed=told["state"] == "sealed",
            dropped=bool(told["dropped"]),
            key=self._keys.get(its_id, key),
        )
        if shard.key != key:
            self._found(
                shard.first_index, f"shard {its_id} has another key than the one known of it"
            )
        self._checked.shards += 1
        self._shards.add(its_id)
        self._checked.dropped += shard.dropped
        self._check_follows(shard)
        for source, note in self._witnessed.pop(its_id, ()):
            self._due(shard, note, source)
            self._checked.witnessed += 1
        self._shard = shard

    def _check_follows(self, shard: _Shard) -> None:
        before = self._before
        if before is None:
            return
        if shard.first_index != before.first_index + before.size:
            self._found(
                min(shard.first_index, before.first_index + before.size),
                f"shard {shard.id} does not begin where {before.id} ends",
            )
        said = before.last
        if not before.dropped and (said.get("next"), said.get("next_key")) != (
            shard.id,
            str(shard.key),
        ):
            self._found(
                before.first_index + max(0, before.size - 1),
                f"shard {before.id} does not end by naming {shard.id} and its key",
            )

    def _due(self, shard: _Shard, note: str, source: str) -> None:
        try:
            checkpoint = opened(note, shard.key)
        except BadNote as error:
            self._found(shard.first_index, f"a checkpoint that {source} has: {error}")
            return
        shard.due[checkpoint.size].append((checkpoint, source))
        if source == _EXPORT:
            shard.largest = max(shard.largest, checkpoint.size)
        if checkpoint.size == 0:
            self._compare(shard)

    def _entry(self, shard: _Shard, told: Mapping[str, Any]) -> None:
        self._checked.entries += 1
        position, content = int(told["position"]), str(told["content"])
        index = shard.first_index + position
        if position != shard.edge.size:
            if position > shard.edge.size:
                self._found(shard.first_index + shard.edge.size, "is missing")
            else:
                self._found(index, "is there twice")
            return
        computed = leaf_hash(content.encode())
        kept = bytes.fromhex(told["leaf"] or "")
        if not kept:
            self._found(index, "has no hash: it was inserted, or the hash was removed")
        elif kept != computed:
            self._found(index, "is not what its hash is of: it was changed")
        if misfiled := told.get("misfiled"):
            names = ", ".join(map(str, misfiled))
            self._found(index, f"is not found by its {names}: the database lists it otherwise")
        self._note_drop(index, content)
        self._note_restore(shard, position, content)
        shard.edge = shard.edge.appended([kept or computed])[0]
        self._remember(shard, position, content)
        self._compare(shard)

    def _note_drop(self, index: int, content: str) -> None:
        if SHARD_DROPPED not in content:
            return
        kind, data = _data(content)
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

    def _note_restore(self, shard: _Shard, position: int, content: str) -> None:
        restore = Restore.parse(content)
        if restore is None:
            return
        index = shard.first_index + position
        if shard.sealed and restore.is_at_its_place(shard.id, shard.size, position):
            self._restores[shard.id] = (index, restore)
        else:
            what = "says that the database was put back, but no shard ends there: it explains none"
            self._checked.remarks.append(Finding(index, what))

    def _remember(self, shard: _Shard, position: int, content: str) -> None:
        # Only the ends say something about other shards.
        if position and not (shard.sealed and position == shard.size - 1):
            return
        _, data = _data(content)
        if position == 0:
            shard.first = data
            self._check_opened(shard)
        if position == shard.size - 1:
            shard.last = data

    def _check_opened(self, shard: _Shard) -> None:
        before, said = self._before, shard.first
        if before is None:
            return
        root = before.root if before.dropped else before.edge.root.hex()
        if (said.get("before"), said.get("size"), said.get("root")) != (
            before.id,
            before.size,
            root,
        ):
            self._found(shard.first_index, f"does not say how shard {before.id} ended")

    def _compare(self, shard: _Shard) -> None:
        for checkpoint, source in shard.due.pop(shard.edge.size, ()):
            if checkpoint.root == shard.edge.root:
                shard.good = shard.edge.size
                shard.largest = max(shard.largest, shard.good)
            else:
                what = (
                    f"or one up to {shard.first_index + shard.edge.size - 1} is not what was "
                    f"signed: a checkpoint that {source} has says so"
                )
                finding = Finding(shard.first_index + shard.good, what)
                self._differs(shard, checkpoint, source, finding)

    def _differs(
        self, shard: _Shard, checkpoint: Checkpoint, source: str, finding: Finding
    ) -> None:
        if source == _EXPORT:
            self._checked.findings.append(finding)
        else:
            self._doubt(shard.id, checkpoint.size, finding)

    def _finish(self) -> None:
        shard, self._shard = self._shard, None
        if shard is None:
            return
        self._before = shard
        if shard.dropped:
            self._hidden[shard.id] = shard
            self._finish_dropped(shard)
            return
        end = shard.first_index + shard.edge.size
        if shard.edge.size < shard.size:
            self._found(end, f"is missing, and what follows: shard {shard.id} had {shard.size}")
        elif shard.edge.size > shard.size:
            self._found(shard.first_index + shard.size, "was added behind the end of its shard")
        elif shard.edge.root.hex() != shard.root:
            self._found(shard.first_index + shard.good, f"or a later one of {shard.id} was changed")
        self._finish_beyond(shard, end)
        if shard.sealed and shard.largest < shard.size:
            self._finish_unsigned(shard)

    def _finish_beyond(self, shard: _Shard, end: int) -> None:
        """Checkpoints of more entries than there are."""
        for size in sorted(shard.due):
            for checkpoint, source in shard.due[size]:
                what = f"is missing: {source} has a checkpoint of {size} entries"
                self._differs(shard, checkpoint, source, Finding(end, what))

    def _finish_unsigned(self, shard: _Shard) -> None:
        """Only the shard after it has signed how it ended."""
        if shard.last.get(KEY_LOST) is True:
            what = f"and what follows in {shard.id} is unsigned: the shard's key was lost"
            self._checked.remarks.append(Finding(shard.first_index + shard.good, what))
        else:
            self._found(shard.first_index, f"shard {shard.id} is sealed without a last checkpoint")

    def _finish_dropped(self, shard: _Shard) -> None:
        """Nothing is left of it but its end, which was signed."""
        signed = False
        what = f"shard {shard.id} did not end as"
        for size in (size for size in sorted(shard.due) if size >= shard.size):
            for checkpoint, source in shard.due[size]:
                if (size, checkpoint.root.hex()) == (shard.size, shard.root):
                    signed = True
                    continue
                finding = Finding(shard.first_index, f"{what} {source} has it")
                self._differs(shard, checkpoint, source, finding)
        if not signed:
            self._found(shard.first_index, f"shard {shard.id} has no last checkpoint")

    def _found(self, index: int | None, what: str) -> None:
        self._checked.findings.append(Finding(index, what))


def _remark(restore: Restore, explained: int) -> str:
    known = restore.lost_entries
    more = f"; {explained} checkpoints kept elsewhere are of these" if explained else ""
    return (
        f"says that the database was put back to a copy with {restore.kept} entries of shard "
        f"{restore.shard}: what came after that is lost, {known} entries as far as was known{more}"
    )


def _size_of(note: str) -> int:
    """How many entries a checkpoint that cannot be verified is of; more than any, when unknown."""
    try:
        return Checkpoint.parse(note.partition("\n\n")[0] + "\n").size
    except BadNote:
        return 2**63


def _listed(data: Mapping[str, Any], name: str) -> list[Any]:
    found = data.get(name)
    return found if isinstance(found, list) else []


def _data(content: str) -> tuple[object, Mapping[str, Any]]:
    """The kind of an entry, and its data; nothing, when somebody has changed it."""
    try:
        said = json.loads(content)
        return said.get("kind"), dict(said.get("data", {}))
    except (ValueError, TypeError, AttributeError):
        return None, {}
