"""F4: a sled that stops answering in the middle of a copy keeps no slot that others wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from agent.wire.copies import CopyBody
from coordinator.replication.request_log import RequestLog
from coordinator.replication.requests import Requests
from coordinator.replication.transfers import Pace, Transfers
from coordinator.replication.verdict import Kind, Verdict
from coordinator.values import Sled
from depot.artifact import ArtifactHash, Generation
from tests.coordinator.replication.sim_sleds import SimCopy, refused
from tests.coordinator.replication.virtual import run

X = ArtifactHash.of(b"x")
SLED = Sled("s1", "http://s1:12345", "http://s1:12348")


class SilentAfterwards:
    """Accepts a copy, and says nothing any more."""

    async def copy(
        self, artifact: ArtifactHash, generation: Generation, sources: Sequence[str]
    ) -> str:
        return "copy-1"

    async def copy_state(self, copy_id: str) -> None:
        await asyncio.Event().wait()


def test_f4_each_question_about_a_copy_has_a_slot_for_a_few_seconds_only() -> None:
    async def scenario() -> Verdict | None:
        pace, loop = Pace(), asyncio.get_running_loop()
        requests = Requests(
            lambda _: SilentAfterwards(),  # type: ignore[arg-type,return-value]
            RequestLog(),
            max_concurrent=1,
        )
        transfers = Transfers(requests, None, pace)  # type: ignore[arg-type]
        began_s = loop.time()
        found = await transfers.fetch(SLED, X, Generation(1), [SLED], lambda: None)
        most_s = pace.unanswered * (pace.answer_s + pace.longest_poll_s)
        assert loop.time() - began_s <= most_s < pace.base_s
        return found

    found = run(scenario())
    assert found is not None
    assert found.kind is Kind.UNREACHABLE


class LongWinded(SilentAfterwards):
    """Accepts a copy under a name that takes seconds to make a URL of."""

    async def copy(
        self, artifact: ArtifactHash, generation: Generation, sources: Sequence[str]
    ) -> str:
        return "x" * 1_000_000


def test_f4_a_copy_whose_id_is_no_name_is_not_asked_after() -> None:
    async def scenario() -> Verdict | None:
        requests = Requests(lambda _: LongWinded(), RequestLog())  # type: ignore[arg-type,return-value]
        transfers = Transfers(requests, None)  # type: ignore[arg-type]
        return await transfers.fetch(SLED, X, Generation(1), [SLED], lambda: None)

    found = run(scenario())
    assert found is not None
    assert (found.kind, "1000000 characters" in found.reason) == (Kind.NONSENSE, True)


class Failing(SilentAfterwards):
    """Refuses a copy for want of its source, or accepts it and cannot get it."""

    def __init__(self, *, accepts: bool) -> None:
        self._accepts = accepts

    async def copy(
        self, artifact: ArtifactHash, generation: Generation, sources: Sequence[str]
    ) -> str:
        if not self._accepts:
            raise refused(502, "DepotCopy")
        return "copy-1"

    async def copy_state(self, copy_id: str) -> CopyBody:  # type: ignore[override]
        return SimCopy(copy_id, X, Generation(1), (), state="failed").body(1)


@pytest.mark.parametrize(
    ("accepts", "later", "counted"),
    [(False, True, "deferred"), (False, False, "copy_error"), (True, True, "copy_error")],
    ids=["too early", "in vain", "broken"],
)
def test_only_a_copy_that_never_began_and_is_tried_later_was_too_early(
    accepts: bool, later: bool, counted: str
) -> None:
    async def scenario() -> dict[str, int]:
        log, sled = RequestLog(), Failing(accepts=accepts)
        requests = Requests(lambda _: sled, log)  # type: ignore[arg-type,return-value]
        transfers = Transfers(requests, None)  # type: ignore[arg-type]
        await transfers.fetch(SLED, X, Generation(1), [SLED], lambda: None, lambda _: later)
        return dict(log.run)

    assert run(scenario()) == {counted: 1}
