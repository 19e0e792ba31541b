"""When the agent API reads a body, and when it answers without: by hand, over raw sockets."""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from depot import ArtifactHash
from depot.http.body import TAKEOVER_FROM_BYTES
from depot.http.limits import HttpLimits
from tests.http.raw import RawClient
from tests.http.sled import Sled, prepare_datasets, sled_with_store

CONTENT = b"an artifact's bytes"
NAME = ArtifactHash.of(CONTENT)

HEAD = "HTTP/1.1"
JSON = "Content-Type: application/json"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    prepare_datasets(tmp_path)
    return tmp_path


@pytest.fixture
async def sled(root: Path) -> AsyncIterator[Sled]:
    async with sled_with_store(root) as sled:
        yield sled


def put_head(name: ArtifactHash, length: int, generation: int = 1) -> list[str]:
    return [
        f"PUT /artifacts/{name}?generation={generation} {HEAD}",
        f"Content-Length: {length}",
    ]


@pytest.mark.parametrize("length", [len(CONTENT), 1 << 30])
async def test_a_refusal_that_needs_no_body_comes_instead_of_100(sled: Sled, length: int) -> None:
    async with RawClient.connect(sled.url) as client:
        await client.send(*put_head(NAME, length), "Expect: 100-continue")
        answer = await client.answer()
        assert answer.status == 400
        assert answer.json()["error_code"] == "NoConfig"
        assert answer.json()["request_id"] == answer.headers["x-request-id"]


async def test_100_comes_when_the_body_is_wanted_and_only_then(sled: Sled) -> None:
    await sled.put_config(1, NAME)
    async with RawClient.connect(sled.url) as client:
        await client.send(*put_head(NAME, len(CONTENT)), "Expect: 100-continue")
        assert (await client.head())[0] == 100
        await client.send_bytes(CONTENT)
        assert (await client.answer()).json() == {"datasets": 2, "successful_writes": 2}
        await client.send(*put_head(NAME, len(CONTENT)), "Expect: 100-continue")
        answer = await client.answer()
        assert (answer.status, answer.json()) == (200, {"datasets": 2, "successful_writes": 2})


