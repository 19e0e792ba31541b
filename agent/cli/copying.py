"""Having a sled fetch artifacts: starting the copies, and following them to their end.

A sled runs a bounded number of copies at once and refuses more (429). What it has no room for waits
here and is asked for again, so that one command may name any number of artifacts. A refusal of one
artifact does not stop the others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent.cli.failures import ExitCode, Failure
from agent.cli.progress import Meter
from agent.client import AgentClient
from agent.wire.copies import CopyBody
from depot.artifact import ArtifactHash, Generation
from depot.errors import DepotError, Refused, TooManyCopies, Unreachable

# Small artifacts end at once, large ones not for minutes.
FIRST_POLL_S: Final = 0.05
LONGEST_POLL_S: Final = 0.5


@dataclass(slots=True)
class Wanted:
    """One artifact of the batch, and what is known of its copy."""

    sha256: str
    copy_id: str | None = None
    copy: CopyBody | None = None
    failure: Failure | None = None

    @property
    def state(self) -> str:
        """The copy's state, or how far it came before it had one."""
        if self.failure is not None:
            return "failed"
        if self.copy is not None:
            return self.copy.state
        return "started" if self.copy_id else "waiting"

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state not in ("waiting", "started", "running")

    def document(self) -> dict[str, object]:
        """The copy for --json."""
        if self.copy is not None:
            return self.copy.model_dump(mode="json")
        error = {"error": self.failure.document()} if self.failure else {}
        return {
            "sha256": self.sha256,
            "copy_id": self.copy_id,
            "state": self.state,
            **error,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The copies of one command."""

    client: AgentClient
    generation: Generation
    sources: Sequence[str]
    wanted: Sequence[Wanted]
    failure_of: Callable[[DepotError], Failure]
    queue: deque[Wanted] = field(default_factory=deque)

    async def run(self, meter: Meter, *, wait: bool) -> None:
        """Start every copy and, with `wait`, follow all to their end."""
        self.queue.extend(self.wanted)
        await self._start_some()
        poll_s = FIRST_POLL_S
        while self.queue or (wait and not all(item.over for item in self.wanted)):
            await asyncio.sleep(poll_s)
            poll_s = min(2 * poll_s, LONGEST_POLL_S)
            await self._refresh()
            self._show(meter)
            await self._start_some()
        if not wait and not all(item.over for item in self.wanted):
            await self._look_once()
        self._show(meter)

    async def _start_some(self) -> None:
        """Start copies until the sled has no room for more."""
        while self.queue and await self._start(self.queue[0]):
            self.queue.popleft()

    async def _start(self, item: Wanted) -> bool:
        """Start one copy; False when there is no room for it now."""
        try:
            item.copy_id = await self.client.copy(
                ArtifactHash.parse(item.sha256), self.generation, self.sources
            )
        except Unreachable:
            raise
        except DepotError as error:
            if isinstance(error, Refused) and error.remote_code == TooManyCopies.code:
                return False
            item.failure = self.failure_of(error)
        return True

    async def _look_once(self) -> None:
        """See which copies are over as soon as they are begun, such as those of what is held."""
        listed = {copy.copy_id: copy for copy in await self.client.copies()}
        for item in self.wanted:
            copy = listed.get(item.copy_id or "")
            if not item.over and copy is not None and copy.state != "running":
                item.copy = copy

    async def _refresh(self) -> None:
        listed = {copy.copy_id: copy for copy in await self.client.copies()}
        for item in self.wanted:
            if item.over or item.copy_id is None:
                continue
            if item.copy_id in listed:
                item.copy = listed[item.copy_id]
            else:
                item.failure = _forgotten(item)

    def _show(self, meter: Meter) -> None:
        known = [item.copy for item in self.wanted if item.copy]
        over = sum(item.over for item in self.wanted)
        meter.label(f"{over}/{len(self.wanted)}")
        meter.set(
            sum(copy.bytes_done for copy in known),
            sum(copy.bytes_total or copy.bytes_done for copy in known),
        )


def _forgotten(item: Wanted) -> Failure:
    return Failure(
        f"the sled no longer lists copy {item.copy_id}: it was restarted, or has run many others",
        ExitCode.REFUSED,
        code="CopyForgotten",
        hint="`depot ls` shows whether the artifact arrived",
    )
