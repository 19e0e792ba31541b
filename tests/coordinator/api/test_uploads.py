"""Releases by way of the API, with real zips and a real staging depot."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from coordinator.assembly import Coordinator
from coordinator.client import CoordinatorClient
from coordinator.database import staged
from depot.artifact import ArtifactHash
from depot.errors import Refused
from tests.coordinator.releases.builder import (
    PAST,
    TOP_ROLES,
    ReleaseBuilder,
    small_release,
    zip_bytes,
)
from tests.coordinator.releases.file_server import FileServer, serving
from tests.coordinator.releases.test_sample import SAMPLE, root_of_sample
from tests.coordinator.running import client_of, coordinating

NAME = "release.zip"


def zipped(builder: ReleaseBuilder) -> bytes:
    return zip_bytes(builder.publish())


async def refused(client: CoordinatorClient, content: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        await client.upload_release(content, file_name=NAME)
    return caught.value


async def nothing_is_left(running: Coordinator) -> bool:
    """Whether a refused upload left neither a file, nor anything staged, nor a row."""
    files = await asyncio.to_thread(lambda: list(running.staging.incoming.iterdir()))
    rows = await running.database.run(staged.by_coordinator)
    return not files and not running.staging.held() and not rows


@pytest.mark.skipif(not SAMPLE.exists(), reason="the reference release is not beside this")
async def test_the_reference_release_is_uploaded_and_staged(
    running: Coordinator, client: CoordinatorClient
) -> None:
    await client.add_trust_root(await asyncio.to_thread(root_of_sample))
    before = await client.generation()
    with pytest.raises(Refused) as caught:
        await client.upload_release(SAMPLE, file_name=SAMPLE.name)
    assert caught.value.remote_code == "Expired"
    sent: list[int] = []
    answer = await client.upload_release(
        SAMPLE, file_name=SAMPLE.name, allow_expired=True, on_sent=sent.append
    )
    release = answer.release
    assert (answer.status, release.version, release.file_name) == (
        "inserted",
        "1.0.0",
        SAMPLE.name,
    )
    assert (release.state, release.allowed_expired) == ("complete", True)
    assert len(release.artifacts) == 14
    assert sent[-1] > 1 << 20
    wanted = {ArtifactHash.parse(artifact.sha256) for artifact in release.artifacts}
    assert running.staging.held() == wanted
    assert await client.generation() > before
    assert await client.release("1.0.0") == release
    assert [each async for each in client.releases()] == [release]


async def test_the_same_release_again_already_exists_and_brings_back_what_was_lost(
    running: Coordinator, client: CoordinatorClient
) -> None:
    builder = small_release()
    await client.add_trust_root(builder.trusted)
    content = zipped(builder)
    first = await client.upload_release(content, file_name=NAME)
    held = running.staging.held()
    await running.staging.drop(held, since=running.staging.moment())
    assert not running.staging.held()
    generation = await client.generation()
    again = await client.upload_release(content, file_name=NAME)
    assert (first.status, again.status) == ("inserted", "already_exists")
    assert again.release == first.release
    assert running.staging.held() == held
    assert await client.generation() == generation


async def test_a_release_that_comes_or_goes_is_logged(
    client: CoordinatorClient, logged: list[MutableMapping[str, Any]]
) -> None:
    builder = small_release()
    await client.add_trust_root(builder.trusted)
    version = (await client.upload_release(zipped(builder), file_name=NAME)).release.version
    await client.remove_release(version)
    said = [
        (entry["log_level"], entry["event"]) for entry in logged if entry.get("version") == version
    ]
    assert said == [("info", "release uploaded"), ("info", "release removed")]


async def test_f3_the_generation_rises_with_a_release_and_with_its_removal(
    client: CoordinatorClient,
) -> None:
    builder = small_release()
    await client.add_trust_root(builder.trusted)
    at_first = await client.generation()
    await client.upload_release(zipped(builder), file_name=NAME)
    with_it = await client.generation()
    await client.remove_release("1.0.0")
    assert at_first < with_it < await client.generation()
    with pytest.raises(Refused) as caught:
        await client.release("1.0.0")
    assert (caught.value.status, caught.value.remote_code) == (404, "NotFound")


async def test_without_a_root_of_trust_the_body_is_not_even_asked_for(
    running: Coordinator, client: CoordinatorClient
) -> None:
    sent: list[int] = []
    with pytest.raises(Refused) as caught:
        await client.upload_release(zipped(small_release()), file_name=NAME, on_sent=sent.append)
    assert (caught.value.status, caught.value.remote_code) == (400, "Untrusted")
    assert not sent
    assert await nothing_is_left(running)


async def test_a_release_that_no_root_verifies_leaves_nothing_behind(
    running: Coordinator, client: CoordinatorClient
) -> None:
    stranger = ReleaseBuilder(keys={role: ["stranger"] for role in TOP_ROLES})
    await client.add_trust_root(stranger.trusted)
    refusal = await refused(client, zipped(small_release()))
    assert (refusal.status, refusal.remote_code) == (400, "Untrusted")
    assert await nothing_is_left(running)


async def test_a_flipped_bit_in_a_target_is_refused_with_the_targets_name(
    running: Coordinator, client: CoordinatorClient
) -> None:
    builder = small_release()
    await client.add_trust_root(builder.trusted)
    files = builder.publish()
    path = next(path for path in files if path.endswith("two.tar.gz"))
    files[path] = bytes([files[path][0] ^ 1]) + files[path][1:]
    refusal = await refused(client, zip_bytes(files))
    assert (refusal.status, refusal.remote_code) == (400, "TargetMismatch")
    assert refusal.remote_details == {"target": "two.tar.gz"}
    assert await nothing_is_left(running)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
async def test_what_is_no_release_is_refused(
    running: Coordinator, client: CoordinatorClient, content: bytes
) -> None:
    await client.add_trust_root(small_release().trusted)
    refusal = await refused(client, content)
    assert (refusal.status, refusal.remote_code) == (400, "BadRelease")
    assert await nothing_is_left(running)


async def test_an_expired_release_is_refused_unless_that_is_allowed(
    client: CoordinatorClient,
) -> None:
    builder = small_release(expires=PAST)
    await client.add_trust_root(builder.trusted)
    content = zipped(builder)
    assert (await refused(client, content)).remote_code == "Expired"
    answer = await client.upload_release(content, file_name=NAME, allow_expired=True)
    assert answer.release.allowed_expired


async def test_a_version_with_other_contents_is_a_conflict_that_leaves_nothing(
    running: Coordinator, client: CoordinatorClient
) -> None:
    builder = small_release()
    await client.add_trust_root(builder.trusted)
    await client.upload_release(zipped(builder), file_name=NAME)
    held = running.staging.held()
    other = ReleaseBuilder()
    other.add("one.tar.gz", b"something else")
    other.document([{"name": "one", "version": "1.0.0", "kind": "sp", "target": "one.tar.gz"}])
    refusal = await refused(client, zipped(other))
    assert (refusal.status, refusal.remote_code) == (409, "ReleaseConflict")
    assert refusal.remote_details["difference_count"] == 2
    assert running.staging.held() == held


async def test_an_upload_that_breaks_off_leaves_nothing(
    running: Coordinator, client: CoordinatorClient
) -> None:
    builder = small_release()
    await client.add_trust_root(builder.trusted)
    content = zipped(builder)
    url = running.server.url.removeprefix("http://")
    host, port = url.split(":")
    for size in (1, len(content) - 1):
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(
            b"PUT /v1/releases?file_name=x HTTP/1.1\r\nHost: x\r\nContent-Length: "
            + str(len(content)).encode()
            + b"\r\n\r\n"
            + content[:size]
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
    await running.server.drain(60)
    assert await nothing_is_left(running)


async def test_an_upload_that_is_too_large_is_refused(tmp_path: Path) -> None:
    builder = small_release()
    async with (
        coordinating(tmp_path, upload={"max_size": 1000}) as running,
        client_of(running) as client,
    ):
        await client.add_trust_root(builder.trusted)
        refusal = await refused(client, zipped(builder))
        assert (refusal.status, refusal.remote_code) == (413, "TooLarge")
        assert await nothing_is_left(running)


async def test_a_release_for_which_the_staging_has_no_room_is_refused(tmp_path: Path) -> None:
    builder = small_release()
    builder.add("big", bytes(200_000))
    builder.document([{"name": "big", "version": "1", "kind": "x", "target": "big"}], "2.0.0")
    async with (
        coordinating(
            tmp_path, staging={"path": str(tmp_path / "staging"), "quota": 100_000}
        ) as running,
        client_of(running) as client,
    ):
        await client.add_trust_root(builder.trusted)
        refusal = await refused(client, zipped(builder))
        assert (refusal.status, refusal.remote_code) == (507, "QuotaExceeded")
        assert await nothing_is_left(running)


async def test_uploads_beyond_their_number_are_told_to_come_back(
    running: Coordinator, client: CoordinatorClient
) -> None:
    await client.add_trust_root(small_release().trusted)
    async with running.desk.admitted(), running.desk.admitted():
        refusal = await refused(client, b"anything")
    assert (refusal.status, refusal.remote_code) == (429, "TooManyUploads")


async def test_a_quiescing_coordinator_takes_no_uploads(
    running: Coordinator, client: CoordinatorClient
) -> None:
    await client.add_trust_root(small_release().trusted)
    running.desk.quiescing = "it is about to stop"
    refusal = await refused(client, b"anything")
    assert (refusal.status, refusal.remote_code) == (503, "Quiescing")


@pytest.mark.parametrize("query", ["", "?file_name=", "?file_name=a&allow_expired=yes", "?x=1"])
async def test_an_upload_says_what_it_is_called(running: Coordinator, query: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{running.server.url}/v1/releases{query}", data=b"x") as response,
    ):
        assert response.status == 400
        assert (await response.json())["error_code"] == "InvalidRequest"


@pytest.fixture
def published() -> Iterator[tuple[FileServer, bytes]]:
    """A repository on a server, and its root."""
    builder = small_release()
    with serving(builder.publish(), "/repo/") as server:
        yield server, builder.trusted


async def test_a_release_is_imported_from_a_repository_within_the_allowed_networks(
    tmp_path: Path, published: tuple[FileServer, bytes]
) -> None:
    server, root = published
    url = server.url.rstrip("/")
    async with (
        coordinating(tmp_path, **{"import": {"allowed_sources": ["127.0.0.0/8"]}}) as running,
        client_of(running) as client,
    ):
        await client.add_trust_root(root)
        answer = await client.import_release(url)
        assert (answer.status, answer.release.file_name) == ("inserted", url)
        assert (await client.import_release(url)).status == "already_exists"
        assert len(running.staging.held()) == 2


async def test_no_network_is_allowed_unless_it_is_configured(client: CoordinatorClient) -> None:
    await client.add_trust_root(small_release().trusted)
    with pytest.raises(Refused) as caught:
        await client.import_release("http://127.0.0.1:9/repo")
    assert (caught.value.status, caught.value.remote_code) == (400, "BadSource")


async def test_the_target_release_is_one_that_is_recorded_and_cannot_be_removed(
    client: CoordinatorClient,
) -> None:
    builder = small_release()
    await client.add_trust_root(builder.trusted)
    assert await client.target_release() is None
    with pytest.raises(Refused) as caught:
        await client.set_target_release("1.0.0")
    assert caught.value.status == 404
    await client.upload_release(zipped(builder), file_name=NAME)
    await client.set_target_release("1.0.0")
    assert await client.target_release() == "1.0.0"
    with pytest.raises(Refused) as caught:
        await client.remove_release("1.0.0")
    assert (caught.value.status, caught.value.remote_code) == (409, "TargetRelease")


async def test_what_uploads_move_is_counted(client: CoordinatorClient) -> None:
    builder = small_release()
    content = zipped(builder)
    await client.add_trust_root(builder.trusted)
    await client.upload_release(content, file_name=NAME)
    found = await client.uploads()
    assert found.running == 0
    assert found.moved_bytes > len(content)  # it arrived, and was read
