"""The ledger and the pins as kept on every mirror: read, resolved, changed, brought up to date.

Keeps G1 to G4, with `ledger` and `fencing` deciding: a config is on every healthy dataset, durable,
before it is acknowledged or acted on; the witness follows before the answer. One lock orders every
change; readers look at `resolved` and `book`, rows of the state store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import wraps
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.concurrency.uncancelled import to_its_end
from depot.config import fencing
from depot.config.acknowledgement import Acknowledgement
from depot.config.grace import Grace
from depot.config.ledger import (
    LEDGER_NAME,
    NO_LEDGER,
    Ledger,
    Readings,
    Resolved,
    Standing,
    encode_ledger,
    resolve,
)
from depot.config.pins import PinBook, Pins, encode_pins
from depot.config.reader import PINS_DOCUMENT, Reader, Reading
from depot.config.state_dir import StateDir
from depot.config.witness import Witness
from depot.config.writer import Writer
from depot.dataset.small_files import METADATA
from depot.errors import (
    ConfigGeneration,
    DepotError,
    LedgerUnknown,
    NoConfig,
    NoDataset,
    NotFound,
    NotInConfig,
)
from depot.mirrors.mirror import Mirror
from depot.mirrors.mirror_set import MirrorSet
from depot.state.tables import StateStore, Table

EventSink = Callable[[str, Mapping[str, object]], None]
"""Called on the event loop with a kind and its fields; must not block."""

_CURRENT: Final = "current"
_SETTLED: Final = (Standing.CLEAR, Standing.EMPTY)
P = ParamSpec("P")
T = TypeVar("T")

_PINS_UNKNOWN: Final = (
    "no dataset has pins that can be read, so nothing may be dropped or deleted: bring a dataset "
    f"with intact pins back, or move the pins in {METADATA} away on every dataset and pin again"
)


def _alone(
    change: Callable[Concatenate[LedgerKeeper, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[LedgerKeeper, P], Coroutine[Any, Any, T]]:
    """Do it when no other such work is under way, and to its end once it was begun."""

    async def held(keeper: LedgerKeeper, /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await change(keeper, *args, **kwargs)
        finally:
            keeper.lock.release()

    @wraps(change)
    async def alone(keeper: LedgerKeeper, /, *args: P.args, **kwargs: P.kwargs) -> T:
        await keeper.lock.acquire()
        return await to_its_end(held(keeper, *args, **kwargs))

    return alone


class LedgerKeeper:
    """Owns what this node has accepted.

    Attributes:
        lock: held while something is read, written or decided.
    """

    def __init__(
        self,
        mirrors: MirrorSet,
        state_dir: StateDir,
        *,
        state: StateStore,
        delete_grace_s: float,
        on_event: EventSink,
        on_config: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = state
        self._ledger: Table[str, Resolved] = state.table("ledger")
        self._pins: Table[str, Pins] = state.table("pins")
        unknown = Resolved(Standing.UNKNOWN, NO_LEDGER, NO_LEDGER.rank, certain=False)
        self._keep(unknown, Pins(PinBook()))
        self._grace = Grace(delete_grace_s)
        self._reader = Reader(mirrors)
        self._writer = Writer(mirrors, self._reader)
        self._mirrors = mirrors
        self._delete_grace_s = delete_grace_s
        self._emit = on_event
        self._on_config = on_config
        self.lock = asyncio.Lock()
        self._witness = Witness(state_dir)
        self._acknowledgement = Acknowledgement(mirrors, self._witness)

    @property
    def resolved(self) -> Resolved:
        """The state that decisions are made on."""
        return self._ledger[_CURRENT]

    @property
    def book(self) -> PinBook:
        """The pins."""
        return self._pins[_CURRENT].book

    @property
    def pins_known(self) -> bool:
        """False while there are pins on some dataset and none that can be read.

        Then nothing is dropped and nothing deleted: whatever it is, it may be pinned.
        """
        return self._pins[_CURRENT].known

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with the ledgers and the witness, for the status."""
        witness = (self._witness.problem,) if self._witness.problem else ()
        pins = () if self.pins_known else (_PINS_UNKNOWN,)
        return (*pins, *self._reader.troubles, *witness)

    def deletions_held_until_s(self) -> float:
        """Unix time before which nothing is deleted (D4); 0 when nothing holds deletions."""
        return self._grace.held_until_s(self.resolved.ledger.delete_not_before_s)

    async def load(self) -> None:
        """Read the witness and every ledger, at boot.

        Raises:
            FormatTooNew: the witness was written by a newer program.
        """
        await self._witness.load(self._mirrors.sled_id)
        await self.reload()

    @_alone
    async def reload(self) -> bool:
        """Look at every ledger again, after a dataset came; tell whether the config changed.

        What came is written to by others once it has the ledger (G3); one that fails at it stays
        out, and one that is too full for it gets it as soon as there is room.
        """
        before = self.resolved
        joining = [mirror for mirror in self._mirrors.all if mirror.joining]
        readings = await self._reader.read_all()
        await self._adopt(readings, before)
        if self.resolved.standing in _SETTLED and self.resolved.floor != NO_LEDGER.rank:
            content = await self._encoded(self.resolved.ledger)
            outcomes = await self._writer.spread(LEDGER_NAME, content, joining)
            failed = joining and outcomes.count(None) < len(outcomes)
            if failed or any(map(self._lacks, self._mirrors.all, readings)):
                self._acknowledgement.lacking()
            floor, certain = self.resolved.floor, self.resolved.certain
            self._acknowledgement.held_by(floor, outcomes.count(None))
            if certain or self._witness.rank is not None:
                await self._acknowledgement.remember(floor, certain=certain)
        if self.book.version:
            pins = await asyncio.to_thread(encode_pins, self.book)
            await self._writer.spread(PINS_DOCUMENT, pins, joining)
        for mirror in joining:
            if not self._unread_matters(readings[mirror.index]):
                mirror.join()
        return before.floor != self.resolved.floor

    @_alone
    async def put_config(self, proposed: ArtifactConfig) -> bool:
        """Accept a config; False when it is the one in force (which repairs its ledger copies).

        Raises:
            NoDataset, LedgerUnknown, ConfigGeneration, ArtifactInUse, QuotaExceeded, Io.
        """
        self._mirrors.require_readable()
        changed = self._judge(proposed)
        self._mirrors.require_healthy()
        if not changed:
            content = await self._encoded(self.resolved.ledger)
            # What nobody holds is not acknowledged (G3).
            holders = await self._writer.ensure(LEDGER_NAME, content)
            await self._acknowledgement.give(
                self.resolved.floor, holders, certain=self.resolved.certain
            )
            return False
        current, now_s = self.resolved.ledger, time.time()
        drops, grace_s = await asyncio.to_thread(self._weigh, current, proposed, now_s)
        if drops:
            await self._require_pins()
        try:
            await self._accept(Ledger(self.resolved.floor.epoch, proposed, grace_s))
        except DepotError as error:
            self._tell_refused(proposed, error)
            raise
        self._emit(
            "config_changed",
            {"generation": int(proposed.generation), "artifacts": len(proposed.artifacts)},
        )
        self._on_config()
        return True

    @_alone
    async def reset(self, expected: Generation) -> None:
        """Forget config and generation on every dataset, in a new epoch.

        Raises:
            NoDataset: a dataset is not there or cannot be written.
            NoConfig: there is nothing to forget.
            ConfigGeneration: `expected` is not the current generation.
        """
        healthy, configured = len(self._mirrors.healthy()), len(self._mirrors.all)
        if healthy < configured:
            raise NoDataset(
                "a reset needs every dataset present and writable, found "
                f"{healthy} of {configured}; the status says which is not"
            )
        floor = self.resolved.floor
        if floor.generation < 0:
            raise NoConfig
        if int(expected) != floor.generation:
            raise ConfigGeneration(
                f"expected generation {expected}, the current one is {floor.generation}",
                expected,
                Generation(floor.generation),
            )
        await self._accept(Ledger(floor.epoch + 1, None))
        self._emit("reset", {"generation": floor.generation, "ledger_epoch": floor.epoch + 1})

    @_alone
    async def put_pin(self, name: str, artifacts: Collection[ArtifactHash]) -> None:
        """Hold artifacts under a name.

        Raises:
            NoDataset, NoConfig, LedgerUnknown, NotInConfig, InvalidRequest, QuotaExceeded, Io.
        """
        self._mirrors.require_readable()
        config = fencing.check_config_known(self.resolved)
        outside = sorted(set(artifacts) - config.artifacts)
        if outside:
            raise NotInConfig(
                f"{len(outside)} artifact(s) of the pin, first {outside[0]}, are not in the "
                f"config of generation {config.generation}"
            )
        await self._require_pins()
        await self._replace_pins(self.book.with_pin(name, artifacts))

    @_alone
    async def delete_pin(self, name: str) -> None:
        """Let go of a pin.

        Raises:
            NoDataset, NotFound, QuotaExceeded, Io.
        """
        self._mirrors.require_readable()
        await self._require_pins()
        if name not in self.book.pins:
            raise NotFound(f"no pin is named {name!r}")
        await self._replace_pins(self.book.without_pin(name))

    async def close(self, within_s: float) -> None:
        """Wait for the change that is under way, if there is one; not for ever."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s), self.lock:
                pass

    def _judge(self, proposed: ArtifactConfig) -> bool:
        try:
            changed = fencing.accept_config(self.resolved, proposed, self.book.artifacts)
            rank = Ledger(self.resolved.floor.epoch, proposed).rank
            if changed and rank != self.resolved.floor:  # or it was acknowledged before
                self._acknowledgement.check(rank)
            return changed
        except DepotError as error:
            self._tell_refused(proposed, error)
            raise

    def _tell_refused(self, proposed: ArtifactConfig, error: DepotError) -> None:
        self._emit(
            "config_refused",
            {"generation": int(proposed.generation), "code": error.code, "error": str(error)},
        )

    async def _accept(self, ledger: Ledger) -> None:
        content = await self._encoded(ledger)
        await self._acknowledgement.begin(ledger.rank, certain=self.resolved.certain)
        try:
            holders = await self._writer.write(LEDGER_NAME, content)
        except NoDataset:
            self._acknowledgement.nobody_has(ledger.rank)
            raise
        # What a dataset knows that is away, or could not be written, is no better known now (G1).
        certain = self.resolved.certain or holders == len(self._mirrors.all)
        await self._acknowledgement.give(ledger.rank, holders, certain=certain)
        standing = Standing.EMPTY if ledger.config is None else Standing.CLEAR
        self._keep(Resolved(standing, ledger, ledger.rank, certain), self._pins[_CURRENT])

    def _weigh(self, current: Ledger, proposed: ArtifactConfig, now_s: float) -> tuple[bool, float]:
        """Tell whether it drops something, and until when (Unix time) nothing is deleted for it.

        In a thread: both go through every artifact. The lock keeps the ledger as it is meanwhile.
        """
        held = current.config.artifacts if current.config else frozenset()
        stored = frozenset[ArtifactHash]()
        if current.config is None:
            stored = stored.union(*(mirror.artifacts.rows for mirror in self._mirrors.all))
        grace_s = fencing.grace_end(current, proposed, now_s, self._delete_grace_s, stored)
        return not held <= proposed.artifacts, grace_s

    async def _encoded(self, ledger: Ledger) -> bytes:
        return await asyncio.to_thread(encode_ledger, ledger, self._mirrors.sled_id)

    async def _require_pins(self) -> None:
        """Raise LedgerUnknown while the pins are not known; they are looked for once more."""
        if not self.pins_known:
            readings = await self._reader.read_all()
            self._keep(self.resolved, self._pins_after(readings))
        if not self.pins_known:
            raise LedgerUnknown(_PINS_UNKNOWN)

    async def _replace_pins(self, book: PinBook) -> None:
        await self._writer.write(PINS_DOCUMENT, await asyncio.to_thread(encode_pins, book))
        self._keep(self.resolved, Pins(book, known=self.pins_known))

    def _keep(self, resolved: Resolved, pins: Pins) -> None:
        with self._store.transaction() as change:
            change.put(self._ledger, _CURRENT, resolved)
            change.put(self._pins, _CURRENT, pins)

    def _lacks(self, mirror: Mirror, reading: Reading) -> bool:
        """Tell whether a dataset that is there, and cannot be written, has not what is in force."""
        if mirror.healthy or mirror.joining or not mirror.readable:
            return False
        return reading.ledger is None or reading.ledger.rank != self.resolved.floor

    async def _adopt(self, readings: list[Reading], before: Resolved) -> None:
        found = [reading.ledger for reading in readings if reading.ledger is not None]
        unseen = sum(reading.unseen is not None for reading in readings)
        absent = len(readings) - len(found) - unseen
        # What was in force a moment ago counts even if the datasets that have it are away now.
        remembered = _settled_ledger(before)
        ledgers = found if remembered is None else [remembered, *found]
        resolved = resolve(
            Readings(ledgers, absent, unseen),
            self._witness.rank,
            witness_certain=self._witness.certain,
        )
        self._keep(await self._graced(resolved, before), self._pins_after(readings))

    async def _graced(self, found: Resolved, before: Resolved) -> Resolved:
        """Give what comes into force from a dataset the grace that what is sent would have (D4)."""
        if before.standing is Standing.UNKNOWN:
            return found  # as at a boot: it has the grace that it began with
        if found.config is None or found.floor == before.floor:
            return found
        _, grace_s = await asyncio.to_thread(self._weigh, before.ledger, found.config, time.time())
        latest_s = max(grace_s, found.ledger.delete_not_before_s)
        return replace(found, ledger=replace(found.ledger, delete_not_before_s=latest_s))

    def _unread_matters(self, reading: Reading) -> bool:
        """Tell whether a dataset has to be read again, at the next look, to know where we are."""
        known = self.resolved.standing is not Standing.UNKNOWN and self.pins_known
        return reading.device_failed and not known

    def _pins_after(self, readings: Sequence[Reading]) -> Pins:
        books = [reading.book for reading in readings if reading.book is not None]
        book = max((self.book, *books), key=lambda book: book.version)
        unread = any(reading.unpinned for reading in readings)
        return Pins(book, known=bool(books) or book.version > 0 or not unread)


def _settled_ledger(resolved: Resolved) -> Ledger | None:
    known = resolved.standing in _SETTLED and resolved.floor != NO_LEDGER.rank
    return resolved.ledger if known else None
