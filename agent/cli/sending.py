"""Sending files to a sled, one after the other.

Rules kept here:

- A refused file does not stop the others; a server that is gone does.
- When somebody else moves the generation meanwhile, it is followed once, unless the user named it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rich.text import Text

from agent.cli.failures import ExitCode, Failure, local, naming
from agent.cli.formats import short, size
from agent.cli.hashing import LocalFile
from agent.cli.output import Output
from agent.cli.progress import Meter, display
from agent.cli.servers import failure_of
from agent.client import AgentClient
from depot.artifact import Generation
from depot.errors import ArtifactGeneration, DepotError, QuotaExceeded, Refused


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one file fared."""

    file: LocalFile
    result: Literal["stored", "held", "failed"]
    datasets: int = 0
    copies: int = 0
    failure: Failure | None = None

    @property
    def lost(self) -> bool:
        """Whether the server is gone, so that there is no point in going on."""
        return self.failure is not None and self.failure.exit_code is ExitCode.UNREACHABLE

    def document(self) -> dict[str, object]:
        """The outcome for --json."""
        fared = {"datasets": self.datasets, "successful_writes": self.copies}
        return {
            "file": str(self.file.path),
            "sha256": str(self.file.sha256),
            "size_bytes": self.file.size_bytes,
            "result": self.result,
            **({"error": self.failure.document()} if self.failure else fared),
        }

    def row(self, configured: int, *, long: bool) -> tuple[str | Text, ...]:
        """The outcome for people; of the `configured` datasets, the sled counts the healthy."""
        sha256 = str(self.file.sha256)
        datasets = max(configured, self.datasets)
        everywhere = 0 < self.copies == datasets
        copies = f"{self.copies} of {datasets}"
        return (
            sha256 if long else short(sha256),
            size(self.file.size_bytes),
            Text(self.result, style="red" if self.failure else ""),
            "-" if self.failure else Text(copies, style="" if everywhere else "yellow"),
            self.file.path.name,
        )

    def explained(self, room: str) -> Outcome:
        """The same; to a refusal for want of space, `room` is added."""
        if self.failure is None or self.failure.code != QuotaExceeded.code:
            return self
        return replace(self, failure=self.failure.extended(room))


class Sender:
    """Sends files one after the other under one generation, and follows it when it moves on.

    `pinned` says that the user named the generation: then it is not followed.
    """

    def __init__(
        self, client: AgentClient, url: str, generation: Generation, *, pinned: bool
    ) -> None:
        self._client = client
        self._url = url
        self._pinned = pinned
        self.generation = generation

    async def send_all(self, files: Sequence[LocalFile], output: Output) -> list[Outcome]:
        """Send file after file; a refused one does not stop the others, a lost server does."""
        outcomes: list[Outcome] = []
        total_bytes = sum(file.size_bytes for file in files)
        with Meter(display(output), "sending", total_bytes) as meter:
            for index, file in enumerate(files, 1):
                before = meter.done_bytes
                meter.label(f"{index}/{len(files)} {file.path.name}")
                outcome = await self._send(file, meter)
                outcomes.append(outcome)
                if outcome.lost:
                    break
                # What was not sent does not count, or the rate would be a fairy tale.
                sent_bytes = file.size_bytes if outcome.result == "stored" else 0
                total_bytes -= file.size_bytes - sent_bytes
                meter.set(before + sent_bytes, total_bytes)
        return outcomes

    async def _send(self, file: LocalFile, meter: Meter) -> Outcome:
        try:
            with naming(file.path):
                return await self._send_following(file, meter)
        except DepotError as error:
            return Outcome(file, "failed", failure=failure_of(error, "agent", self._url))
        except OSError as error:
            return Outcome(file, "failed", failure=local(error))

    async def _send_following(self, file: LocalFile, meter: Meter) -> Outcome:
        try:
            return await self._send_once(file, meter)
        except Refused as error:
            if self._pinned or error.remote_code != ArtifactGeneration.code:
                raise
        self.generation = (await self._client.config()).generation
        return await self._send_once(file, meter)

    async def _send_once(self, file: LocalFile, meter: Meter) -> Outcome:
        before = meter.done_bytes
        answer = await self._client.put(
            file.sha256, self.generation, file.path, on_sent=lambda sent: meter.at(before + sent)
        )
        return Outcome(
            file,
            "stored" if answer.sent else "held",
            datasets=answer.datasets,
            copies=answer.successful_writes,
        )
