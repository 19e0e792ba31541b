"""One put, one copy: from the request until it is known how that ended.

Rules kept here:
- A put may take as long as its bytes need at the least bearable rate, not a fixed time, if only
  they keep moving.
- A copy that was accepted is asked after until it has ended; it is that end which counts.
- A copy that makes no progress is no longer waited for. The sled may go on with it: the next pass
  sees what it has.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

from agent.client import PutAnswer
from agent.wire.copies import CopyBody
from coordinator.replication.ports import Agent, Staged, Staging
from coordinator.replication.request_log import COPY, PUT, STAGING, Request
from coordinator.replication.requests import Requests
from coordinator.replication.verdict import Kind, Verdict
from coordinator.values import Sled
from depot.artifact import ArtifactHash, Generation
from depot.errors import DepotError

MEASURED_BYTES: Final = 4 << 20
"""A shorter copy says more about the requests than about the bytes."""
MAX_BYTES: Final = 1 << 50
"""A sled that says that it has copied more says nothing."""
MAX_COPY_ID_LENGTH: Final = 256
STRIDE_BYTES: Final = 1 << 20
"""What counts as progress of a copy: a sled that gets less in its time stands still, as it were."""
OnMoved = Callable[[], None]
"""Called when the artifact begins to arrive, and whenever more of it has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How patient to be with transfers.

    Attributes:
        base_s: what a request takes besides its bytes.
        answer_s: what a question takes; a sled that hangs keeps others from asking so long (F4).
        idle_s: a put of which no block moves for so long is given up.
        least_bytes_per_s: so is one that is slower.
        first_poll_s, longest_poll_s: until a copy is asked after: soon at first, later each time.
        stalled_s: without a byte of progress, a copy is given up.
        unanswered: questions after a copy that may go unanswered in a row.
    """

    base_s: float = 60.0
    answer_s: float = 5.0
    idle_s: float = 30.0
    least_bytes_per_s: int = 1 << 20
    first_poll_s: float = 0.1
    longest_poll_s: float = 2.0
    stalled_s: float = 120.0
    unanswered: int = 3


class Transfers:
    """Puts artifacts on sleds, and has sleds fetch them.

    Attributes:
        paces: by sled, bytes per second of its fastest copies not long ago.
    """

    def __init__(self, requests: Requests, staging: Staging, pace: Pace | None = None) -> None:
        self._requests = requests
        self._staging = staging
        self._pace = pace or Pace()
        self.paces: dict[str, float] = {}

    async def send(
        self, sled: Sled, artifact: ArtifactHash, generation: Generation, on_moved: OnMoved
    ) -> Verdict | None:
        """Put a staged artifact on a sled; None when it is there."""
        try:
            staged = await self._staging.locate(artifact)
        except DepotError as error:
            return Verdict(Kind.LOCAL, str(error))
        outcome = await self._requests.ask(
            Request(sled, PUT, generation, artifact, STAGING),
            lambda agent: self._put(agent, artifact, generation, staged, on_moved),
            timeout_s=self._pace.base_s + staged.size_bytes / self._pace.least_bytes_per_s,
        )
        if not isinstance(outcome, Verdict):
            return None
        if outcome.kind is Kind.MISMATCH:
            # A disk that cannot be read now says so to the next pass, which asks it first.
            with suppress(DepotError):
                await self._staging.verify(artifact)
        return outcome

    async def _put(
        self,
        agent: Agent,
        artifact: ArtifactHash,
        generation: Generation,
        staged: Staged,
        on_moved: OnMoved,
    ) -> PutAnswer:
        """Put an artifact that keeps moving; raises TimeoutError when it does not."""
        loop, pace = asyncio.get_running_loop(), self._pace
        async with asyncio.timeout(pace.idle_s) as patience:

            def moved(sent_bytes: int) -> None:
                # Once it is all there, it still has to become durable.
                last = sent_bytes >= staged.size_bytes
                patience.reschedule(loop.time() + (pace.base_s if last else pace.idle_s))
                on_moved()

            return await agent.put(artifact, generation, staged.path, on_sent=moved)

    async def fetch(
        self,
        sled: Sled,
        artifact: ArtifactHash,
        generation: Generation,
        sources: Sequence[Sled],
        on_moved: OnMoved,
        is_tried_later: Callable[[Verdict], bool] = lambda _: False,
    ) -> Verdict | None:
        """Have a sled fetch an artifact from the depots of others; None when it is there.

        When it is not, `is_tried_later` is asked. A copy that was not even accepted, and is tried
        later, was only too early.
        """
        request = Request(sled, COPY, generation, artifact, sources[0].id)
        urls = [source.depot_url for source in sources]
        copy_id = await self._requests.ask_quietly(
            request,
            lambda agent: agent.copy(artifact, generation, urls),
            timeout_s=self._pace.base_s,
        )
        if isinstance(copy_id, Verdict):
            outcome: Verdict | None = copy_id
        elif len(copy_id) > MAX_COPY_ID_LENGTH:
            outcome = Verdict(Kind.NONSENSE, f"its id of a copy has {len(copy_id)} characters")
        else:
            on_moved()
            outcome = await self._follow(request, copy_id, on_moved)
        later = outcome is not None and is_tried_later(outcome)
        self._requests.note(request, outcome, too_early=later and outcome is copy_id)
        return outcome

    async def _follow(self, request: Request, copy_id: str, on_moved: OnMoved) -> Verdict | None:
        loop = asyncio.get_running_loop()
        pause_s, unanswered = self._pace.first_poll_s, 0
        done_bytes, moved_at_s = 0, loop.time()
        while True:
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._pace.longest_poll_s)
            copy = await self._look(request, copy_id)
            if isinstance(copy, Verdict):
                unanswered += 1
                if copy.kind is not Kind.UNREACHABLE or unanswered >= self._pace.unanswered:
                    return copy
                continue
            unanswered = 0
            if copy.state != "running":
                self._note_pace(request.sled.id, copy)
                return _ended(copy)
            if copy.bytes_done - done_bytes >= STRIDE_BYTES:
                done_bytes, moved_at_s = copy.bytes_done, loop.time()
                on_moved()
            elif loop.time() - moved_at_s > self._pace.stalled_s:
                return Verdict(Kind.REFUSED, f"the copy stands still at {done_bytes} bytes")

    def _note_pace(self, sled_id: str, copy: CopyBody) -> None:
        """One slow copy may be its source's fault; of several, the sled's own."""
        size_bytes = copy.bytes_total or 0
        if copy.state != "succeeded" or copy.finished_at is None:
            return
        if not MEASURED_BYTES <= size_bytes <= MAX_BYTES:
            return
        took_s = (copy.finished_at - copy.started_at).total_seconds()
        if took_s > 0:
            self.paces[sled_id] = max(size_bytes / took_s, self.paces.get(sled_id, 0.0) / 2)

    async def _look(self, request: Request, copy_id: str) -> CopyBody | Verdict:
        return await self._requests.ask_quietly(
            request, lambda agent: agent.copy_state(copy_id), timeout_s=self._pace.answer_s
        )


def _ended(copy: CopyBody) -> Verdict | None:
    if copy.state == "succeeded":
        return None
    kind = Kind.SOURCE if copy.state == "failed" else Kind.REFUSED
    return Verdict(kind, f"the copy is {copy.state}: {copy.error or 'no reason is given'}")
