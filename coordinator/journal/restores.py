"""What the journal says of itself when its database was put back to an older copy: pure.

Rules kept here:
- The shard that was active in the copy is ended there and then: whatever it had beyond, and what
  shards came after it, is lost, and nothing else ever takes these places under the same key.
- What others kept of the lost part contradicts the journal, and rightly so. It is no finding only
  where the journal itself says that, and how much, was lost: of a shard at its own end, and of
  shards that are nowhere else in the journal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

DATABASE_RESTORED: Final = "fleet.database_restored"
"""The kind of the entry that says so."""


@dataclass(frozen=True, slots=True)
class Restore:
    """One time that the database was put back.

    Attributes:
        shard: the id of the shard that was active in the copy.
        kept: how many entries of it the copy had.
        lost: by shard, how many entries it is known to have had: that one, and later ones.
    """

    shard: str
    kept: int
    lost: Mapping[str, int]

    @property
    def data(self) -> dict[str, object]:
        """As an entry has it."""
        return {"shard": self.shard, "kept": self.kept, "lost": dict(self.lost)}

    @classmethod
    def parse(cls, content: str) -> Self | None:
        """Read the entry that says so; None when it says something else."""
        if DATABASE_RESTORED not in content:
            return None
        try:
            said = json.loads(content)
            return cls.of(said["data"]) if said["kind"] == DATABASE_RESTORED else None
        except (ValueError, TypeError, KeyError):
            return None

    @classmethod
    def of(cls, data: Any) -> Self | None:
        """Read what an entry has; None when it is nothing of the kind."""
        try:
            lost = {str(shard): int(size) for shard, size in data["lost"].items()}
            return cls(str(data["shard"]), int(data["kept"]), lost)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

    def is_at_its_place(self, shard: str, size: int, position: int) -> bool:
        """Whether it is where such an entry is written: right before the shard's last one.

        Args:
            shard: the id of the shard that has it, and is sealed.
            size: how many entries that has.
            position: where it is among them.
        """
        return (self.shard, position) == (shard, size - 2) and 0 <= self.kept <= position

    def explains(self, shard: str, size: int) -> bool:
        """Whether a checkpoint of so many entries is of what was lost."""
        if shard == self.shard:
            return size > self.kept
        return size <= self.lost.get(shard, 0)

    @property
    def lost_entries(self) -> int:
        """How many entries are known to be lost."""
        known = sum(size for shard, size in self.lost.items() if shard != self.shard)
        return known + max(0, self.lost.get(self.shard, 0) - self.kept)
