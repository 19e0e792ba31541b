"""The depot's answers to clients that ask for zstd: their headers, their framing, their number."""

from __future__ import annotations

import asyncio
import base64
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
import zstandard

from depot.artifact import ArtifactHash
from depot.http.compressing import MAX_PLACES, Compressor
from depot.http.depot_api import depot_app
from depot.http.hot_artifacts import HotArtifacts
from depot.http.limits import HttpLimits
from depot.http.pump import Pump
from depot.http.service import HttpService
from tests.fakes import FakeStore
from tests.http.raw import RawClient
from tests.http.servers import serve
from tests.http.zstd import MIB, TEXT, ask, decode, is_encoded, line

NOISE = random.Random(2).randbytes(2 * MIB)
SMALL = TEXT[:1000]
# Takes no time to encode and gets no smaller: a client that does not read it is stuck soon.
STALLING = random.Random(8).randbytes(20 * MIB)
ONLY_ZSTD = "zstd, identity;q=0"
IMMUTABLE = "public, max-age=31536000, immutable"


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
    places: int | None = None,
) -> AsyncIterator[HttpService]:
    compressor = Compressor(places=places)
    app = depot_app(store, limits=limits, pump=pump, compressor=compressor, hot=store.hot)
    async with serve(app, limits) as service:
        yield service


@pytest.fixture
async def service(store: FakeStore) -> AsyncIterator[HttpService]:
    async with depot(store) as service:
        yield service


def plain(headers: dict[str, str]) -> dict[str, str]:
    """What is the same in every answer of its kind."""
    return {name: headers[name] for name in headers if name not in ("date", "x-request-id")}


# ---- headers


async def test_the_zstd_coding_has_its_own_tag_and_the_digest_of_the_decoded_bytes(
    store: FakeStore, service: HttpService
) -> None:
    artifact = await store.add(TEXT)
    answer = await ask(service.url, artifact)
    assert answer.status == 200
    assert decode(answer.body) == TEXT
    assert len(answer.body) < len(TEXT) / 2
    assert plain(answer.headers) == {
        "content-type": "application/octet-stream",
        "content-encoding": "zstd",
        "transfer-encoding": "chunked",
        "etag": f'"sha256:{artifact};zstd"',
        "unencoded-digest": f"sha-256=:{base64.b64encode(artifact.digest).decode()}:",
        "cache-control": IMMUTABLE,
        "vary": "Accept-Encoding",
        "server": "sled-depot",
    }


async def test_the_bytes_themselves_say_that_there_was_a_choice(
    store: FakeStore, service: HttpService
) -> None:
    artifact = await store.add(TEXT)
    answer = await ask(service.url, artifact, accept="identity")
    assert (answer.status, answer.body) == (200, TEXT)
    assert plain(answer.headers) == {
        "content-type": "application/octet-stream",
        "content-length": str(len(TEXT)),
        "etag": f'"sha256:{artifact}"',
        "repr-digest": f"sha-256=:{base64.b64encode(artifact.digest).decode()}:",
        "accept-ranges": "bytes",
        "cache-control": IMMUTABLE,
        "vary": "Accept-Encoding",
        "server": "sled-depot",
    }


async def test_the_lines_of_accept_encoding_are_one_list(
    store: FakeStore, service: HttpService
) -> None:
    artifact = await store.add(TEXT)
    answer = await ask(service.url, artifact, "Accept-Encoding: zstd", accept="gzip")
    assert is_encoded(answer)
    answer = await ask(service.url, artifact, "Accept-Encoding: zstd;q=0", accept="zstd")
    assert not is_encoded(answer)
    assert answer.body == TEXT


async def test_a_client_that_says_nothing_gets_the_bytes_themselves(
    store: FakeStore, service: HttpService
) -> None:
    artifact = await store.add(TEXT)
    async with RawClient.connect(service.url) as client:
        await client.send(line(artifact))
        answer = await client.answer()
    assert (answer.body == TEXT, answer.headers["vary"]) == (True, "Accept-Encoding")


@pytest.mark.parametrize("content", [TEXT, NOISE, SMALL, b""], ids=["text", "noise", "small", "-"])
@pytest.mark.parametrize("accept", ["zstd", "identity", "zstd, identity;q=0"])
async def test_head_gives_the_headers_of_get(
    store: FakeStore, service: HttpService, content: bytes, accept: str
) -> None:
    artifact = await store.add(content)
    head = await ask(service.url, artifact, accept=accept, method="HEAD")
    whole = await ask(service.url, artifact, accept=accept)
    told = plain(whole.headers)
    told.pop("transfer-encoding", None)  # of the message, not of the artifact
    assert (head.status, plain(head.headers)) == (200, told)


