"""The witness as this process keeps it: the highest config this node ever acknowledged.

It lies outside the datasets, so that a boot with only a stale one of them present cannot move the
generation backwards (G1). What can be read of it is no proof that it is durable: a process that was
killed before its sync leaves the same. So each process writes anew what it finds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec

from depot.config.ledger import Attestation, Rank
from depot.config.state_dir import StateDir
from depot.os_errors import describe_error

P = ParamSpec("P")


class Witness:
    """Owns `witness.json` of a state directory. One call at a time, each to its end.

    Attributes:
        rank: what is in force, or was acknowledged last, as far as this process knows.
        certain: no dataset that was away then could know of a higher one.
        problem: why it could not be read or written, for the status.
    """

    def __init__(self, state_dir: StateDir) -> None:
        self.rank: Rank | None = None
        self.certain = False
        self.problem: str | None = None
        self._state_dir = state_dir
        self._found: Rank | None = None
        self._written: Attestation | None = None

    async def load(self, sled_id: str | None) -> None:
        """Read it, at boot.

        Raises:
            FormatTooNew: it was written by a newer program.
        """
        said, self.problem = await asyncio.to_thread(self._state_dir.read_witness, sled_id)
        if said is not None:
            self.rank, self.certain, self._found = said.rank, said.certain, said.rank

    async def remember(self, attestation: Attestation, *, in_force: bool) -> bool:
        """Have it say this, durably; tell whether it names the rank.

        Args:
            attestation: what is to be acknowledged.
            in_force: it counts in this process even if it cannot be written.
        """
        written = attestation == self._written or await self._write(attestation)
        # Where nothing can be written any more, what was there before us is as good as it gets.
        named = written or attestation.rank == self._found
        if named or in_force:
            self.rank, self.certain = attestation.rank, attestation.certain
        return named

    async def can_say(self, attestation: Attestation) -> bool:
        """Tell whether it names this rank or could be written now; if not, `problem` says why."""
        if attestation.rank == self._found:
            return True
        return await self._attempt(self._state_dir.try_witness, attestation)

    async def _write(self, attestation: Attestation) -> bool:
        self._written = None  # which of the two is there after a failure, nobody knows
        if attestation.rank != self._found:
            self._found = None
        if not await self._attempt(self._state_dir.write_witness, attestation):
            return False
        self._written, self.problem = attestation, None
        return True

    async def _attempt(self, write: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> bool:
        try:
            await asyncio.to_thread(write, *args, **kwargs)
        except OSError as error:
            self.problem = f"the witness cannot be written: {describe_error(error)}"
            return False
        return True
