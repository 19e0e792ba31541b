"""`AgentClient`: every endpoint of the sled agent API, for the commands and the coordinator.

Rules kept here:
- What was refused is `Refused`, with the agent's code, message and request id; what could not be
  asked, or was answered with something else than the contract says, is `Unreachable`.
- An artifact is sent with `Expect: 100-continue`: a refusal arrives instead of a broken pipe, and
  what the agent has already is not sent.
- No redirects. Answers are bounded in size, silence is bounded in time.
"""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from pydantic import BaseModel, ValidationError
from yarl import URL

from agent.upload import OnSent, Upload, open_upload
from agent.wire import (
    ArtifactConfigBody,
    ArtifactDetailBody,
    ArtifactListBody,
    ArtifactPutBody,
    ConfigResetBody,
    CopiesBody,
    CopyBody,
    CopyFromDepotBody,
    CopyStartedBody,
    DatasetBody,
    DatasetPathBody,
    DatasetReleaseBody,
    DatasetReplaceBody,
    DatasetsBody,
    EventsBody,
    HealthBody,
    PinBody,
    PinsBody,
    QuarantineBody,
    QuarantinedBody,
    ScrubBody,
    ScrubPauseBody,
    StatusBody,
    hashes,
    texts,
)
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.client import ClientTimeouts
from depot.errors import InvalidRequest, Unreachable
from depot.remote import Session, base_url, raise_for_problem, reaching

# A config of 16 MiB comes back with at most as many bytes; a status has far fewer.
MAX_ANSWER_BYTES: Final = 32 << 20
PARSE_IN_THREAD_BYTES: Final = 64 << 10
# After the last byte the agent still has to make it durable: minutes, on a slow disk.
ANSWER_TIMEOUT_S: Final = 300.0