@pytest.mark.parametrize("content", [NOISE, SMALL, b""], ids=["noise", "small", "empty"])
async def test_what_does_not_pay_is_sent_as_it_is(
    store: FakeStore, service: HttpService, content: bytes
) -> None:
    artifact = await store.add(content)
    for _ in range(2):
        answer = await ask(service.url, artifact)
        assert (is_encoded(answer), answer.body == content) == (False, True)
        assert answer.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("content", [NOISE, SMALL, b""], ids=["noise", "small", "empty"])
async def test_who_refuses_the_bytes_themselves_gets_zstd_also_where_it_does_not_pay(
    store: FakeStore, service: HttpService, content: bytes
) -> None:
    artifact = await store.add(content)
    answer = await ask(service.url, artifact, accept="zstd, identity;q=0")
    assert is_encoded(answer)
    assert decode(answer.body) == content


async def test_http_1_0_gets_the_bytes_themselves(store: FakeStore, service: HttpService) -> None:
    artifact = await store.add(TEXT)
    async with RawClient.connect(service.url) as client:
        await client.send(line(artifact, version="1.0"), "Accept-Encoding: zstd, identity;q=0")
        status, headers = await client.head()
        body = await client.rest()
    assert (status, body == TEXT) == (200, True)
    assert "transfer-encoding" not in headers
    assert (headers["content-length"], headers["vary"]) == (str(len(TEXT)), "Accept-Encoding")


async def test_without_a_compressor_nothing_is_encoded_and_nothing_varies(
    store: FakeStore,
) -> None:
    artifact = await store.add(TEXT)
    async with serve(depot_app(store)) as service:
        answer = await ask(service.url, artifact)
    assert (is_encoded(answer), answer.body == TEXT) == (False, True)
    assert "vary" not in answer.headers


# ---- conditions and ranges


@pytest.mark.parametrize("content", [TEXT, SMALL], ids=["streamed", "in memory"])
async def test_a_range_is_of_the_bytes_themselves(
    store: FakeStore, service: HttpService, content: bytes
) -> None:
    artifact = await store.add(content)
    for if_range in ([], [f'If-Range: "sha256:{artifact}"']):
        answer = await ask(service.url, artifact, "Range: bytes=3-900", *if_range)
        assert (answer.status, answer.body) == (206, content[3:901])
        assert not is_encoded(answer)
        assert answer.headers["etag"] == f'"sha256:{artifact}"'
        assert answer.headers["vary"] == "Accept-Encoding"


async def test_b2_the_rest_of_a_zstd_stream_is_never_a_range_of_the_bytes(
    store: FakeStore, service: HttpService
) -> None:
    artifact = await store.add(TEXT)
    tag = f'"sha256:{artifact};zstd"'
    answer = await ask(service.url, artifact, "Range: bytes=3-900", f"If-Range: {tag}")
    assert (answer.status, decode(answer.body) == TEXT) == (200, True)
    plain = await ask(
        service.url, artifact, "Range: bytes=3-900", f"If-Range: {tag}", accept="identity"
    )
    assert (plain.status, plain.body == TEXT) == (200, True)


@pytest.mark.parametrize(
    ("accept", "suffix", "status", "told"),
    [
        ("zstd", ";zstd", 304, ";zstd"),
        ("zstd", "", 304, ""),
        ("identity", "", 304, ""),
        ("identity", ";zstd", 200, ""),
        ("zstd, identity;q=0", "", 200, ";zstd"),
        ("zstd, identity;q=0", ";zstd", 304, ";zstd"),
    ],
)
async def test_who_has_a_representation_that_it_can_use_gets_304_for_it(
    store: FakeStore, service: HttpService, accept: str, suffix: str, status: int, told: str
) -> None:
    artifact = await store.add(TEXT)
    for weak in ("", "W/"):
        tag = f'If-None-Match: {weak}"sha256:{artifact}{suffix}"'
        for method in ("GET", "HEAD"):
            answer = await ask(service.url, artifact, tag, accept=accept, method=method)
            assert answer.status == status
            assert answer.headers["etag"] == f'"sha256:{artifact}{told}"'
            assert answer.headers["vary"] == "Accept-Encoding"
            if status == 304:
                assert answer.headers["cache-control"] == IMMUTABLE
                assert not {"content-encoding", "content-length"} & set(answer.headers)