async def test_a_large_body_is_taken_where_no_descriptor_is_left_for_its_socket(
    sled: Sled, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dup(_fd: int) -> int:
        raise OSError(errno.EMFILE, "injected")

    monkeypatch.setattr(socket, "dup", dup)
    content = CONTENT * (1 + TAKEOVER_FROM_BYTES // len(CONTENT))
    name = ArtifactHash.of(content)
    await sled.put_config(1, name)
    async with RawClient.connect(sled.url) as client:
        await client.send(*put_head(name, len(content)), body=content)
        assert (await client.answer()).json() == {"datasets": 2, "successful_writes": 2}


@pytest.mark.parametrize(
    ("lines", "code"),
    [
        ([f"PUT /artifacts-config {HEAD}", "Content-Encoding: gzip", JSON], "UnsupportedEncoding"),
        ([f"PUT /artifacts-config {HEAD}", "Content-Type: text/html"], "InvalidRequest"),
        ([f"PUT /artifacts/{NAME} {HEAD}"], "InvalidRequest"),
        ([f"PUT /artifacts/xyz?generation=1 {HEAD}"], "InvalidRequest"),
        ([f"PUT /nowhere {HEAD}"], "NotFound"),
        ([f"DELETE /artifacts {HEAD}"], "MethodNotAllowed"),
        ([f"PUT /artifacts-config {HEAD}", "api-version: 99.0.0"], "ApiVersion"),
    ],
)
async def test_malformed_requests_are_refused_instead_of_100(
    sled: Sled, lines: list[str], code: str
) -> None:
    async with RawClient.connect(sled.url) as client:
        await client.send(*lines, "Content-Length: 10", "Expect: 100-continue")
        answer = await client.answer()
        assert answer.status >= 400
        assert answer.json()["error_code"] == code


@pytest.mark.parametrize(
    "codings", [["gzip"], ["zstd, gzip"], ["zstd", "gzip"], ["identity", "zstd"], ["zstd;q=1"]]
)
async def test_a_coding_that_is_not_decoded_is_refused_instead_of_100(
    sled: Sled, codings: list[str]
) -> None:
    await sled.put_config(1, NAME)
    lines = [f"Content-Encoding: {coding}" for coding in codings]
    async with RawClient.connect(sled.url) as client:
        await client.send(*put_head(NAME, 10), *lines, "Expect: 100-continue")
        answer = await client.answer()
        assert (answer.status, answer.json()["error_code"]) == (415, "UnsupportedEncoding")


async def test_another_expectation_is_refused(sled: Sled) -> None:
    async with RawClient.connect(sled.url) as client:
        await client.send(*put_head(NAME, 10), "Expect: 200-maybe")
        assert (await client.answer()).status == 417


def in_chunks(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (f"Content-Length: {len(CONTENT)}", CONTENT[:-1]),
        (f"Content-Length: {2 << 20}", CONTENT),
        ("Transfer-Encoding: chunked", in_chunks(CONTENT)),
    ],
)
async def test_a_body_that_ends_early_while_the_client_listens_is_told_so(
    sled: Sled, framing: str, body: bytes
) -> None:
    await sled.put_config(1, NAME)
    async with RawClient.connect(sled.url) as client:
        await client.send(put_head(NAME, 0)[0], framing, body=body)
        client.writer.write_eof()
        answer = await client.answer()
        assert (answer.status, answer.json()["error_code"]) == (400, "LengthMismatch")
    assert (await sled.call("GET", "/artifacts")).body["list"] == {}


async def test_a_refusal_can_be_read_by_a_client_that_sends_its_body_first(sled: Sled) -> None:
    async with RawClient.connect(sled.url) as client:
        await client.send(*put_head(NAME, 512 << 10), body=bytes(512 << 10))
        assert (await client.answer()).json()["error_code"] == "NoConfig"


async def test_a_held_artifact_is_a_success_for_a_client_that_sends_all_of_it_first(
    sled: Sled,
) -> None:
    content = bytes(8 << 20)
    name = ArtifactHash.of(content)
    await sled.put_config(1, name)
    await sled.put(content)
    async with RawClient.connect(sled.url) as client:
        await client.send(*put_head(name, len(content)), body=content)
        assert (await client.answer()).status == 200


async def test_a_held_artifact_is_a_success_however_its_body_ends(sled: Sled) -> None:
    await sled.put_config(1, NAME)
    await sled.put(CONTENT)
    async with RawClient.connect(sled.url) as client:
        await client.send(*put_head(NAME, len(CONTENT)), body=CONTENT[:5])
        client.writer.write_eof()
        assert (await client.answer()).status == 200


async def test_a_json_body_of_just_16_mib_is_taken_and_one_byte_more_is_not(sled: Sled) -> None:
    limit = 16 << 20
    config = json.dumps({"generation": 1, "artifacts": [str(NAME)]}).encode()
    for excess in (0, 1):
        body = config + b" " * (limit + excess - len(config))
        reply = await sled.call("PUT", "/artifacts-config", data=body)
        assert reply.code == ("413 TooLarge" if excess else "204")


async def test_a_json_body_that_is_too_large_is_refused_before_it_is_sent(sled: Sled) -> None:
    lines = [f"PUT /artifacts-config {HEAD}", f"Content-Length: {1 << 40}", JSON]
    async with RawClient.connect(sled.url) as client:
        await client.send(*lines, "Expect: 100-continue")
        answer = await client.answer()
        assert (answer.status, answer.json()["error_code"]) == (413, "TooLarge")


async def test_a_silent_body_is_given_up(root: Path) -> None:
    limits = HttpLimits(idle_timeout_s=0.2)
    async with sled_with_store(root, limits=limits) as sled:
        await sled.put_config(1, NAME)
        heads: list[Callable[[], list[str]]] = [
            lambda: put_head(NAME, 10),
            lambda: [f"PUT /artifacts-config {HEAD}", "Content-Length: 10", JSON],
        ]
        for head in heads:
            async with RawClient.connect(sled.url) as client:
                await client.send(*head(), body=b"x")
                answer = await client.answer()
                assert (answer.status, answer.json()["error_code"]) == (408, "BodyTimeout")


async def test_s1_json_bodies_get_no_more_memory_than_there_is_and_small_ones_are_read(
    root: Path,
) -> None:
    def config(padding: int) -> bytes:
        return json.dumps({"generation": 1, "artifacts": [], "x": "y" * padding}).encode()

    small = json.dumps({"generation": 1, "artifacts": []}).encode()
    # The first 64 KiB of each count for nothing; what the one before held is free again.
    expected = [(config(200_000), 429), (config(150_000), 400), (config(150_000), 400)]
    async with sled_with_store(root, limits=HttpLimits(json_memory_bytes=100_000)) as sled:
        for body, status in [*expected, (small, 204)]:
            async with RawClient.connect(sled.url) as client:
                length = f"Content-Length: {len(body)}"
                await client.send(f"PUT /artifacts-config {HEAD}", JSON, length, body=body)
                answer = await client.answer()
                assert answer.status == status
                if status == 429:
                    assert answer.json()["error_code"] == "TooManyBodies"
                    assert answer.headers["retry-after"] == "1"
