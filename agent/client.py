"""`AgentClient`: every endpoint of the sled agent API, for the commands and the coordinator.

How requests are made, and fail, is `agent.calls`'. Because an artifact is sent with
`Expect: 100-continue`, what the agent has already is not sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import aiohttp

from agent.calls import Calls, read_answer
from agent.upload import OnSent, open_upload
from agent.wire.artifacts import ArtifactDetailBody, ArtifactListBody, ArtifactPutBody
from agent.wire.checkpoints import CheckpointNoteBody, CheckpointNotesBody
from agent.wire.config import ArtifactConfigBody, ConfigResetBody
from agent.wire.copies import CopiesBody, CopyBody, CopyFromDepotBody, CopyStartedBody
from agent.wire.datasets import (
    DatasetBody,
    DatasetPathBody,
    DatasetReleaseBody,
    DatasetReplaceBody,
    DatasetsBody,
)
from agent.wire.events import EventsBody
from agent.wire.fields import hashes, texts
from agent.wire.identity import IdentityBody
from agent.wire.pins import PinBody, PinsBody
from agent.wire.quarantine import QuarantineBody, QuarantinedBody
from agent.wire.scrub import ScrubBody, ScrubPauseBody
from agent.wire.status import HealthBody, StatusBody
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.client import ClientTimeouts
from depot.errors import InvalidRequest, Unreachable

# After the last byte the agent still has to make it durable: minutes, on a slow disk.
ANSWER_TIMEOUT_S: Final = 300.0
OCTETS: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class PutAnswer:
    """How a put ended.

    Attributes:
        datasets: healthy datasets on the sled.
        successful_writes: datasets that hold the artifact durably.
        sent: whether the bytes were wanted; False when they were there already.
    """

    datasets: int
    successful_writes: int
    sent: bool


class AgentClient:
    """A client of one sled agent; an async context manager.

    Every method raises Unreachable and Refused.

    Args:
        url: where the agent listens.
        timeouts: how patient to be.
        answer_timeout_s: with an answer as a whole, and with a put after each block that moved.
        session: used instead of an own one, and not closed.

    Raises:
        InvalidRequest: `url` is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeouts: ClientTimeouts | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._calls = Calls(
            url,
            server="sled agent",
            timeouts=timeouts,
            answer_timeout_s=answer_timeout_s,
            session=session,
        )

    async def __aenter__(self) -> Self:
        """Open a session unless one was given."""
        await self._calls.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session if it is the client's own."""
        await self._calls.__aexit__(*exc)

    # ---- config

    async def config(self) -> ArtifactConfig:
        """What the sled is to hold; Refused with `NoConfig` when nobody has said yet."""
        body = await self._calls.get(ArtifactConfigBody, "artifacts-config")
        return await asyncio.to_thread(body.config)

    async def put_config(self, config: ArtifactConfig) -> None:
        """Tell the sled what to hold. Idempotent for the same config."""
        body = await asyncio.to_thread(ArtifactConfigBody.of, config)
        await self._calls.send("PUT", body, "artifacts-config")

    async def reset(self, expected_generation: Generation) -> None:
        """Make the sled forget its config and generation; it deletes nothing."""
        body = ConfigResetBody(expected_generation=int(expected_generation))
        await self._calls.send("POST", body, "artifacts-config", "reset")

    # ---- artifacts

    async def list_artifacts(self) -> ArtifactListBody:
        """The config's artifacts that are there, with the number of good copies."""
        return await self._calls.get(ArtifactListBody, "artifacts")

    async def describe(self, artifact: ArtifactHash) -> ArtifactDetailBody:
        """Where an artifact is on the sled."""
        return await self._calls.get(ArtifactDetailBody, "artifacts", str(artifact))

    async def put(
        self,
        artifact: ArtifactHash,
        generation: Generation,
        content: Path | bytes,
        *,
        on_sent: OnSent | None = None,
    ) -> PutAnswer:
        """Put an artifact on the sled, from a file or from memory. Idempotent.

        Args:
            artifact: what the content hashes to.
            generation: the sled's current one.
            content: the bytes, or the file that has them.
            on_sent: called with the number of bytes sent so far.

        Raises:
            OSError: the file cannot be read.
        """
        url = self._calls.at("artifacts", str(artifact), generation=int(generation))
        async with open_upload(
            content, on_sent=on_sent, idle_timeout_s=self._calls.answer_timeout_s
        ) as upload:
            try:
                body = await self._calls.upload(ArtifactPutBody, "PUT", url, upload, OCTETS)
            except Unreachable:
                if upload.error is not None:
                    raise upload.error from None
                raise
            return PutAnswer(body.datasets, body.successful_writes, upload.sent)

    # ---- copies

    async def copy(
        self, artifact: ArtifactHash, generation: Generation, sources: Sequence[str]
    ) -> str:
        """Have the sled fetch an artifact from depots, tried in this order; the copy's id.

        Returns once a source has said that it has the artifact.

        Raises:
            InvalidRequest: no source is named.
        """
        if not sources:
            raise InvalidRequest("expected at least one source to copy from")
        first, *others = sources
        body = CopyFromDepotBody(depot_base_url=first, depot_base_urls=tuple(others))
        path = ("artifacts", str(artifact), "copy-from-depot")
        started = await self._calls.ask(
            CopyStartedBody, "POST", self._calls.at(*path, generation=int(generation)), body
        )
        return started.copy_id

    async def copies(self) -> tuple[CopyBody, ...]:
        """Running and recent copies, oldest first."""
        return (await self._calls.get(CopiesBody, "copies")).copies

    async def copy_state(self, copy_id: str) -> CopyBody:
        """One copy."""
        return await self._calls.get(CopyBody, "copies", copy_id)

    # ---- pins

    async def pins(self) -> Mapping[str, frozenset[ArtifactHash]]:
        """What each pin holds, by name."""
        body = await self._calls.get(PinsBody, "pins")
        return {name: hashes(pin.artifacts) for name, pin in body.pins.items()}

    async def pin(self, name: str) -> frozenset[ArtifactHash]:
        """What one pin holds."""
        return hashes((await self._calls.get(PinBody, "pins", name)).artifacts)

    async def put_pin(self, name: str, artifacts: Collection[ArtifactHash]) -> None:
        """Hold artifacts of the current config under a name; replaces what it held before."""
        await self._calls.send("PUT", PinBody(artifacts=texts(artifacts)), "pins", name)

    async def delete_pin(self, name: str) -> None:
        """Let go of a pin's artifacts."""
        async with self._calls.exchange("DELETE", self._calls.at("pins", name)):
            return

    # ---- scrub

    async def scrub(self) -> ScrubBody:
        """How the background verification is."""
        return await self._calls.get(ScrubBody, "scrub")

    async def start_scrub(self) -> ScrubBody:
        """Have every copy verified from now on; joins such a pass, and ends a pause."""
        return await self._calls.ask(ScrubBody, "POST", self._calls.at("scrub"))

    async def pause_scrub(self, seconds: int) -> ScrubBody:
        """Have nothing verified in the background for so long."""
        body = ScrubPauseBody(seconds=seconds)
        return await self._calls.ask(ScrubBody, "POST", self._calls.at("scrub", "pause"), body)

    async def resume_scrub(self) -> ScrubBody:
        """End a pause."""
        return await self._calls.ask(ScrubBody, "POST", self._calls.at("scrub", "resume"))

    # ---- quarantine

    async def quarantined(self) -> tuple[QuarantinedBody, ...]:
        """Every damaged copy that was set aside, oldest first."""
        return (await self._calls.get(QuarantineBody, "quarantine")).quarantined

    async def restore_quarantined(self, id_: str) -> None:
        """Give a copy in quarantine its name back, if its bytes hash to it."""
        async with self._calls.exchange("POST", self._calls.at("quarantine", id_, "restore")):
            return

    async def purge_quarantined(self, id_: str, *, force: bool = False) -> None:
        """Delete a copy in quarantine; the last one of an artifact only with `force`."""
        url = self._calls.at("quarantine", id_)
        async with self._calls.exchange("DELETE", url.with_query(force="true") if force else url):
            return

    # ---- datasets

    async def datasets(self) -> tuple[DatasetBody, ...]:
        """Every dataset, in the order of the sled's configuration."""
        return (await self._calls.get(DatasetsBody, "datasets")).datasets

    async def release_dataset(self, path: str, *, last: bool = False) -> DatasetBody:
        """Have the sled let go of a dataset, so that it can be unmounted."""
        body = DatasetReleaseBody(path=path, last=last)
        return await self._calls.ask(
            DatasetBody, "POST", self._calls.at("datasets", "release"), body
        )

    async def attach_dataset(self, path: str) -> DatasetBody:
        """Have the sled take a released or retired dataset back."""
        body = DatasetPathBody(path=path)
        return await self._calls.ask(
            DatasetBody, "POST", self._calls.at("datasets", "attach"), body
        )

    async def replace_dataset(self, path: str, *, plain_directory: bool = False) -> DatasetBody:
        """Have the sled adopt an empty disk in place of the dataset that was at the path."""
        body = DatasetReplaceBody(path=path, plain_directory=plain_directory)
        return await self._calls.ask(
            DatasetBody, "POST", self._calls.at("datasets", "replace"), body
        )

    # ---- checkpoints of the fleet's journal

    async def checkpoints(self) -> tuple[str, ...]:
        """The signed checkpoints that the sled keeps."""
        return (await self._calls.get(CheckpointNotesBody, "checkpoints")).notes

    async def put_checkpoint(self, note: str) -> None:
        """Have the sled keep one; Refused when it contradicts what is kept."""
        await self._calls.send("PUT", CheckpointNoteBody(note=note), "checkpoints")

    # ---- how it is

    async def status(self) -> StatusBody:
        """Everything about the sled in one document."""
        return await self._calls.get(StatusBody, "status")

    async def identity(self) -> IdentityBody:
        """Which sled it is, and what it offers others: all of the status that later work rests on.

        Refused by agents that have no status.
        """
        return await self._calls.get(IdentityBody, "status")

    async def events(
        self, after: int = 0, *, limit: int | None = None, wait_s: int = 0
    ) -> EventsBody:
        """Events numbered above `after`, oldest first; waits up to `wait_s` for the next one."""
        query = {"after": after, "wait_s": wait_s} | ({} if limit is None else {"limit": limit})
        return await self._calls.ask(
            EventsBody, "GET", self._calls.at("events", **query), wait_s=wait_s
        )

    async def ready(self) -> HealthBody:
        """Whether the sled can take and serve artifacts; Refused with `NotReady` when not."""
        return await self._calls.get(HealthBody, "health", "ready")

    async def metrics(self) -> str:
        """Figures in the Prometheus text format."""
        async with self._calls.exchange("GET", self._calls.at("metrics")) as response:
            return (await read_answer(response)).decode(errors="replace")
