"""A sled agent API on port 0, over a real store, and a caller that checks every refusal's shape."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import aiohttp

from agent.api import agent_app
from agent.api.verbs import Copies, Store
from agent.checkpoints import CheckpointBook
from agent.copies.record import CopyRecord
from agent.duties import Duties
from agent.events import EventLog
from agent.metrics import Metrics, agent_figures
from agent.node import NodeSampler
from agent.status import StatusSource
from depot import (
    ArtifactConfig,
    ArtifactDetail,
    ArtifactHash,
    ArtifactStore,
    Generation,
    Listing,
    Source,
    Stored,
    StoreOptions,
    init_datasets,
)
from depot.errors import DepotError, NoDataset, NotFound
from depot.http.activity import Activity
from depot.http.browsers import OwnNames
from depot.http.fast_puts import FAST_PUTS, FastPuts, Taker
from depot.http.limits import HttpLimits
from depot.http.service import ACTIVITY, HttpService
from depot.quarantine.keeper import Quarantined
from depot.scrub.report import ScrubStatus
from depot.store_status import StoreStatus
from tests.http.servers import serve

ERROR_FIELDS = {"request_id", "error_code", "message"}


class Ways:
    """Which ways a put may take, for tests whose rules hold on each.

    Attributes:
        fast: plain puts are answered past the HTTP library.
    """

    fast = True


class FakeCopies:
    """Copies that start and never move, or are refused."""

    def __init__(self, records: Sequence[CopyRecord] = (), refusal: DepotError | None = None):
        self.records = tuple(records)
        self.refusal = refusal
        self.started: list[tuple[ArtifactHash, Generation, tuple[str, ...]]] = []

    async def start(
        self, artifact: ArtifactHash, generation: Generation, sources: Sequence[str]
    ) -> str:
        if self.refusal:
            raise self.refusal
        self.started.append((artifact, generation, tuple(sources)))
        return f"copy-{len(self.started)}"

    def list(self) -> tuple[CopyRecord, ...]:
        return self.records

    def get(self, copy_id: str) -> CopyRecord:
        for record in self.records:
            if record.copy_id == copy_id:
                return record
        raise NotFound(f"no copy {copy_id!r}")


class RefusingStore:
    """Refuses every verb with one error; a put either at its start or in its body."""

    def __init__(self, error: DepotError, *, in_body: bool = False) -> None:
        self.error = error
        self.in_body = in_body
        self.held: Stored | None = None
        self.wants_whole = False

    def _refuse(self) -> NoReturn:
        raise self.error

    def require_dataset(self) -> None:
        if isinstance(self.error, NoDataset):
            self._refuse()

    def config(self) -> ArtifactConfig:
        self._refuse()

    async def put_config(self, config: ArtifactConfig) -> None:
        self._refuse()

    async def reset(self, expected_generation: Generation) -> None:
        self._refuse()

    def list_artifacts(self) -> Listing:
        self._refuse()

    async def describe(self, artifact: ArtifactHash, /) -> ArtifactDetail:
        self._refuse()

    @asynccontextmanager
    async def begin_put(
        self, artifact: ArtifactHash, generation: Generation, length_bytes: int | None, /
    ) -> AsyncIterator[RefusingStore]:
        if not self.in_body:
            self._refuse()
        yield self

    async def store(self, content: bytes) -> Stored:
        self._refuse()

    async def receive(self, source: Source) -> Stored:
        self._refuse()

    async def put_pin(self, name: str, artifacts: Collection[ArtifactHash]) -> None:
        self._refuse()

    async def delete_pin(self, name: str) -> None:
        self._refuse()

    def pins(self) -> Mapping[str, frozenset[ArtifactHash]]:
        self._refuse()

    def quarantined(self) -> tuple[Quarantined, ...]:
        self._refuse()

    async def restore_quarantined(self, id_: str, /) -> None:
        self._refuse()

    async def purge_quarantined(self, id_: str, /, *, force: bool) -> None:
        self._refuse()

    def scrub_status(self) -> ScrubStatus:
        self._refuse()

    async def start_scrub(self) -> None:
        self._refuse()

    async def pause_scrub(self, seconds: float) -> None:
        self._refuse()

    async def resume_scrub(self) -> None:
        self._refuse()

    async def release_dataset(self, path: Path, /, *, last: bool) -> None:
        self._refuse()

    async def attach_dataset(self, path: Path, /) -> None:
        self._refuse()

    async def replace_dataset(self, path: Path, /, *, plain_directory: bool) -> str:
        self._refuse()

    def status(self) -> StoreStatus:
        return StoreStatus(None, 0, None, None, "empty", True, (), (), (), 0)


@dataclass(frozen=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.content) if self.content else None

    @property
    def code(self) -> str:
        """`409 CONFIG_GENERATION`, or the status alone when it is a success."""
        return (
            f"{self.status} {self.body['error_code']}" if self.status >= 400 else str(self.status)
        )


@dataclass
class Sled:
    """A running agent API and what stands behind it."""

    url: str
    session: aiohttp.ClientSession
    events: EventLog
    duties: Duties
    node: NodeSampler
    metrics: Metrics
    secret: str
    """What no error message may contain: where the datasets are."""
    fast_puts: FastPuts | None
    """Answers plain puts past the HTTP library."""
    service: HttpService
    activity: Activity

    replies: list[Reply] = field(default_factory=list)

    async def call(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        data: object = None,
        headers: Mapping[str, str] | None = None,
        expect100: bool = False,
    ) -> Reply:
        """Send a request; whatever the answer, it has the shape that all answers have."""
        content = json.dumps(body).encode() if body is not None else data
        async with self.session.request(
            method,
            self.url + path,
            data=io.BytesIO(content) if isinstance(content, bytes) else content,
            headers={"Content-Type": "application/json", **(headers or {})},
            expect100=expect100,
            allow_redirects=False,
        ) as response:
            reply = Reply(response.status, response.headers, await response.read())
        check_shape(reply, self.secret)
        return reply

    async def put_config(self, generation: int, *artifacts: ArtifactHash) -> None:
        body = {"generation": generation, "artifacts": [str(each) for each in artifacts]}
        assert (await self.call("PUT", "/artifacts-config", body)).status == 204

    async def put(self, content: bytes, generation: int = 1, **kwargs: Any) -> Reply:
        path = f"/artifacts/{ArtifactHash.of(content)}?generation={generation}"
        return await self.call("PUT", path, data=content, **kwargs)


def check_shape(reply: Reply, secret: str) -> None:
    """Every answer has a request id; every refusal the common body, and no local path in it."""
    assert reply.headers["x-request-id"]
    if reply.status < 400:
        return
    assert reply.headers["Content-Type"].startswith("application/json")
    assert ERROR_FIELDS <= set(reply.body) <= {*ERROR_FIELDS, "details"}
    assert reply.body["request_id"] == reply.headers["x-request-id"]
    assert all(isinstance(reply.body[name], str) and reply.body[name] for name in ERROR_FIELDS)
    text = reply.content.decode()
    assert secret not in text
    assert "Traceback" not in text


@asynccontextmanager
async def agent_api(
    store: Store,
    tmp_path: Path,
    *,
    copies: Copies | None = None,
    limits: HttpLimits | None = None,
    short_puts: Taker | None = None,
    own: OwnNames | None = None,
) -> AsyncIterator[Sled]:
    """Serve the agent API over any store."""
    copies = copies or FakeCopies()
    node = NodeSampler([tmp_path])
    async with await EventLog.open(tmp_path / "state") as events:
        duties = Duties(events.emit)
        status = StatusSource(
            version="1.2.3",
            store=store,
            copies=copies,
            events=events,
            duties=duties,
            node=node,
            relays=True,
        )
        metrics = Metrics(partial(agent_figures, status.read, events.counts))
        app = agent_app(
            store=store,
            copies=copies,
            status=status,
            events=events,
            metrics=metrics,
            checkpoints=await CheckpointBook.open(tmp_path / "state"),
            limits=limits,
            short_puts=short_puts,
            own=own,
        )
        async with serve(app, limits) as service, aiohttp.ClientSession() as session:
            fast = app.get(FAST_PUTS)
            secret, active = str(tmp_path), app[ACTIVITY]
            yield Sled(
                service.url, session, events, duties, node, metrics, secret, fast, service, active
            )
            events.stop_waiting()
    node.close()


def prepare_datasets(root: Path) -> None:
    """Make two datasets under `root`."""
    paths = dataset_paths(root)
    for path in paths:
        path.mkdir(parents=True)
    init_datasets(paths)


def dataset_paths(root: Path) -> list[Path]:
    return [root / "m2-a", root / "m2-b"]


async def take_away(path: Path) -> None:
    """Do to a dataset what pulling its M.2 does."""
    await asyncio.to_thread(path.rename, path.with_name(f"{path.name}-away"))


@asynccontextmanager
async def sled_with_store(
    root: Path,
    *,
    options: StoreOptions | None = None,
    copies: Copies | None = None,
    limits: HttpLimits | None = None,
) -> AsyncIterator[Sled]:
    """Serve the agent API over a real store on the datasets under `root`."""
    state_dir = root / "state"
    opening = ArtifactStore.open(dataset_paths(root), state_dir=state_dir, options=options)
    async with (
        await opening as store,
        agent_api(
            store,
            root,
            copies=copies,
            limits=limits,
            short_puts=store.short_puts if Ways.fast else None,
        ) as sled,
    ):
        yield sled
