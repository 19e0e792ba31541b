"""What makes a config known for good: a start with any one of the datasets knows of it (G1).

Either every configured dataset has it, or the witness names it. What was refused because neither
could be had is open: a dataset may have it, and may bring it when it returns.
"""

from __future__ import annotations

from depot.config import fencing
from depot.config.ledger import Attestation, Rank
from depot.config.witness import Witness
from depot.errors import Io
from depot.mirrors.mirror_set import MirrorSet


class Acknowledgement:
    """Knows of the last rank whether it may be acknowledged."""

    def __init__(self, mirrors: MirrorSet, witness: Witness) -> None:
        self._refused: Rank | None = None  # begun and not acknowledged: some dataset may have it
        self._mirrors = mirrors
        self._witness = witness
        self._everywhere: Rank | None = None

    def held_by(self, rank: Rank, holders: int) -> None:
        """Note on how many datasets it has just been seen to be, durably."""
        if holders < len(self._mirrors.all):
            return
        if rank != self._refused:
            self._refused = None  # it was written over, or comes too late
        # Of a single dataset, nobody could tell once its ledger is torn.
        if holders > 1:
            self._everywhere = rank

    def lacking(self) -> None:
        """Note that one that had it may not have it any more."""
        self._everywhere = None

    async def begin(self, rank: Rank, *, certain: bool) -> None:
        """Refuse what could not be acknowledged, before any dataset has it.

        Raises:
            Io: not every dataset can be written, and neither can the witness.
        """
        healthy, configured = len(self._mirrors.healthy()), len(self._mirrors.all)
        sayable = healthy == configured > 1 or await self._witness.can_say(
            self._said(rank, certain)
        )
        if not sayable:
            raise Io(
                f"{healthy} of {configured} datasets can be written, and {self._witness.problem}: "
                "a start without those would not know of the config"
            )
        self._refused = rank

    def check(self, rank: Rank) -> None:
        """Check that it goes with what was refused before.

        Raises:
            LedgerUnknown, ConfigGeneration: see `fencing.check_open`.
        """
        if self._refused is not None:
            fencing.check_open(self._refused, rank)

    def nobody_has(self, rank: Rank) -> None:
        """Note that what was begun was written nowhere."""
        if rank == self._refused:
            self._refused = None

    async def give(self, rank: Rank, holders: int, *, certain: bool) -> None:
        """Have a start with any one of the datasets know of `rank`.

        Args:
            rank: what is to be acknowledged.
            holders: how many datasets have just been seen to have it, durably.
            certain: see `Resolved`.

        Raises:
            Io: a dataset that is away would not know of it, and no witness could tell.
        """
        self.held_by(rank, holders)
        everywhere = self._everywhere == rank
        said = self._said(rank, certain)
        if not (await self._witness.remember(said, in_force=everywhere) or everywhere):
            raise Io(
                f"the config is on {holders} of {len(self._mirrors.all)} datasets, and "
                f"{self._witness.problem}: a start with the others alone would not know of it"
            )
        if rank == self._refused:
            self._refused = None

    async def remember(self, rank: Rank, *, certain: bool) -> None:
        """Have the witness say what is in force, if it can be written."""
        await self._witness.remember(self._said(rank, certain), in_force=True)

    def _said(self, rank: Rank, certain: bool) -> Attestation:
        return Attestation(rank, self._mirrors.sled_id, certain)
