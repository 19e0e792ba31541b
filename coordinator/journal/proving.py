"""Proving an entry with an export alone, where nobody has the entry any more: pure.

Rules kept here:
- The proof is of the tree of the last checkpoint that the export has of the entry's shard.
- No more is remembered of the other entries than the hashes that the proof is made of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from coordinator.journal.checkpoints import Checkpoint, opened
from coordinator.journal.notes import VerifierKey
from coordinator.journal.proofs import BadProof, verify_inclusion
from coordinator.journal.tree import (
    Edge,
    Node,
    Path,
    hashes_along,
    inclusion_path,
    leaf_hash,
    needed,
)


@dataclass(frozen=True, slots=True)
class Proved:
    """An entry, and what proves that it is in the tree of `note`; it was verified.

    Attributes:
        leaf: the hash of `content`.
        hashes: as RFC 6962 orders them.
        note: a checkpoint, which `key` has signed.
    """

    index: int
    shard_id: str
    position: int
    content: str
    leaf: bytes
    size: int
    hashes: tuple[bytes, ...]
    note: str
    key: VerifierKey


@dataclass(slots=True)
class _Shard:
    """The one that has the entry."""

    id: str
    position: int
    key: VerifierKey
    note: str = ""
    checkpoint: Checkpoint | None = None
    path: Path = ()
    wanted: frozenset[Node] = frozenset()
    edge: Edge = field(default_factory=Edge)
    kept: dict[Node, bytes] = field(default_factory=dict)
    content: str | None = None


class Prover:
    """Is given an export record by record, and proves one entry of it at its end.

    Args:
        index: of the entry, in the journal.
        keys: by shard, the public keys that are known to be right; of others, the export's are
            believed.
    """

    def __init__(self, index: int, keys: Mapping[str, VerifierKey] | None = None) -> None:
        self._index = index
        self._keys = dict(keys or {})
        self._found: _Shard | None = None
        self._here = False
        self._dropped = False

    def feed(self, record: Mapping[str, Any]) -> None:
        """Take the next record.

        Raises:
            ValueError: this is no export.
        """
        match record:
            case {"shard": dict(told)}:
                self._begin(told)
            case {"checkpoint": {"note": str(note)}} if self._here and self._found:
                self._sign(self._found, note)
            case {"entry": dict(told)} if self._here and self._found:
                self._append(self._found, told)
            case {"format": _} | {"checkpoint": _} | {"entry": _} | {"end": _}:
                pass
            case _:
                raise ValueError(f"unexpected record {json.dumps(record)[:80]}")

    def end(self) -> Proved:
        """The proof.

        Raises:
            BadNote: the checkpoint is not signed by the key.
            BadProof: the export does not prove it.
        """
        its = self._found
        if its is None:
            was = "dropped before the export was made" if self._dropped else "in no shard of it"
            raise BadProof(f"entry {self._index} is {was}")
        if its.checkpoint is None or its.checkpoint.size <= its.position:
            raise BadProof(f"no checkpoint of shard {its.id} covers it")
        checkpoint = opened(its.note, its.key)
        size = checkpoint.size
        if its.content is None or not its.wanted <= its.kept.keys():
            raise BadProof(f"the export has {its.edge.size} of the {size} entries")
        hashes = hashes_along(its.path, its.kept)
        leaf = leaf_hash(its.content.encode())
        verify_inclusion(leaf, its.position, size, hashes, checkpoint.root)
        return Proved(
            self._index, its.id, its.position, its.content, leaf, size, hashes, its.note, its.key
        )

    def _begin(self, told: Mapping[str, Any]) -> None:
        position = self._index - int(told["first_index"])
        self._here = 0 <= position < int(told["size"])
        if not self._here:
            return
        self._dropped = bool(told["dropped"])
        if self._dropped:
            self._here = False
            return
        its_id = str(told["id"])
        key = self._keys.get(its_id) or VerifierKey.parse(told["verifier_key"])
        self._found = _Shard(its_id, position, key)

    def _sign(self, its: _Shard, note: str) -> None:
        checkpoint = Checkpoint.parse(note.partition("\n\n")[0] + "\n")
        if its.checkpoint is None or checkpoint.size > its.checkpoint.size:
            its.note, its.checkpoint = note, checkpoint
            if checkpoint.size > its.position:
                its.path = inclusion_path(its.position, checkpoint.size)
                its.wanted = frozenset(needed(its.path))

    def _append(self, its: _Shard, told: Mapping[str, Any]) -> None:
        position, content = int(told["position"]), str(told["content"])
        if position != its.edge.size:
            raise ValueError(f"expected entry {its.edge.size} of {its.id}, found {position}")
        if position == its.position:
            its.content = content
        leaf = bytes.fromhex(told["leaf"] or "") or leaf_hash(content.encode())
        its.edge, made = its.edge.appended([leaf])
        its.kept.update((node, found) for node, found in made if node in its.wanted)
