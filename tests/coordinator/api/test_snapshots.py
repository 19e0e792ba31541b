"""Snapshots that the sleds are to hold, by way of the API, with a real staging depot."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus

import aiohttp
import pytest
import zstandard
from yarl import URL

from agent.snapshots.fleet_wire import SnapshotBody, SnapshotsBody
from agent.snapshots.values import Checksum
from coordinator.api.snapshots import MAX_DEPOTS, depots_of
from coordinator.assembly import Coordinator
from coordinator.client import CoordinatorClient
from coordinator.database import snapshot, staged
from coordinator.values import Sled
from depot.artifact import ArtifactHash

CONTENT = b"what every node starts from" * 1000


class Api:
    """Requests as any client would make them."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = URL(url)

    def at(self, *path: str) -> URL:
        quoted = "/".join(each.replace("/", "%2F") for each in path)
        return URL(f"{self._url}/v1/snapshots/{quoted}".rstrip("/"), encoded=True)

    async def put(
        self, name: str, version: str, body: object = CONTENT, **said: str
    ) -> tuple[int, Mapping[str, object]]:
        query = {**announced(CONTENT), **said}
        url = self.at(name, version).update_query(query)
        async with self._session.put(url, data=body) as response:
            return response.status, await response.json()

    async def get(self, name: str) -> SnapshotBody:
        async with self._session.get(self.at(name)) as response:
            assert response.status == HTTPStatus.OK, await response.text()
            return SnapshotBody.model_validate_json(await response.read())

    async def list(self) -> SnapshotsBody:
        async with self._session.get(self.at()) as response:
            return SnapshotsBody.model_validate_json(await response.read())

    async def delete(self, *path: str) -> int:
        async with self._session.delete(self.at(*path)) as response:
            return response.status

    async def status_of(self, name: str) -> int:
        async with self._session.get(self.at(name)) as response:
            return response.status


def announced(content: bytes) -> dict[str, str]:
    checksum = Checksum(hashlib.sha256(content).digest())
    return {"checksum": str(checksum), "size": str(len(content))}


def sha(content: bytes) -> ArtifactHash:
    return ArtifactHash(hashlib.sha256(content).digest())


@pytest.fixture
async def api(running: Coordinator) -> AsyncIterator[Api]:
    async with aiohttp.ClientSession() as session:
        yield Api(session, running.server.url)


async def wanted(running: Coordinator) -> set[ArtifactHash]:
    return set((await running.database.run(snapshot.read)).wanted)


async def test_f3_a_snapshot_is_staged_and_wanted_and_the_generation_rises(
    running: Coordinator, client: CoordinatorClient, api: Api
) -> None:
    before = await client.generation()
    status, body = await api.put("db/state", "v1", created="2026-11-22T10:00:00+00:00")
    assert (status, body["sha256"], body["stored_bytes"]) == (200, str(sha(CONTENT)), len(CONTENT))
    assert await client.generation() == before + 1
    assert running.staging.held() == await wanted(running) == {sha(CONTENT)}
    rows = await running.database.run(staged.by_coordinator)
    assert rows == {running.staging.id: {sha(CONTENT)}}

    assert (await api.put("db/state", "v1", created="2026-11-22T10:00:00+00:00"))[0] == 200
    assert await client.generation() == before + 1
    found = await api.get("db/state")
    assert [each.version for each in found.items] == ["v1"]
    assert found.items[0].metadata == {
        **announced(CONTENT),
        "version": "v1",
        "created": "2026-11-22T10:00:00+00:00",
    }


async def test_what_is_stored_compressed_is_proved_by_what_comes_out(
    running: Coordinator, api: Api
) -> None:
    packed = zstandard.ZstdCompressor().compress(CONTENT)
    status, body = await api.put("state", "v1", packed, compression="zstd")
    assert (status, body["sha256"]) == (200, str(sha(packed)))
    assert running.staging.held() == {sha(packed)}


