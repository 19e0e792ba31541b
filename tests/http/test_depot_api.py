from __future__ import annotations

import asyncio
import base64
import errno
import hashlib
import json
import random
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from depot.artifact import ArtifactHash
from depot.http.depot_api import depot_app
from depot.http.hot_artifacts import HotArtifacts
from depot.http.limits import HttpLimits
from depot.http.pump import Pump
from depot.http.service import HttpService
from depot.streams.budget import Budget
from tests.fakes import FakeStore, FaultyDisk
from tests.http.raw import RawClient
from tests.http.servers import serve

MIB = 1 << 20
LARGE = random.Random(1).randbytes(8 * MIB + 12345)
SMALL = b"a small artifact"


@pytest.fixture(params=["fast path", "plain path"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FakeStore]:
    store = FakeStore(tmp_path)
    store.hot = HotArtifacts() if request.param == "fast path" else None
    yield store
    assert store.open_descriptors() == 0, "a file was left open"


@asynccontextmanager
async def depot(
    store: FakeStore,
    *,
    pump: Pump | None = None,
    limits: HttpLimits | None = None,
    budget: Budget | None = None,
) -> AsyncIterator[HttpService]:
    app = depot_app(store, limits=limits, pump=pump, budget=budget, hot=store.hot)
    async with serve(app, limits) as service:
        yield service


@pytest.fixture(params=[0, 4 << 30], ids=["unlimited", "limited"])
async def service(store: FakeStore, request: pytest.FixtureRequest) -> AsyncIterator[HttpService]:
    async with depot(store, budget=Budget(request.param)) as service:
        yield service


def get(artifact: ArtifactHash | str, method: str = "GET") -> str:
    return f"{method} /artifact/sha256/{artifact} HTTP/1.1"


# ---- headers


@pytest.mark.parametrize("content", [b"", SMALL, bytes(64 << 10), bytes((64 << 10) + 1), LARGE])
async def test_get_gives_the_named_bytes_and_their_digests(
    store: FakeStore, service: HttpService, content: bytes
) -> None:
    artifact = await store.add(content)
    async with RawClient.connect(service.url) as client:
        await client.send(get(artifact))
        answer = await client.answer()
        assert answer.status == 200
        assert answer.body == content
        digest = base64.b64encode(hashlib.sha256(content).digest()).decode()
        assert answer.headers.pop("date")
        assert len(answer.headers.pop("x-request-id")) == 32
        assert answer.headers == {
            "content-type": "application/octet-stream",
            "content-length": str(len(content)),
            "etag": f'"sha256:{artifact}"',
            "repr-digest": f"sha-256=:{digest}:",
            "accept-ranges": "bytes",
            "cache-control": "public, max-age=31536000, immutable",
            "server": "sled-depot",
        }


@pytest.mark.parametrize("content", [b"", SMALL, LARGE])
async def test_head_gives_the_headers_of_get_without_the_bytes(
    store: FakeStore, service: HttpService, content: bytes
) -> None:
    artifact = await store.add(content)
    async with RawClient.connect(service.url) as client:
        await client.send(get(artifact, "HEAD"), "Range: bytes=1-2")
        head = await client.answer(has_body=False)
        await client.send(get(artifact))
        whole = await client.answer()
    for headers in (head.headers, whole.headers):
        del headers["x-request-id"], headers["date"]
    assert head.status == 200
    assert head.headers == whole.headers


async def test_an_upper_case_hash_names_the_same_artifact(
    store: FakeStore, service: HttpService
) -> None:
    artifact = await store.add(SMALL)
    async with RawClient.connect(service.url) as client:
        await client.send(get(str(artifact).upper()))
        answer = await client.answer()
    assert answer.body == SMALL
    assert answer.headers["etag"] == f'"sha256:{artifact}"'


# ---- conditions and ranges


@pytest.mark.parametrize("content", [SMALL, LARGE])
@pytest.mark.parametrize("wanted", ["0-0", "3-9", "5-", "-7", "0-"])
async def test_a_range_gets_206_and_the_connection_goes_on(
    store: FakeStore, service: HttpService, content: bytes, wanted: str
) -> None:
    artifact = await store.add(content)
    first, _, last = wanted.partition("-")
    part = content[int(first) : int(last) + 1 if last else None] if first else content[-int(last) :]
    start = content.index(part)
    async with RawClient.connect(service.url) as client:
        for if_range in ([], [f'If-Range: "sha256:{artifact}"']):
            await client.send(get(artifact), f"Range: bytes={wanted}", *if_range)
            answer = await client.answer()
            assert (answer.status, answer.body) == (206, part)
            end = start + len(part) - 1
            assert answer.headers["content-range"] == f"bytes {start}-{end}/{len(content)}"
            digest = base64.b64encode(artifact.digest).decode()
            assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"


async def test_a_range_outside_the_artifact_gets_416_with_its_size(
    store: FakeStore, service: HttpService
) -> None:
    artifact = await store.add(SMALL)
    async with RawClient.connect(service.url) as client:
        await client.send(get(artifact), f"Range: bytes={len(SMALL)}-")
        answer = await client.answer()
    assert answer.status == 416
    assert answer.headers["content-range"] == f"bytes */{len(SMALL)}"
    assert answer.json()["error_code"] == "RangeNotSatisfiable"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ('If-Range: "sha256:other"', 200),
        ("If-Range: Sat, 21 Nov 2026 02:53:03 GMT", 200),
        ("Range: bytes=7-8", 200),
        ("If-None-Match: *", 304),
        ('If-Match: "sha256:other"', 412),
    ],
)
async def test_conditions_are_obeyed(
    store: FakeStore, service: HttpService, header: str, status: int
) -> None:
    artifact = await store.add(SMALL)
    async with RawClient.connect(service.url) as client:
        # A second Range header makes a list of ranges, which is answered with the whole.
        await client.send(get(artifact), "Range: bytes=3-5", header)
        answer = await client.answer(has_body=status != 304)
        assert answer.status == status
        if status == 200:
            assert answer.body == SMALL
        if status == 304:
            assert answer.headers["etag"] == f'"sha256:{artifact}"'
        await client.send(get(artifact))
        assert (await client.answer()).body == SMALL


