"""`CoordinatorClient`: every endpoint of the coordinator's API, for its commands and for agents."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, Self

import aiohttp
from yarl import URL

from agent.calls import Calls, read_answer
from agent.snapshots.fleet_wire import SnapshotBody, SnapshotNameBody, SnapshotsBody
from agent.upload import OnSent, open_upload
from coordinator.journal_client import JournalClient
from coordinator.replication_wire import (
    ActivatedBody,
    CoordinatorsBody,
    HistoryBody,
    QuiesceBody,
    ReplicationBody,
    RequestBody,
)
from coordinator.watching import DEFAULT_WATCH, Watch, while_it_moves
from coordinator.wire import (
    ExpungedBody,
    GenerationAdvanceBody,
    GenerationBody,
    HealthBody,
    Policy,
    PruneBody,
    PrunedBody,
    ReleaseBody,
    ReleaseImportBody,
    ReleasesBody,
    ReleaseUploadedBody,
    SledBody,
    SledPolicyBody,
    SledPutBody,
    SledResetBody,
    SledsBody,
    TargetReleaseBody,
    TargetReleasePutBody,
    TrustRootAddedBody,
    TrustRootBody,
    TrustRootsBody,
    UploadsBody,
)
from depot.artifact import ArtifactHash
from depot.client import ClientTimeouts
from depot.errors import Unreachable

# A database that is away, or a sled that is asked meanwhile, has its time within that.
ANSWER_TIMEOUT_S: Final = 60.0
# The sled is asked twice or thrice, and has to make it durable.
RESET_TIMEOUT_S: Final = 120.0
# Every sled may be asked for its pins.
PRUNE_TIMEOUT_S: Final = 600.0
ZIP_TYPE: Final = "application/zip"
JSON_TYPE: Final = "application/json"


class CoordinatorClient:
    """A client of one coordinator; an async context manager.

    Every method raises Unreachable and Refused.

    Args:
        url: where the coordinator listens.
        timeouts: how patient to be.
        answer_timeout_s: with an answer as a whole.
        watch: with an upload or an import, which takes as long as it takes.
        session: used instead of an own one, and not closed.

    Attributes:
        journal: what its endpoints of the journal are asked with.

    Raises:
        InvalidRequest: `url` is none.
    """

    def __init__(
        self,
        url: str,
        *,
        timeouts: ClientTimeouts | None = None,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        watch: Watch = DEFAULT_WATCH,
        session: aiohttp.ClientSession | None = None,
    ) -> None:
        self._watch = watch
        self._calls = Calls(
            url,
            server="coordinator",
            timeouts=timeouts or ClientTimeouts(idle_s=answer_timeout_s),
            answer_timeout_s=answer_timeout_s,
            session=session,
        )
        self.journal: Final = JournalClient(self._calls)

    async def __aenter__(self) -> Self:
        """Open a session unless one was given."""
        await self._calls.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session if it is the client's own."""
        await self._calls.__aexit__(*exc)

    # ---- sleds

    async def put_sled(
        self,
        sled_id: str,
        agent_url: str,
        *,
        depot_url: str | None = None,
        repo_depot_port: int | None = None,
    ) -> SledBody:
        """Add a sled, or say where it is now."""
        body = SledPutBody(
            agent_url=agent_url, depot_url=depot_url, repo_depot_port=repo_depot_port
        )
        return await self._calls.ask(SledBody, "PUT", self._sled(sled_id), body)

    async def sleds(self) -> tuple[SledBody, ...]:
        """Every sled, by id."""
        return (await self._calls.get(SledsBody, "v1", "sleds")).items

    async def sled(self, sled_id: str) -> SledBody:
        """One sled."""
        return await self._calls.ask(SledBody, "GET", self._sled(sled_id))

    async def remove_sled(self, sled_id: str) -> None:
        """Forget an expunged sled."""
        async with self._calls.exchange("DELETE", self._sled(sled_id)):
            return

    async def set_sled_policy(self, sled_id: str, policy: Policy) -> ExpungedBody:
        """Expunge a sled, or put it in service again."""
        url = self._calls.at("v1", "sleds", sled_id, "policy")
        return await self._calls.ask(ExpungedBody, "PUT", url, SledPolicyBody(policy=policy))

    async def reset_sled(
        self, sled_id: str, expected_generation: int | None = None
    ) -> SledResetBody:
        """Make a sled forget its config and generation, if it is that one; it deletes nothing."""
        expected = (
            {} if expected_generation is None else {"expected_generation": expected_generation}
        )
        url = self._calls.at("v1", "sleds", sled_id, "reset", **expected)
        return await self._calls.ask(SledResetBody, "POST", url, wait_s=RESET_TIMEOUT_S)

    def _sled(self, sled_id: str) -> URL:
        return self._calls.at("v1", "sleds", sled_id)

    # ---- trust roots

    async def add_trust_root(self, content: bytes) -> str:
        """Trust releases that this root.json verifies; the root's id. Idempotent.

        Raises:
            ValueError: it is not JSON.
        """
        json.loads(content)
        async with open_upload(
            content, on_sent=None, idle_timeout_s=self._calls.answer_timeout_s
        ) as upload:
            url = self._calls.at("v1", "trust-roots")
            added = await self._calls.upload(TrustRootAddedBody, "POST", url, upload, JSON_TYPE)
        return added.id

    async def trust_roots(self) -> tuple[TrustRootBody, ...]:
        """Every root of trust, oldest first."""
        return (await self._calls.get(TrustRootsBody, "v1", "trust-roots")).items

    async def trust_root(self, root_id: str) -> bytes:
        """A root.json, as it was added."""
        url = self._calls.at("v1", "trust-roots", root_id)
        async with self._calls.exchange("GET", url) as response:
            return await read_answer(response)

    async def remove_trust_root(self, root_id: str) -> None:
        """Trust a root no longer."""
        async with self._calls.exchange("DELETE", self._calls.at("v1", "trust-roots", root_id)):
            return

    # ---- generation

    async def generation(self) -> int:
        """The generation of the wanted set."""
        return (await self._calls.get(GenerationBody, "v1", "generation")).generation

    async def advance_generation(self, to: int) -> int:
        """Raise the generation to at least this; what it is then."""
        url = self._calls.at("v1", "generation", "advance")
        body = GenerationAdvanceBody(to=to)
        return (await self._calls.ask(GenerationBody, "POST", url, body)).generation

    # ---- releases

    async def upload_release(
        self,
        content: Path | bytes,
        *,
        file_name: str,
        allow_expired: bool = False,
        version: str | None = None,
        on_sent: OnSent | None = None,
    ) -> ReleaseUploadedBody:
        """Upload a release: a zip of a TUF repository, from a file or from memory. Idempotent.

        Raises:
            OSError: the file cannot be read.
        """
        query: dict[str, Any] = {"file_name": file_name}
        query |= {"allow_expired": "true"} if allow_expired else {}
        query |= {} if version is None else {"version": version}
        async with open_upload(content, on_sent=on_sent, idle_timeout_s=None) as upload:
            url = self._calls.at("v1", "releases", **query)
            work = self._calls.upload(ReleaseUploadedBody, "PUT", url, upload, ZIP_TYPE)
            try:
                return await while_it_moves(work, self._moved, self._watch)
            except Unreachable:
                if upload.error is not None:
                    raise upload.error from None
                raise

    async def import_release(
        self, url: str, *, allow_expired: bool = False, version: str | None = None
    ) -> ReleaseUploadedBody:
        """Have the coordinator fetch a release from a TUF repository. Idempotent."""
        body = ReleaseImportBody(url=url, allow_expired=allow_expired, version=version)
        at = self._calls.at("v1", "releases", "import")
        work = self._calls.ask(ReleaseUploadedBody, "POST", at, body, wait_s=None)
        return await while_it_moves(work, self._moved, self._watch)

    async def uploads(self) -> UploadsBody:
        """The uploads and imports that run, and what they have moved."""
        return await self._calls.get(UploadsBody, "v1", "uploads")

    async def _moved(self) -> int:
        return (await self.uploads()).moved_bytes

    async def releases(self) -> AsyncIterator[ReleaseBody]:
        """Every release, by version; asked for a page at a time."""
        query: dict[str, str] = {}
        while True:
            url = self._calls.at("v1", "releases", **query)
            page = await self._calls.ask(ReleasesBody, "GET", url)
            for release in page.items:
                yield release
            if page.next_page is None:
                return
            query = {"page": page.next_page}

    async def release(self, version: str) -> ReleaseBody:
        """One release."""
        return await self._calls.get(ReleaseBody, "v1", "releases", version)

    async def remove_release(self, version: str) -> None:
        """Forget a release; sleds drop what no other one has."""
        async with self._calls.exchange("DELETE", self._calls.at("v1", "releases", version)):
            return

    async def prune_releases(
        self,
        *,
        keep_newest: int | None = None,
        keep_previous_targets: int | None = None,
        dry_run: bool = False,
    ) -> PrunedBody:
        """Forget releases that nobody needs; what is not given is as the coordinator has it."""
        body = PruneBody(
            keep_newest=keep_newest, keep_previous_targets=keep_previous_targets, dry_run=dry_run
        )
        url = self._calls.at("v1", "releases", "prune")
        return await self._calls.ask(PrunedBody, "POST", url, body, wait_s=PRUNE_TIMEOUT_S)

    async def target_release(self) -> str | None:
        """The version that the fleet is to run."""
        return (await self._calls.get(TargetReleaseBody, "v1", "target-release")).version

    async def set_target_release(self, version: str) -> None:
        """Choose the version that the fleet is to run."""
        body = TargetReleasePutBody(version=version)
        await self._calls.send("PUT", body, "v1", "target-release")

    # ---- replication

    async def replication(self) -> ReplicationBody:
        """How far the fleet is."""
        return await self._calls.get(ReplicationBody, "v1", "replication")

    async def activate(self) -> None:
        """Have a pass begin now."""
        url = self._calls.at("v1", "replication", "activate")
        await self._calls.ask(ActivatedBody, "POST", url)

    async def history(
        self,
        *,
        artifact: ArtifactHash | None = None,
        sled_id: str | None = None,
        limit: int | None = None,
    ) -> tuple[RequestBody, ...]:
        """The recent requests to sleds, newest first."""
        query: dict[str, int | str] = {}
        query |= {} if artifact is None else {"artifact": str(artifact)}
        query |= {} if sled_id is None else {"sled": sled_id}
        query |= {} if limit is None else {"limit": limit}
        url = self._calls.at("v1", "replication", "history", **query)
        return (await self._calls.ask(HistoryBody, "GET", url)).items

    async def quiesce(self) -> int:
        """Have the coordinator end in order; how many artifacts are only staged there yet."""
        url = self._calls.at("v1", "quiesce")
        return (await self._calls.ask(QuiesceBody, "POST", url)).only_here

    # ---- coordinators

    async def coordinators(self) -> CoordinatorsBody:
        """Every coordinator of the fleet, by id."""
        return await self._calls.get(CoordinatorsBody, "v1", "coordinators")

    async def forget_coordinator(self, coordinator_id: str, *, force: bool = False) -> None:
        """Count on a coordinator's staging no more; with `force`, also of one seen lately."""
        query = {"force": "true"} if force else {}
        url = self._calls.at("v1", "coordinators", coordinator_id, **query)
        async with self._calls.exchange("DELETE", url):
            return

    # ---- snapshots that the sleds hold

    async def snapshots(self) -> tuple[SnapshotNameBody, ...]:
        """Every snapshot, by name."""
        return (await self._calls.get(SnapshotsBody, "v1", "snapshots")).items

    async def snapshot(self, name: str) -> SnapshotBody:
        """The versions of one, and where they are fetched from."""
        return await self._calls.get(SnapshotBody, "v1", "snapshots", name)

    async def drop_snapshot(self, name: str) -> None:
        """Forget one with all its versions."""
        async with self._calls.exchange("DELETE", self._calls.at("v1", "snapshots", name)):
            return

    # ---- how it is

    async def ready(self) -> HealthBody:
        """Whether the coordinator can do its work; Refused with `NotReady` when not."""
        return await self._calls.get(HealthBody, "health", "ready")