@pytest.mark.parametrize(
    ("body", "said", "code"),
    [
        (CONTENT[:-1], {}, "LengthMismatch"),
        (b"x" + CONTENT[1:], {}, "HashMismatch"),
        (CONTENT, {"compression": "zstd"}, "InvalidRequest"),
        (zstandard.ZstdCompressor().compress(CONTENT)[:-9], {"compression": "zstd"}, None),
        (zstandard.ZstdCompressor().compress(CONTENT * 2), {"compression": "zstd"}, None),
        (zstandard.ZstdCompressor().compress(b"x" + CONTENT[1:]), {"compression": "zstd"}, None),
        (CONTENT, {"compression": "gzip"}, "InvalidRequest"),
        (CONTENT, {"checksum": "none"}, "InvalidRequest"),
        (CONTENT, {"checksum": ""}, "InvalidRequest"),
        (CONTENT, {"size": "-1"}, "InvalidRequest"),
        (CONTENT, {"created": "yesterday"}, "InvalidRequest"),
        (CONTENT, {"colour": "blue"}, "InvalidRequest"),
    ],
)
async def test_what_is_not_what_was_announced_leaves_nothing(
    running: Coordinator, api: Api, body: bytes, said: dict[str, str], code: str | None
) -> None:
    status, problem = await api.put("state", "v1", body, **said)
    assert status == HTTPStatus.BAD_REQUEST
    assert code in (None, problem["error_code"])
    assert not await asyncio.to_thread(lambda: list(running.staging.incoming.iterdir()))
    assert not running.staging.held()
    assert not (await api.list()).items


async def test_an_upload_that_breaks_off_is_no_version(running: Coordinator, api: Api) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield CONTENT[:100]
        raise ConnectionAbortedError

    with pytest.raises(aiohttp.ClientConnectionError):
        await api.put("state", "v1", half())
    assert await api.status_of("state") == HTTPStatus.NOT_FOUND


async def test_older_versions_leave_the_wanted_set_and_the_newest_does_not(
    running: Coordinator, client: CoordinatorClient, api: Api
) -> None:
    for number in range(3):
        content = CONTENT + bytes([number])
        await api.put("state", f"v{number}", content, **announced(content))
    assert [each.version for each in (await api.get("state")).items] == ["v2", "v1", "v0"]
    (listed,) = (await api.list()).items
    assert (listed.name, listed.versions, listed.newest.version) == ("state", 3, "v2")

    before = await client.generation()
    assert await api.delete("state", "v0") == HTTPStatus.NO_CONTENT
    assert await api.delete("state", "v0") == HTTPStatus.NO_CONTENT
    assert await client.generation() == before + 1
    assert await wanted(running) == {sha(CONTENT + b"\1"), sha(CONTENT + b"\2")}
    assert await api.delete("state", "v2") == HTTPStatus.CONFLICT
    assert await api.delete("state") == HTTPStatus.NO_CONTENT
    assert await wanted(running) == set()
    assert await api.delete("state") == HTTPStatus.NOT_FOUND


async def test_a_version_is_never_of_other_content(api: Api) -> None:
    await api.put("state", "v1")
    other = CONTENT + b"!"
    status, problem = await api.put("state", "v1", other, **announced(other))
    assert (status, problem["error_code"]) == (HTTPStatus.CONFLICT, "SnapshotConflict")


@pytest.mark.parametrize("name", [".hidden", "a//b", "x.meta.json", "a/../b", "ä", "a" * 600])
async def test_a_name_that_no_archive_takes_is_refused(api: Api, name: str) -> None:
    assert (await api.put(name, "v1"))[0] in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND)
    assert not (await api.list()).items


def test_depots_that_hold_it_come_first_and_there_are_not_too_many() -> None:
    sleds = [Sled(f"s{number}", f"http://a{number}", f"http://d{number}") for number in range(100)]
    found = depots_of(sleds, {"s7", "s99"}, lambda depots: depots.reverse())
    assert found[:3] == ["http://d99", "http://d7", "http://d98"]
    assert len(found) == MAX_DEPOTS