async def test_if_match_gets_the_representation_that_it_names(
    store: FakeStore, service: HttpService
) -> None:
    artifact = await store.add(TEXT)
    encoded = await ask(service.url, artifact, f'If-Match: "sha256:{artifact};zstd"')
    assert (encoded.status, is_encoded(encoded)) == (200, True)
    whole = await ask(service.url, artifact, f'If-Match: "sha256:{artifact}"')
    assert (whole.status, is_encoded(whole)) == (200, False)
    refused = await ask(
        service.url, artifact, f'If-Match: "sha256:{artifact};zstd"', accept="identity"
    )
    assert (refused.status, refused.json()["error_code"]) == (412, "PreconditionFailed")


# ---- the message


async def test_the_connection_goes_on_after_an_encoded_answer(
    store: FakeStore, service: HttpService
) -> None:
    artifacts = [await store.add(content) for content in (TEXT, NOISE, SMALL)]
    asked = ["zstd", "identity", "zstd, identity;q=0"]
    async with RawClient.connect(service.url) as client:
        requests = "".join(
            f"{line(artifact)}\r\nHost: test\r\nAccept-Encoding: {accept}\r\n\r\n"
            for artifact in artifacts
            for accept in asked
        )
        await client.send_bytes(requests.encode())
        for artifact in artifacts:
            for _ in asked:
                answer = await client.answer()
                body = decode(answer.body) if is_encoded(answer) else answer.body
                assert ArtifactHash.of(body) == artifact


async def test_a_client_of_the_http_library_decodes_it(
    store: FakeStore, service: HttpService
) -> None:
    artifact = await store.add(TEXT)
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(
            f"{service.url}/artifact/sha256/{artifact}", headers={"Accept-Encoding": "zstd"}
        ) as response,
    ):
        assert response.headers["Content-Encoding"] == "zstd"
        assert decode(await response.read()) == TEXT


async def run(*command: str | Path) -> tuple[int, bytes]:
    ran = await asyncio.to_thread(subprocess.run, command, stdout=subprocess.PIPE, check=False)
    return ran.returncode, ran.stdout


@pytest.fixture(scope="module")
def curl() -> str:
    curl = shutil.which("curl")
    if curl is None or b"zstd" not in subprocess.check_output([curl, "--version"]):
        pytest.skip("no curl that knows zstd")
    return curl


@pytest.fixture(scope="module")
def zstd_tool() -> str:
    return shutil.which("zstd") or pytest.skip("no zstd tool")


async def test_curl_compressed_gets_the_named_bytes(
    store: FakeStore, service: HttpService, curl: str
) -> None:
    for content in (TEXT, NOISE, SMALL):
        artifact = await store.add(content)
        url = f"{service.url}/artifact/sha256/{artifact}"
        status, output = await run(curl, "-sSf", "--compressed", url)
        assert (status, ArtifactHash.of(output)) == (0, artifact)
    shown = ["-o", "/dev/null", "-w", "%header{content-encoding}"]
    artifact = await store.add(TEXT)
    url = f"{service.url}/artifact/sha256/{artifact}"
    assert await run(curl, "-sSf", "--compressed", *shown, url) == (0, b"zstd")


async def test_the_zstd_tool_checks_the_stream(
    store: FakeStore, service: HttpService, tmp_path: Path, zstd_tool: str
) -> None:
    artifact = await store.add(TEXT)
    file = tmp_path / "artifact.zst"
    await asyncio.to_thread(file.write_bytes, (await ask(service.url, artifact)).body)
    status, decoded = await run(zstd_tool, "--decompress", "--stdout", "--memory=8MB", file)
    assert (status, decoded == TEXT) == (0, True)
    cut = tmp_path / "cut.zst"
    await asyncio.to_thread(cut.write_bytes, (await asyncio.to_thread(file.read_bytes))[:-5])
    assert (await run(zstd_tool, "--test", "--quiet", cut))[0] != 0


# ---- many clients, slow ones, and the end


async def test_whoever_finds_no_place_gets_the_bytes_themselves(store: FakeStore) -> None:
    artifact = await store.add(STALLING)
    async with (
        depot(store, places=1) as service,
        RawClient.connect(service.url) as stalled,
    ):
        await stalled.send(line(artifact), f"Accept-Encoding: {ONLY_ZSTD}")
        assert (await stalled.head())[1]["content-encoding"] == "zstd"
        second = await ask(service.url, artifact, accept=ONLY_ZSTD)
        assert (is_encoded(second), second.body == STALLING) == (False, True)
        head = await ask(service.url, artifact, accept=ONLY_ZSTD, method="HEAD")
        assert head.headers["content-length"] == str(len(STALLING))
        # Nothing is lost for the one who was slow, and then there is a place again.
        assert decode(await stalled.chunks()) == STALLING
        assert is_encoded(await ask(service.url, artifact, accept=ONLY_ZSTD))


