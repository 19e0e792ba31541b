"""Checkpoints (c2sp.org/tlog-checkpoint): how large a tree was, and its root, signed.

The first line, the *origin*, says which tree: it is the name of its key, too.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Final

from coordinator.journal.notes import BadNote, SignerKey, VerifierKey, decoded, parted, verify
from coordinator.journal.tree import HASH_BYTES

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree at one size."""

    origin: str
    size: int
    root: bytes

    @property
    def text(self) -> str:
        """What is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Checkpoint:
        """Read one; further lines are for others. Raises BadNote when it is none."""
        lines = text.split("\n")
        if len(lines) < 4 or not all(lines[:-1]) or lines[-1]:
            raise BadNote("expected an origin, a size and a root, each on a line")
        origin, size, told = lines[:3]
        if not _SIZE.fullmatch(size):
            raise BadNote(f"expected the size of a tree, found {size[:40]!r}")
        root = decoded(told)
        if len(root) != HASH_BYTES:
            raise BadNote(f"expected the hash of a tree, found {told[:100]!r}")
        return cls(origin, int(size), root)


def signed(checkpoint: Checkpoint, key: SignerKey) -> str:
    """The note that says so."""
    return key.sign(checkpoint.text)


def require_checkpoint(note: str) -> None:
    """Raise BadNote unless it looks like a signed checkpoint, of whatever tree, by whomever."""
    text, _ = parted(note)
    Checkpoint.parse(text)


def opened(note: str, key: VerifierKey) -> Checkpoint:
    """The checkpoint in a note.

    Raises:
        BadNote: it is none, not signed by this key, or of another tree than the key's.
    """
    checkpoint = Checkpoint.parse(verify(note, key))
    if checkpoint.origin != key.name:
        raise BadNote(f"the checkpoint is of {checkpoint.origin!r}, not of {key.name!r}")
    return checkpoint