Body = TypeVar("Body", bound=BaseModel)


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
        self._url = base_url(url)
        self._timeouts = timeouts or ClientTimeouts()
        self._answer_timeout_s = answer_timeout_s
        self._session = Session(session)

    async def __aenter__(self) -> Self:
        """Open a session unless one was given."""
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session if it is the client's own."""
        await self._session.__aexit__(*exc)

    # ---- config

    async def config(self) -> ArtifactConfig:
        """What the sled is to hold; Refused with `NoConfig` when nobody has said yet."""
        body = await self._get(ArtifactConfigBody, "artifacts-config")
        return await asyncio.to_thread(body.config)

    async def put_config(self, config: ArtifactConfig) -> None:
        """Tell the sled what to hold. Idempotent for the same config."""
        body = await asyncio.to_thread(ArtifactConfigBody.of, config)
        await self._send("PUT", body, "artifacts-config")

    async def reset(self, expected_generation: Generation) -> None:
        """Make the sled forget its config and generation; it deletes nothing."""
        body = ConfigResetBody(expected_generation=int(expected_generation))
        await self._send("POST", body, "artifacts-config", "reset")

    # ---- artifacts

    async def list_artifacts(self) -> ArtifactListBody:
        """The config's artifacts that are there, with the number of good copies."""
        return await self._get(ArtifactListBody, "artifacts")

    async def describe(self, artifact: ArtifactHash) -> ArtifactDetailBody:
        """Where an artifact is on the sled."""
        return await self._get(ArtifactDetailBody, "artifacts", str(artifact))

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
        async with open_upload(
            content, on_sent=on_sent, idle_timeout_s=self._answer_timeout_s
        ) as upload:
            try:
                body = await self._upload(artifact, generation, upload)
            except Unreachable:
                if upload.error is not None:
                    raise upload.error from None
                raise
            return PutAnswer(body.datasets, body.successful_writes, upload.sent)

    async def _upload(
        self, artifact: ArtifactHash, generation: Generation, upload: Upload
    ) -> ArtifactPutBody:
        headers = {
            hdrs.CONTENT_LENGTH: str(upload.size_bytes),
            hdrs.CONTENT_TYPE: "application/octet-stream",
        }
        with reaching(self._url):
            async with (
                upload.patience(),
                self._request(
                    "PUT",
                    self._at("artifacts", str(artifact), generation=int(generation)),
                    data=upload.blocks(),
                    headers=headers,
                    expect100=True,
                    timeout=aiohttp.ClientTimeout(
                        total=None, sock_connect=self._timeouts.connect_s
                    ),
                ) as response,
            ):
                return await _parse(response, ArtifactPutBody)

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
        started = await self._ask(
            CopyStartedBody, "POST", self._at(*path, generation=int(generation)), body
        )
        return started.copy_id

    async def copies(self) -> tuple[CopyBody, ...]:
        """Running and recent copies, oldest first."""
        return (await self._get(CopiesBody, "copies")).copies

    async def copy_state(self, copy_id: str) -> CopyBody:
        """One copy."""
        return await self._get(CopyBody, "copies", copy_id)

    # ---- pins

    async def pins(self) -> Mapping[str, frozenset[ArtifactHash]]:
        """What each pin holds, by name."""
        body = await self._get(PinsBody, "pins")
        return {name: hashes(pin.artifacts) for name, pin in body.pins.items()}

    async def pin(self, name: str) -> frozenset[ArtifactHash]:
        """What one pin holds."""
        return hashes((await self._get(PinBody, "pins", name)).artifacts)

    async def put_pin(self, name: str, artifacts: Collection[ArtifactHash]) -> None:
        """Hold artifacts of the current config under a name; replaces what it held before."""
        await self._send("PUT", PinBody(artifacts=texts(artifacts)), "pins", name)

    async def delete_pin(self, name: str) -> None:
        """Let go of a pin's artifacts."""
        async with self._exchange("DELETE", self._at("pins", name)):
            return

    # ---- scrub

    async def scrub(self) -> ScrubBody:
        """How the background verification is."""
        return await self._get(ScrubBody, "scrub")

    async def start_scrub(self) -> ScrubBody:
        """Have every copy verified from now on; joins such a pass, and ends a pause."""
        return await self._ask(ScrubBody, "POST", self._at("scrub"))

    async def pause_scrub(self, seconds: int) -> ScrubBody:
        """Have nothing verified in the background for so long."""
        body = ScrubPauseBody(seconds=seconds)
        return await self._ask(ScrubBody, "POST", self._at("scrub", "pause"), body)

    async def resume_scrub(self) -> ScrubBody:
        """End a pause."""
        return await self._ask(ScrubBody, "POST", self._at("scrub", "resume"))

    # ---- quarantine

    async def quarantined(self) -> tuple[QuarantinedBody, ...]:
        """Every damaged copy that was set aside, oldest first."""
        return (await self._get(QuarantineBody, "quarantine")).quarantined

    async def restore_quarantined(self, id_: str) -> None:
        """Give a copy in quarantine its name back, if its bytes hash to it."""
        async with self._exchange("POST", self._at("quarantine", id_, "restore")):
            return

    async def purge_quarantined(self, id_: str, *, force: bool = False) -> None:
        """Delete a copy in quarantine; the last one of an artifact only with `force`."""
        url = self._at("quarantine", id_)
        async with self._exchange("DELETE", url.with_query(force="true") if force else url):
            return

    # ---- datasets

    async def datasets(self) -> tuple[DatasetBody, ...]:
        """Every dataset, in the order of the sled's configuration."""
        return (await self._get(DatasetsBody, "datasets")).datasets

    async def release_dataset(self, path: str, *, last: bool = False) -> DatasetBody:
        """Have the sled let go of a dataset, so that it can be unmounted."""
        body = DatasetReleaseBody(path=path, last=last)
        return await self._ask(DatasetBody, "POST", self._at("datasets", "release"), body)

    async def attach_dataset(self, path: str) -> DatasetBody:
        """Have the sled take a released or retired dataset back."""
        body = DatasetPathBody(path=path)
        return await self._ask(DatasetBody, "POST", self._at("datasets", "attach"), body)

    async def replace_dataset(self, path: str, *, plain_directory: bool = False) -> DatasetBody:
        """Have the sled adopt an empty disk in place of the dataset that was at the path."""
        body = DatasetReplaceBody(path=path, plain_directory=plain_directory)
        return await self._ask(DatasetBody, "POST", self._at("datasets", "replace"), body)

    # ---- how it is

    async def status(self) -> StatusBody:
        """Everything about the sled in one document."""
        return await self._get(StatusBody, "status")

    async def events(
        self, after: int = 0, *, limit: int | None = None, wait_s: int = 0
    ) -> EventsBody:
        """Events numbered above `after`, oldest first; waits up to `wait_s` for the next one."""
        query = {"after": after, "wait_s": wait_s} | ({} if limit is None else {"limit": limit})
        return await self._ask(EventsBody, "GET", self._at("events", **query), wait_s=wait_s)

    async def ready(self) -> HealthBody:
        """Whether the sled can take and serve artifacts; Refused with `NotReady` when not."""
        return await self._get(HealthBody, "health", "ready")

    async def metrics(self) -> str:
        """Figures in the Prometheus text format."""
        async with self._exchange("GET", self._at("metrics")) as response:
            return (await _read(response)).decode(errors="replace")

    # ---- requests

    def _at(self, *path: str, **query: int) -> URL:
        # A name with a slash in it is still one segment; one of dots would be another path.
        for segment in path:
            if segment in ("", ".", ".."):
                raise InvalidRequest(f"expected a name, found {segment!r}")
        quoted = [quote(segment, safe="") for segment in path]
        return self._url.joinpath(*quoted, encoded=True).with_query(query or None)

    async def _get(self, model: type[Body], *path: str) -> Body:
        return await self._ask(model, "GET", self._at(*path))

    async def _ask(
        self,
        model: type[Body],
        method: str,
        url: URL,
        body: BaseModel | None = None,
        *,
        wait_s: float = 0,
    ) -> Body:
        async with self._exchange(method, url, body, wait_s=wait_s) as response:
            return await _parse(response, model)

    async def _send(self, method: str, body: BaseModel, *path: str) -> None:
        async with self._exchange(method, self._at(*path), body):
            return

    @asynccontextmanager
    async def _exchange(
        self, method: str, url: URL, body: BaseModel | None = None, *, wait_s: float = 0
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        timeout = aiohttp.ClientTimeout(
            total=self._answer_timeout_s + wait_s,
            sock_connect=self._timeouts.connect_s,
            sock_read=self._timeouts.idle_s + wait_s,
        )
        with reaching(self._url):
            async with self._request(
                method, url, data=None if body is None else _payload(body), timeout=timeout
            ) as response:
                yield response

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._session.http.request(
            method, url, allow_redirects=False, **options
        ) as response:
            await raise_for_problem(response)
            yield response


def _payload(body: BaseModel) -> aiohttp.Payload:
    return aiohttp.BytesIOPayload(
        io.BytesIO(body.model_dump_json().encode()), content_type="application/json"
    )


async def _parse(response: aiohttp.ClientResponse, model: type[Body]) -> Body:
    content = await _read(response)
    try:
        if len(content) > PARSE_IN_THREAD_BYTES:
            return await asyncio.to_thread(model.model_validate_json, content)
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"])) or "body"
        raise Unreachable(
            f"{response.url} is no sled agent: expected {model.__name__}, found {field}: "
            f"{first['msg']}"
        ) from None


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for block in response.content.iter_any():
        content += block
        if len(content) > MAX_ANSWER_BYTES:
            raise Unreachable(f"{response.url} answers with more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)