async def test_slow_readers_do_not_hold_up_the_others(store: FakeStore) -> None:
    artifact = await store.add(STALLING)
    async with (
        depot(store, pump=Pump(threads_per_dataset=1)) as service,
        AsyncExitStack() as connections,
    ):
        stalled = []
        for _ in range(MAX_PLACES - 1):
            client = await connections.enter_async_context(RawClient.connect(service.url))
            await client.send(line(artifact), f"Accept-Encoding: {ONLY_ZSTD}")
            stalled.append(client)
        for client in stalled:
            assert (await client.head())[1]["content-encoding"] == "zstd"
        encoded = await ask(service.url, artifact, accept=ONLY_ZSTD)
        assert is_encoded(encoded)
        assert decode(encoded.body) == STALLING
        whole = await ask(service.url, artifact, accept="identity")
        assert whole.body == STALLING
        for client in stalled[:2]:
            assert decode(await client.chunks()) == STALLING


async def test_s2_a_reader_that_takes_nothing_is_given_up(store: FakeStore) -> None:
    artifact = await store.add(STALLING)
    limits = HttpLimits(idle_timeout_s=0.1)
    async with (
        depot(store, limits=limits, places=1) as service,
        RawClient.connect(service.url) as stalled,
    ):
        await stalled.send(line(artifact), f"Accept-Encoding: {ONLY_ZSTD}")
        while service.connections:
            async with RawClient.connect(service.url) as other:
                await other.send("GET /health/live HTTP/1.1", "Connection: close")
                await other.rest()
        assert not (await stalled.rest()).endswith(b"0\r\n\r\n")
        assert is_encoded(await ask(service.url, artifact, accept=ONLY_ZSTD)), (
            "its place was not given back"
        )


async def test_a_client_that_goes_away_leaves_nothing_behind(store: FakeStore) -> None:
    artifact = await store.add(STALLING)
    async with depot(store, places=2) as service:
        for _ in range(5):
            async with RawClient.connect(service.url) as client:
                await client.send(line(artifact), f"Accept-Encoding: {ONLY_ZSTD}")
                await client.head()
                client.reset()
        while service.connections or store.open_descriptors():
            async with RawClient.connect(service.url) as other:
                await other.send("GET /health/live HTTP/1.1", "Connection: close")
                await other.rest()
        assert is_encoded(await ask(service.url, artifact, accept=ONLY_ZSTD))


async def test_b2_a_stop_cuts_what_does_not_finish_in_time(store: FakeStore) -> None:
    artifact = await store.add(STALLING)
    async with depot(store) as service, RawClient.connect(service.url) as client:
        await client.send(line(artifact), f"Accept-Encoding: {ONLY_ZSTD}")
        await client.head()
        await service.stop(0.01)
        received = await client.rest()
    assert not received.endswith(b"0\r\n\r\n"), "cut, and yet it looks whole"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux forgets a peak")
async def test_s1_memory_does_not_grow_with_the_artifact(
    store: FakeStore, service: HttpService
) -> None:
    async def peak_after(content: bytes) -> int:
        artifact = await store.add(content)
        await asyncio.to_thread(Path("/proc/self/clear_refs").write_text, "5")
        async with RawClient.connect(service.url) as client:
            await client.send(line(artifact), f"Accept-Encoding: {ONLY_ZSTD}")
            assert (await client.head())[1]["content-encoding"] == "zstd"
            decoder = zstandard.ZstdDecompressor().decompressobj()
            decoded_bytes = 0
            while size := int(await client.reader.readuntil(b"\r\n"), 16):
                decoded_bytes += len(decoder.decompress(await client.reader.readexactly(size)))
                await client.reader.readexactly(2)
        assert decoded_bytes == len(content)
        status = await asyncio.to_thread(Path("/proc/self/status").read_text)
        return int(status.partition("VmHWM:")[2].split()[0]) << 10

    # Made before the first measurement, because it takes memory itself.
    larger = STALLING * 5
    before = await peak_after(STALLING[: 8 * MIB])
    after = await peak_after(larger)
    assert after - before < len(larger) / 4
