"""Healing: every wanted artifact back on every healthy dataset, from wherever its bytes are (B5).

A damaged copy is judged once more and set aside, so that it is missing from then on, also after a
restart. An artifact comes back from, in this order,

1. the good copy of another dataset,
2. damaged copies, standing or in quarantine, that are whole between them, block by block,
3. a peer.

`rewriter` does the first two, and a peer's goes through the same door as theirs. When none of them
has it, it is lost: said once, and tried again from time to time. One artifact at a time, those with
the fewest good copies first (`todo`); what fails waits longer and longer, until something changes.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from depot.artifact import ArtifactHash, Generation
from depot.concurrency.backoff import Backoff
from depot.concurrency.foreground import Foreground
from depot.concurrency.unhurried import unhurried
from depot.config.keeper import LedgerKeeper
from depot.errors import BadSource, DepotCopy, DepotError
from depot.healing.progress import Progress
from depot.healing.rewriter import Rewriter, Rewritten
from depot.healing.todo import Todo
from depot.mirrors.mirror_set import MirrorSet
from depot.mirrors.verify import verify_copy
from depot.os_errors import describe_error
from depot.quarantine.keeper import QuarantineKeeper
from depot.writing.put_desk import PutDesk
from depot.writing.stored import Stored

COURTESY_S: Final = 2.0
"""How long an artifact that is to be healed waits for the work that is in the foreground."""

_Heal = Callable[[ArtifactHash, Generation], Awaitable[Rewritten | None]]


class Peers(Protocol):
    """Where artifacts come from that no dataset of this sled has."""

    async def fetch(self, artifact: ArtifactHash, generation: Generation) -> Stored | None:
        """Store an artifact through `ArtifactStore.begin_put`; None when no peer can be asked.

        Raises:
            DepotError, OSError: no peer gave it, and why.
        """


class Healer:
    """Heals what some healthy dataset lacks."""

    def __init__(
        self,
        mirrors: MirrorSet,
        keeper: LedgerKeeper,
        desk: PutDesk,
        quarantine: QuarantineKeeper,
        todo: Todo,
        progress: Progress,
        rewriter: Rewriter,
        *,
        foreground: Foreground,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._mirrors = mirrors
        self._keeper = keeper
        self._desk = desk
        self._quarantine = quarantine
        self._todo = todo
        self._progress = progress
        self._rewriter = rewriter
        self._foreground = foreground
        self._monotonic = monotonic
        self._pauses: Backoff[ArtifactHash] = Backoff()
        self._peer_pauses: Backoff[ArtifactHash] = Backoff()

    # When

    def heal_due_in_s(self) -> float | None:
        """When `heal_here` is worth another try of what failed, in seconds; None: nothing did."""
        return self._due_in_s(self._pauses)

    def fetch_due_in_s(self) -> float | None:
        """The same for `fetch`."""
        return self._due_in_s(self._peer_pauses)

    def _due_in_s(self, pauses: Backoff[ArtifactHash]) -> float | None:
        due_s = pauses.next_due_s()
        return None if due_s is None else due_s - self._monotonic()

    def something_changed(self) -> None:
        """Whatever failed may be tried again at once."""
        self._pauses.clear()
        self._peer_pauses.clear()
        self._rewriter.something_changed()

    # Passes

    async def heal_here(self, *, only_due: bool = False) -> int:
        """Heal what the datasets themselves can heal; the number of artifacts healed.

        With `only_due`, those that failed a short while ago are left out, and each artifact lets
        work that somebody waits for go first, but not for ever: a copy is missing.
        """
        await self._judge_doubted(only_due=only_due)
        await self._settle_all()
        healed = 0
        async for artifact in unhurried(await self._begin_pass(self._pauses)):
            if only_due:
                await self._let_others_go_first()
            if self._may_try(artifact, self._pauses, only_due=only_due):
                healed += await self._try(artifact, self._pauses, self._rewriter.rewrite)
        await self._quarantine.trim()
        return healed

    async def fetch(self, peers: Peers | None, *, only_due: bool = False) -> int:
        """Get from peers what nothing here can heal; the number of artifacts healed."""

        async def from_peer(artifact: ArtifactHash, generation: Generation) -> Rewritten | None:
            return await self._from_peer(peers, artifact, generation)

        healed = 0
        async for artifact in unhurried(await self._begin_pass(self._peer_pauses)):
            if not self._rewriter.is_beyond_help(artifact):
                self._peer_pauses.forget(artifact)
            elif self._may_try(artifact, self._peer_pauses, only_due=only_due):
                healed += await self._try(artifact, self._peer_pauses, from_peer)
        return healed

    async def _let_others_go_first(self) -> None:
        if self._foreground.busy:
            await self._foreground.changed.wait(COURTESY_S)

    async def _judge_doubted(self, *, only_due: bool) -> None:
        """Find out which of the copies that differ in size are good, if any: none counts before.

        What is in doubt because its dataset failed is verified before that is healthy again.
        """
        for mirror in self._mirrors.healthy():
            for artifact in sorted(mirror.doubts.rows):
                if only_due:
                    await self._let_others_go_first()
                if artifact in mirror.doubts and mirror.healthy:
                    await verify_copy(mirror, artifact)

    async def _settle_all(self) -> None:
        for mirror in self._mirrors.healthy():
            for artifact in sorted(mirror.inventory.bad):
                self._progress.found(artifact)
                await self._quarantine.settle(mirror, artifact)

    async def _begin_pass(self, pauses: Backoff[ArtifactHash]) -> list[ArtifactHash]:
        todo = await self._todo.list_anew()
        left = frozenset(todo)
        pauses.keep_only(left)
        self._rewriter.keep_only(left)
        await self._progress.begin_pass(todo)
        return todo

    # One artifact

    def _may_try(
        self, artifact: ArtifactHash, pauses: Backoff[ArtifactHash], *, only_due: bool
    ) -> bool:
        if only_due and not pauses.is_due(artifact, self._monotonic()):
            return False
        if not self._lacking(artifact):
            pauses.forget(artifact)  # a dataset is away: its return is what wakes the healer
            return False
        if artifact in self._desk.writers:
            pauses.failed(artifact, self._monotonic())
            return False
        return True

    async def _try(
        self, artifact: ArtifactHash, pauses: Backoff[ArtifactHash], heal: _Heal
    ) -> bool:
        # The list may be old by now: the artifact may be unwanted.
        config = self._keeper.resolved.config
        if config is None or artifact not in config.artifacts:
            pauses.forget(artifact)
            return False
        self._progress.current = artifact
        had = self._having(artifact)
        try:
            outcome = await heal(artifact, config.generation)
        except DepotError as error:
            return self._failed(artifact, pauses, str(error))
        except OSError as error:
            return self._failed(artifact, pauses, describe_error(error))
        finally:
            self._progress.current = None
        if outcome is None:
            pauses.forget(artifact)
            return False
        if outcome.source is not None:
            healed_on = [path for path in self._having(artifact) if path not in had]
            self._progress.healed(artifact, outcome.source, outcome.stored, healed_on)
        if outcome.stored.failures:
            return self._failed(artifact, pauses, "; ".join(outcome.stored.failures))
        pauses.forget(artifact)
        self._progress.succeeded(artifact)
        return outcome.source is not None

    def _failed(self, artifact: ArtifactHash, pauses: Backoff[ArtifactHash], why: str) -> bool:
        self._progress.failed(artifact, why)
        pauses.failed(artifact, self._monotonic())
        return False

    async def _from_peer(
        self, peers: Peers | None, artifact: ArtifactHash, generation: Generation
    ) -> Rewritten:
        try:
            stored = await peers.fetch(artifact, generation) if peers else None
        except (DepotCopy, BadSource):
            self._progress.lose(artifact)
            raise
        if stored is None:
            self._progress.lose(artifact)
            raise DepotCopy("no dataset here has it whole, and no peer is known")
        return Rewritten("peer", stored)

    def _having(self, artifact: ArtifactHash) -> list[str]:
        """Paths of the datasets that have a good copy."""
        return [str(mirror.path) for mirror in self._mirrors.all if mirror.good_copy(artifact)]

    def _lacking(self, artifact: ArtifactHash) -> int:
        return sum(mirror.good_copy(artifact) is None for mirror in self._mirrors.healthy())
