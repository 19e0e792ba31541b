"""The witness as this process keeps it: the highest config this node ever acknowledged.

It lies outside the datasets, so that a boot with only a stale one of them present cannot move the
generation backwards (G1). What can be read of it is no proof that it is durable: a process that was
killed before its sync leaves the same. So only what this process wrote counts as written.
"""

from __future__ import annotations

import asyncio

from depot.config.ledger import Rank
from depot.config.state_dir import StateDir
from depot.os_errors import describe_error


class Witness:
    """Owns `witness.json` of a state directory.

    Attributes:
        rank: what is in force, or was acknowledged last, as far as this process knows.
        problem: why it could not be read or written, for the status.
    """

    def __init__(self, state_dir: StateDir) -> None:
        self.rank: Rank | None = None
        self.problem: str | None = None
        self._state_dir = state_dir
        self._written: Rank | None = None

    async def load(self, sled_id: str | None) -> None:
        """Read it, at boot.

        Raises:
            FormatTooNew: it was written by a newer program.
        """
        self.rank, self.problem = await asyncio.to_thread(self._state_dir.read_witness, sled_id)

    async def remember(self, rank: Rank, sled_id: str | None, *, in_force: bool) -> bool:
        """Have it name `rank`; tell whether it does, durably.

        Args:
            rank: what is to be acknowledged.
            sled_id: whose it is.
            in_force: it counts in this process even if it cannot be written.
        """
        written = rank == self._written or await self._write(rank, sled_id)
        if written or in_force:
            self.rank = rank
        return written

    async def _write(self, rank: Rank, sled_id: str | None) -> bool:
        self._written = None  # which of the two is there after a failure, nobody knows
        try:
            await asyncio.to_thread(self._state_dir.write_witness, rank, sled_id)
        except OSError as error:
            self.problem = f"the witness cannot be written: {describe_error(error)}"
            return False
        self._written, self.problem = rank, None
        return True
