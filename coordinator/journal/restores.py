"""What the journal says of itself when its database was put back to an older copy: pure.

Rules kept here:
- The shard that was active in the copy is ended there and then: whatever it had beyond, and what
  shards came after it, is lost, and nothing else ever takes these places under the same key.
- What others kept of the lost part contradicts the journal, and rightly so. It is no finding only
  where the journal itself says that, and how much, was lost.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

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
            data = said["data"]
            if said["kind"] != DATABASE_RESTORED:
                return None
            lost = {str(shard): int(size) for shard, size in data["lost"].items()}
            return cls(str(data["shard"]), int(data["kept"]), lost)
        except (ValueError, TypeError, KeyError, AttributeError):
            return None

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