# ---- refusals


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        (get("0" * 64), 404, "NotFound"),
        (get("0" * 63), 400, "InvalidRequest"),
        (get("0" * 63 + "g"), 400, "InvalidRequest"),
        (get("..%2F..%2Fetc%2Fpasswd"), 400, "InvalidRequest"),
        ("PUT /artifact/sha256/" + "0" * 64 + " HTTP/1.1", 405, "MethodNotAllowed"),
        ("GET /artifact/sha256/ HTTP/1.1", 404, "NotFound"),
    ],
)
async def test_refusals_have_the_common_body(
    service: HttpService, line: str, status: int, code: str
) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send(line)
        answer = await client.answer()
    assert (answer.status, answer.json()["error_code"]) == (status, code)
    assert answer.headers["x-request-id"] == answer.json()["request_id"]


async def test_without_a_dataset_the_answer_is_503(store: FakeStore, service: HttpService) -> None:
    store.gone = True
    async with RawClient.connect(service.url) as client:
        await client.send(get("0" * 64))
        answer = await client.answer()
    assert (answer.status, answer.json()["error_code"]) == (503, "NoDataset")


async def test_a_version_that_is_not_supported_is_refused(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("GET /health/live HTTP/1.1", "api-version: 1.7.0")
        assert (await client.answer()).status == 200
        await client.send("GET /health/live HTTP/1.1", "api-version: 2.0.0")
        assert (await client.answer()).json()["error_code"] == "ApiVersion"


async def test_the_description_is_the_one_that_is_checked_in(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("GET /openapi.json HTTP/1.1")
        document = (await client.answer()).json()
    checked_in = await asyncio.to_thread(Path("docs/openapi/depot.json").read_text)
    assert document == json.loads(checked_in), "regenerate docs/openapi/depot.json"


async def test_the_description_covers_the_reference(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("GET /openapi.json HTTP/1.1")
        operation = (await client.answer()).json()["paths"]["/artifact/sha256/{sha256}"]["get"]
    assert operation["operationId"] == "artifact_get_by_sha256"
    assert operation["parameters"][0]["schema"]["format"] == "hex string (32 bytes)"
    assert {"200", "4XX", "5XX"} <= set(operation["responses"])


# ---- many readers


async def test_pipelined_requests_are_answered_in_order(
    store: FakeStore, service: HttpService
) -> None:
    contents = [SMALL, LARGE, b"", bytes(100_000)]
    artifacts = [await store.add(content) for content in contents]
    async with RawClient.connect(service.url) as client:
        requests = "".join(f"{get(artifact)}\r\nHost: test\r\n\r\n" for artifact in artifacts)
        await client.send_bytes(requests.encode())
        for content in contents:
            assert (await client.answer()).body == content


async def test_slow_readers_do_not_hold_up_the_others(store: FakeStore) -> None:
    artifact = await store.add(LARGE)
    async with (
        depot(store, pump=Pump(threads_per_dataset=1)) as service,
        AsyncExitStack() as connections,
    ):
        stalled = []
        for _ in range(60):
            client = await connections.enter_async_context(RawClient.connect(service.url))
            await client.send(get(artifact))
            stalled.append(client)
        for client in stalled:
            await client.head()
        async with RawClient.connect(service.url) as quick:
            await quick.send(get(artifact))
            assert (await quick.answer()).body == LARGE
        # Those who waited still get every byte.
        for client in stalled[:3]:
            assert await client.reader.readexactly(len(LARGE)) == LARGE


async def test_where_no_descriptor_is_left_a_large_answer_is_refused_and_not_cut_short(
    store: FakeStore, service: HttpService, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dup(_fd: int) -> int:
        raise OSError(errno.EMFILE, "injected")

    artifact = await store.add(LARGE)
    async with RawClient.connect(service.url) as client:
        with monkeypatch.context() as without:
            without.setattr(socket, "dup", dup)
            await client.send(f"GET /artifact/sha256/{artifact} HTTP/1.1")
            refused = await client.answer()
        assert refused.code == "503 TooManyConnections"
        assert int(refused.headers["retry-after"]) > 0
        await client.send(f"GET /artifact/sha256/{artifact} HTTP/1.1")
        assert (await client.answer()).body == LARGE
    assert store.failures == []


async def test_a_reader_that_takes_nothing_is_given_up(store: FakeStore) -> None:
    artifact = await store.add(bytes(64 * MIB))
    limits = HttpLimits(idle_timeout_s=0.1)
    async with (
        depot(store, limits=limits) as service,
        RawClient.connect(service.url) as stalled,
    ):
        await stalled.send(get(artifact))
        while service.connections:
            async with RawClient.connect(service.url) as other:
                await other.send("GET /health/live HTTP/1.1", "Connection: close")
                await other.rest()
        assert len(await stalled.rest()) < 64 * MIB


async def test_a_client_that_goes_away_leaves_nothing_behind(store: FakeStore) -> None:
    artifact = await store.add(bytes(64 * MIB))
    async with depot(store) as service:
        for _ in range(5):
            async with RawClient.connect(service.url) as client:
                await client.send(get(artifact))
                await client.head()
        while service.connections or store.open_descriptors():
            async with RawClient.connect(service.url) as other:
                await other.send("GET /health/live HTTP/1.1", "Connection: close")
                await other.rest()


async def test_a_stop_cuts_what_does_not_finish_in_time(store: FakeStore) -> None:
    artifact = await store.add(bytes(64 * MIB))
    async with depot(store) as service, RawClient.connect(service.url) as client:
        await client.send(get(artifact))
        await client.head()
        await service.stop(0.01)
        assert len(await client.rest()) < 64 * MIB


# ---- mirrors that fail


def on(mirrors: set[str], error: OSError) -> Callable[[str], None]:
    def fault(mirror: str) -> None:
        if mirror in mirrors:
            raise error

    return fault


EIO = OSError(errno.EIO, "injected")


@pytest.mark.parametrize("fails_at", [0, 1, 3 * MIB + 7, len(LARGE) - 1])
async def test_a_read_error_is_left_for_the_other_mirror_without_a_wrong_byte(
    store: FakeStore, fails_at: int
) -> None:
    artifact = await store.add(LARGE)
    pump = Pump(read=FaultyDisk(fails_at, on({"m2-a"}, EIO)).read)
    async with depot(store, pump=pump) as service, RawClient.connect(service.url) as client:
        await client.send(get(artifact))
        answer = await client.answer()
        assert (answer.status, answer.body == LARGE) == (200, True)
        assert store.failures == [(0, EIO)]
        # The connection is as good as any.
        await client.send(get(artifact), "Range: bytes=5-9")
        assert (await client.answer()).body == LARGE[5:10]


async def test_a_file_that_is_too_short_is_left_for_the_other_mirror(store: FakeStore) -> None:
    artifact = await store.add(LARGE, truncated={0: 2 * MIB + 1})
    async with depot(store) as service, RawClient.connect(service.url) as client:
        await client.send(get(artifact))
        assert (await client.answer()).body == LARGE
        assert [dataset for dataset, _ in store.failures] == [0]


async def test_a_small_artifact_is_read_from_the_other_mirror_too(store: FakeStore) -> None:
    artifact = await store.add(SMALL, truncated={0: 3})
    async with depot(store) as service, RawClient.connect(service.url) as client:
        await client.send(get(artifact))
        assert (await client.answer()).body == SMALL


async def test_a_read_that_hangs_is_left_for_the_other_mirror(store: FakeStore) -> None:
    artifact = await store.add(LARGE)
    release = threading.Event()

    def hang(mirror: str) -> None:
        if mirror == "m2-a":
            release.wait(60)

    pump = Pump(read=FaultyDisk(3 * MIB, hang).read, read_timeout_s=0.05)
    async with depot(store, pump=pump) as service, RawClient.connect(service.url) as client:
        await client.send(get(artifact))
        status, _ = await client.head()
        received = await client.reader.readexactly(5 * MIB)
        # The read that hung now ends; what it read must not be sent any more.
        release.set()
        received += await client.reader.readexactly(len(LARGE) - len(received))
        assert (status, received == LARGE) == (200, True)
        assert [error.errno for _, error in store.failures] == [errno.ETIMEDOUT]


async def test_with_no_good_copy_left_the_answer_is_cut_short(store: FakeStore) -> None:
    artifact = await store.add(LARGE)
    pump = Pump(read=FaultyDisk(3 * MIB, on({"m2-a", "m2-b"}, EIO)).read)
    async with depot(store, pump=pump) as service, RawClient.connect(service.url) as client:
        await client.send(get(artifact))
        status, headers = await client.head()
        received = await client.rest()
        assert (status, headers["content-length"]) == (200, str(len(LARGE)))
        assert len(received) < len(LARGE)
        assert LARGE.startswith(received)
        assert [dataset for dataset, _ in store.failures] == [0, 1]


async def test_a_small_artifact_with_no_good_copy_is_refused(store: FakeStore) -> None:
    artifact = await store.add(SMALL)
    pump = Pump(read=FaultyDisk(0, on({"m2-a", "m2-b"}, EIO)).read)
    async with depot(store, pump=pump) as service, RawClient.connect(service.url) as client:
        await client.send(get(artifact))
        answer = await client.answer()
        assert (answer.status, answer.json()["details"]) == (404, {"damaged": 2})


async def test_readers_of_one_dataset_do_not_wait_for_the_other(store: FakeStore) -> None:
    hanging, healthy = await store.add(LARGE), await store.add(SMALL * 100_000)
    await store.remove(healthy, mirror=0)
    release = threading.Event()
    entered = threading.Event()

    def hang(mirror: str) -> None:
        if mirror == "m2-a":
            entered.set()
            release.wait(60)

    pump = Pump(read=FaultyDisk(0, hang).read, threads_per_dataset=1)
    async with (
        depot(store, pump=pump) as service,
        RawClient.connect(service.url) as stuck,
        RawClient.connect(service.url) as quick,
    ):
        await stuck.send(get(hanging))
        await asyncio.to_thread(entered.wait)
        await quick.send(get(healthy))
        assert (await quick.answer()).body == SMALL * 100_000
        release.set()
        assert (await stuck.answer()).body == LARGE
