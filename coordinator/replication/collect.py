"""Collect: tell every sled what to hold, and have it say what it has.

Rules kept here:
- A sled says what it has under the generation of the pass, or it is set aside with the reason. That
  list stands until the sled takes a higher generation, however much later it is read (F2).
- One conversation with a sled at a time. A slow one is not waited for once the others are through:
  it goes on, and what it ends in counts in the next pass if that is of the same generation (F4).
- Sleds that did not answer the last time are asked who they are beside all others, many at once:
  one that is back does not wait for those that are not. Of those that answer that, a few take slots
  at once, never all of them.
- Whatever goes wrong while a sled's answers are read sets that sled aside, and no other (F4).
- A pass that was stalled on its way tells no sled anything before it has seen that the database
  has not moved on: a sled whose ledger was reset meanwhile would believe it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Final

import structlog

from agent.wire.artifacts import ArtifactListBody
from agent.wire.copies import CopyBody
from agent.wire.identity import IdentityBody
from coordinator.errors import DatabaseUnavailable
from coordinator.replication.identity import (
    SAYS_NOTHING,
    Identities,
    each_machine_once,
    other_sled,
    unwell,
)
from coordinator.replication.ports import AsOf, FleetSnapshot
from coordinator.replication.report import SledReport
from coordinator.replication.request_log import LIST, PUT_CONFIG, Request
from coordinator.replication.requests import Requests
from coordinator.replication.verdict import (
    OUT_OF_DATE,
    Kind,
    OutOfDate,
    Verdict,
    compare,
    nonsense,
)
from coordinator.values import Sled
from depot.artifact import ArtifactHash, Generation

TIMEOUT_S: Final = 15.0
ARTIFACTS_PER_S: Final = 5_000
"""By which a request about all of them may take longer."""
IN_THREAD: Final = 5_000
"""A longer list would keep everything else waiting."""
MAX_COPIES: Final = 64
"""Of one artifact on one sled; nobody has as many datasets."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long slow sleds are waited for, seconds.

    Attributes:
        others_s: when no sled has said anything for so long, the rest are left for the next pass.
        suspects_s: the same, when only those are left that did not answer the last time.
        stalled_s: when the pass is older, the database is asked before a sled is told anything.
    """

    others_s: float = 3.0
    suspects_s: float = 0.5
    stalled_s: float = 5.0


_SAYS_NOTHING: Final = (Kind.UNREACHABLE, Kind.LOCAL, Kind.OTHER_SLED)
_STILL_ASKED: Final = Verdict(Kind.UNREACHABLE, "has not answered yet")


@dataclass(frozen=True, slots=True)
class _Conversation:
    generation: Generation
    sled: Sled
    as_of: AsOf
    suspect: bool
    task: asyncio.Task[SledReport]


class Collector:
    """Asks all sleds, pass after pass; an async context manager that owns the conversations.

    Args:
        read_generation: reads it from the database.
        on_late: called when a sled has answered that no pass waited for any more.
    """

    def __init__(
        self,
        requests: Requests,
        read_generation: Callable[[], Awaitable[Generation]],
        *,
        on_late: Callable[[], None] = lambda: None,
        patience: Patience | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._requests = requests
        self._read_generation = read_generation
        self._on_late = on_late
        self._patience = patience or Patience()
        self._clock = clock
        self._conversations: dict[str, _Conversation] = {}
        # Those that said nothing the last time, and why as far as that is known.
        self._silent: dict[str, Verdict] = {}
        self._identities = Identities()
        self._suspect_slots = asyncio.Semaphore(max(1, requests.max_concurrent // 4))
        self._progress = asyncio.Event()
        self._waiting = False

    async def __aenter__(self) -> Collector:
        """Nothing runs yet."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """End all conversations."""
        await self._end(list(self._conversations))

    async def collect(self, snapshot: FleetSnapshot, as_of: AsOf) -> Mapping[str, SledReport]:
        """Ask all sleds of `snapshot`, which was read after `as_of`; a report of each, by id."""
        await self._end(self._overtaken(snapshot))
        for sled in snapshot.sleds:
            if sled.id not in self._conversations:
                self._begin(sled, snapshot, as_of)
        self._waiting = True
        try:
            await self._wait()
        finally:
            self._waiting = False
        return each_machine_once({sled.id: await self._report(sled) for sled in snapshot.sleds})

    def _overtaken(self, snapshot: FleetSnapshot) -> list[str]:
        """Conversations that lead nowhere: about another generation or address, or over in vain."""
        addresses = {sled.id: sled.agent_url for sled in snapshot.sleds}
        return [
            id_
            for id_, talk in self._conversations.items()
            if talk.generation != snapshot.generation
            or talk.sled.agent_url != addresses.get(id_)
            or (talk.task.done() and not _says_something(talk.task))
        ]

    def _begin(self, sled: Sled, snapshot: FleetSnapshot, as_of: AsOf) -> None:
        suspect = sled.id in self._silent
        task = asyncio.create_task(self._talk(sled, snapshot, as_of), name=f"ask {sled.id}")
        task.add_done_callback(self._ended)
        self._conversations[sled.id] = _Conversation(
            snapshot.generation, sled, as_of, suspect, task
        )

    def _ended(self, task: asyncio.Task[SledReport]) -> None:
        self._progress.set()
        if not self._waiting and not task.cancelled() and _says_something(task):
            self._on_late()

    async def _wait(self) -> None:
        """Until all have answered, or those that have not are the slow ones."""
        while left := [each for each in self._conversations.values() if not each.task.done()]:
            prompt = not all(each.suspect for each in left)
            self._progress.clear()
            try:
                async with asyncio.timeout(
                    self._patience.others_s if prompt else self._patience.suspects_s
                ):
                    await self._progress.wait()
            except TimeoutError:
                if not prompt or not self._requests.waiting:
                    return

    async def _report(self, sled: Sled) -> SledReport:
        talk = self._conversations[sled.id]
        if not talk.task.done():
            verdict = self._silent.setdefault(sled.id, _STILL_ASKED)
            return SledReport(sled_id=sled.id, as_of=talk.as_of, verdict=verdict)
        del self._conversations[sled.id]
        report = await talk.task
        if report.verdict is not None and report.verdict.kind is Kind.UNREACHABLE:
            self._silent[sled.id] = report.verdict
            self._identities.forget(sled.id)
        else:
            self._silent.pop(sled.id, None)
        return report

    async def _end(self, ids: Iterable[str]) -> None:
        tasks = [self._conversations.pop(id_).task for id_ in list(ids)]
        for task in tasks:
            task.cancel()
        # What they ended in counts no more: `_talk` lets out only that the database was away.
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- one conversation

    async def _talk(self, sled: Sled, snapshot: FleetSnapshot, as_of: AsOf) -> SledReport:
        try:
            nothing = SledReport(sled_id=sled.id, as_of=as_of)
            suspect = sled.id in self._silent
            identity = await self._identify(sled, snapshot.generation, probe=suspect)
            if isinstance(identity, Verdict):
                return replace(nothing, verdict=identity)
            nothing = replace(
                nothing,
                said_id=identity.sled_id,
                relays=identity.relay.offered,
                datasets=min(len(identity.datasets), MAX_COPIES),
            )
            async with self._suspect_slots if suspect else nullcontext():
                return await self._tell(sled, snapshot, nothing)
        except DatabaseUnavailable:
            raise
        except Exception as error:  # A task root: F4 instead of the end of the pass.
            _log.exception("cannot deal with what a sled answers", sled=sled.id)
            return self._seen(SledReport(sled_id=sled.id, as_of=as_of, verdict=nonsense(error)))

    async def _identify(
        self, sled: Sled, generation: Generation, *, probe: bool
    ) -> IdentityBody | Verdict:
        """Which sled answers there; why nothing is to be said to it."""
        now_s = asyncio.get_running_loop().time()
        if not probe and (known := self._identities.of(sled, now_s)) is not None:
            return known
        request = Request(sled, PUT_CONFIG, generation)
        said = await self._requests.ask_quietly(
            request, lambda agent: agent.identity(), timeout_s=TIMEOUT_S, probe=probe
        )
        if isinstance(said, Verdict):
            if said.kind is Kind.UNREACHABLE:
                self._requests.note(request, said)
                return said
            said = SAYS_NOTHING  # it does not have to
        if (other := other_sled(sled, said)) is not None:
            self._requests.note(request, other)
            return other
        self._identities.learn(sled, said, now_s)
        return said

    async def _tell(self, sled: Sled, snapshot: FleetSnapshot, nothing: SledReport) -> SledReport:
        generation, as_of = snapshot.generation, nothing.as_of
        timeout_s = TIMEOUT_S + len(snapshot.sizes) / ARTIFACTS_PER_S
        request = Request(sled, PUT_CONFIG, generation)
        told = await self._requests.ask_quietly(
            request,
            lambda agent: agent.put_config(snapshot.config(sled.id)),
            timeout_s=timeout_s,
            before=lambda: self._check_current(generation, as_of),
        )
        if told is OUT_OF_DATE:
            return replace(nothing, verdict=OUT_OF_DATE)
        self._requests.note(request, told)
        if told is not None:
            return await self._not_told(sled, generation, replace(nothing, verdict=told))
        listing = await self._requests.ask(
            Request(sled, LIST, generation),
            lambda agent: agent.list_artifacts(),
            timeout_s=timeout_s,
        )
        if isinstance(listing, Verdict):
            return self._seen(replace(nothing, verdict=listing, generation=generation))
        return await self._listed(sled, snapshot, listing, nothing)

    async def _check_current(self, generation: Generation, as_of: AsOf) -> None:
        # When it is this request's turn: a coordinator may have stood still before it was.
        age_s = asyncio.get_running_loop().time() - as_of.loop_s
        if age_s > self._patience.stalled_s and await self._read_generation() != generation:
            raise OutOfDate

    async def _not_told(self, sled: Sled, generation: Generation, report: SledReport) -> SledReport:
        assert report.verdict is not None
        report = self._seen(replace(report, generation=report.verdict.current))
        if report.verdict is None or report.verdict.kind is not Kind.PINNED:
            return report
        return replace(report, pinned=await self._pins(sled, generation))

    async def _listed(
        self, sled: Sled, snapshot: FleetSnapshot, listing: ArtifactListBody, nothing: SledReport
    ) -> SledReport:
        generation = Generation(listing.generation)
        report = self._seen(
            replace(
                nothing,
                generation=generation,
                verdict=compare(generation, snapshot.generation),
            )
        )
        if report.verdict is not None:
            return report
        if len(listing.list) < IN_THREAD:
            held = _held(listing.list, snapshot.names)
        else:
            held = await asyncio.to_thread(_held, listing.list, snapshot.names)
        report = replace(report, held=held)
        if min(held.values(), default=MAX_COPIES) < report.datasets:
            report = replace(report, unwell=await self._unwell(sled, snapshot))
        if len(held) < len(snapshot.names):
            report = replace(report, copying=await self._copying(sled, snapshot))
        if snapshot.kept.get(sled.id):
            report = replace(report, pinned=await self._pins(sled, snapshot.generation))
        return report

    def _seen(self, report: SledReport) -> SledReport:
        if report.verdict is not None and report.verdict.kind in _SAYS_NOTHING:
            return report
        return replace(report, seen_at_s=self._clock())

    async def _copying(self, sled: Sled, snapshot: FleetSnapshot) -> frozenset[ArtifactHash]:
        """Ask what is under way there; a sled that does not say is planned for anew."""
        copies: tuple[CopyBody, ...] | Verdict = await self._requests.ask_quietly(
            Request(sled, LIST, snapshot.generation),
            lambda agent: agent.copies(),
            timeout_s=TIMEOUT_S,
        )
        if isinstance(copies, Verdict):
            return frozenset()
        running = (copy.sha256 for copy in copies if copy.state == "running")
        return frozenset(snapshot.names[name] for name in running if name in snapshot.names)

    async def _unwell(self, sled: Sled, snapshot: FleetSnapshot) -> tuple[str, ...]:
        """Ask which datasets have no part in the copies: what is known of that may be old."""
        said = await self._requests.ask_quietly(
            Request(sled, LIST, snapshot.generation),
            lambda agent: agent.identity(),
            timeout_s=TIMEOUT_S,
        )
        return () if isinstance(said, Verdict) else unwell(said)

    async def _pins(self, sled: Sled, generation: Generation) -> frozenset[ArtifactHash] | None:
        pins = await self._requests.ask_quietly(
            Request(sled, LIST, generation), lambda agent: agent.pins(), timeout_s=TIMEOUT_S
        )
        return None if isinstance(pins, Verdict) else frozenset().union(*pins.values())


def _held(listed: Mapping[str, int], names: Mapping[str, ArtifactHash]) -> dict[ArtifactHash, int]:
    return {
        names[name]: min(copies, MAX_COPIES)
        for name, copies in listed.items()
        if copies and name in names
    }


def _says_something(task: asyncio.Task[SledReport]) -> bool:
    """Whether a conversation that is over has an outcome that a later pass can use."""
    if task.exception() is not None:  # the database was away then
        return False
    verdict = task.result().verdict
    return verdict is None or verdict.kind not in _SAYS_NOTHING
