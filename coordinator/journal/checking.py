"""Checking a whole journal by an export of it: pure, and with nothing but public keys.

Rules kept here:
- The first bad index is named: every entry is held against its hash, which is kept apart from it.
- An entry that is not found by what it says is named too: it was hidden, though not changed.
- Every checkpoint is held against the tree, those that others kept as well: what was signed once
  cannot be changed, dropped or added to in its middle.
- A shard follows the one before it, by what both say of each other and have signed.
- What entries say of what is missing is for `explaining`, which events they tell of for
  `sled_numbers`.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from coordinator.journal.checkpoints import Checkpoint, opened
from coordinator.journal.explaining import Explanations, said_in
from coordinator.journal.findings import Checked, Finding
from coordinator.journal.notes import BadNote, VerifierKey
from coordinator.journal.sled_numbers import SledNumbers
from coordinator.journal.tree import Edge, leaf_hash
from coordinator.journal.values import KEY_LOST, LogEnd

FORMAT: Final = "sled-depot-journal-1"
_EXPORT: Final = "the export"


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
    # The index of the first entry that is not here, in the order in which they come.
    missing: int | None = None


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
        self._explanations = Explanations()
        self._numbers = SledNumbers()
        self._log_ends: list[LogEnd] = []
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
            case {"end": dict(end)}:
                self._log_ends = [LogEnd.of(each) for each in end.get("told", ())]
                self._ended = True
            case _:
                raise ValueError(f"unexpected record {json.dumps(record)[:80]}")

    def end(self) -> Checked:
        """Say what was found."""
        self._finish()
        if not self._ended:
            self._found(None, "the export breaks off")
        for shard_id, notes in self._witnessed.items():
            for source, note in notes:
                if not (size := _size_of(note)):
                    continue  # it was empty: its rotation may have been undone, and nothing is lost
                what = f"{source} has a checkpoint of shard {shard_id}, which is not here"
                self._explanations.doubt(shard_id, size, Finding(None, what))
        self._checked.findings += self._numbers.end(self._log_ends)
        self._explanations.end(self._checked)
        return self._checked

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
        self._checked.dropped += shard.dropped
        self._explanations.begin(shard)
        if shard.dropped or (self._before is None and shard.first_index):
            self._numbers.pass_over()
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
                self._missing(shard)
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
        self._explanations.take(shard, position, content)
        self._numbers.take(index, content)
        shard.edge = shard.edge.appended([kept or computed])[0]
        self._remember(shard, position, content)
        self._compare(shard)

    def _missing(self, shard: _Shard) -> None:
        # Said once: all that follows it is out of its place.
        if shard.missing is None:
            shard.missing = shard.first_index + shard.edge.size
            self._found(shard.missing, "is missing")

    def _remember(self, shard: _Shard, position: int, content: str) -> None:
        # Only the ends say something about other shards.
        if position and not (shard.sealed and position == shard.size - 1):
            return
        _, data = said_in(content)
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
            self._explanations.doubt(shard.id, checkpoint.size, finding)

    def _finish(self) -> None:
        shard, self._shard = self._shard, None
        if shard is None:
            return
        self._before = shard
        if shard.dropped:
            self._explanations.miss(shard)
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


def _size_of(note: str) -> int:
    """How many entries a checkpoint that cannot be verified is of; more than any, when unknown."""
    try:
        return Checkpoint.parse(note.partition("\n\n")[0] + "\n").size
    except BadNote:
        return 2**63
