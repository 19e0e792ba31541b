from __future__ import annotations

import asyncio
import fcntl
import os
import random
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import aiohttp
import pytest
import zstandard

from depot.artifact import ArtifactHash
from depot.client import Bounds, ClientTimeouts, DepotClient, Fetched, Retries
from depot.errors import (
    HashMismatch,
    InvalidRequest,
    LengthMismatch,
    Refused,
    TooLarge,
    Unreachable,
)
from depot.http.depot_api import depot_app
from tests import lying_peer
from tests.fakes import FakeStore
from tests.http.servers import serve
from tests.lying_peer import LyingPeer

CONTENT = random.Random(2).randbytes(3_000_000)
OTHER = random.Random(3).randbytes(3_000_000)
ARTIFACT = ArtifactHash.of(CONTENT)
HALF = 1_500_000


def client(peer: LyingPeer) -> DepotClient:
    return DepotClient(
        peer.url,
        timeouts=ClientTimeouts(connect_s=5, idle_s=0.1),
        retries=Retries(attempts=3, first_delay_s=0),
    )


@pytest.fixture
def store(tmp_path: Path) -> FakeStore:
    return FakeStore(tmp_path)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "artifact.bin"


def part_of(target: Path) -> Path:
    return target.parent / f".{ARTIFACT}.part"


async def fetch(
    script: Sequence[lying_peer.Answer], target: Path, *, resume: bool = True
) -> tuple[Fetched, list[int]]:
    """Fetch from a scripted depot; what came of it, and from which offsets was asked."""
    async with LyingPeer(script) as peer, client(peer) as depot:
        fetched = await depot.fetch(ARTIFACT, target, resume=resume)
        return fetched, peer.offsets


async def write(path: Path, content: bytes) -> None:
    await asyncio.to_thread(path.write_bytes, content)


async def content_of(path: Path) -> bytes:
    return await asyncio.to_thread(path.read_bytes)


async def names_in(target: Path) -> list[str]:
    return sorted(await asyncio.to_thread(os.listdir, target.parent))


# ---- what goes well


@pytest.mark.parametrize("content", [b"", b"small", CONTENT])
async def test_an_artifact_is_fetched_from_a_real_depot(
    store: FakeStore, target: Path, content: bytes
) -> None:
    artifact = await store.add(content)
    async with serve(depot_app(store)) as service, DepotClient(service.url) as depot:
        assert (await depot.head(artifact)).size_bytes == len(content)
        fetched = await depot.fetch(artifact, target)
    assert fetched == Fetched(len(content), resumed_bytes=0)
    assert await content_of(target) == content
    assert await names_in(target) == [target.name, "m2-a", "m2-b"]


async def test_progress_is_told_from_the_first_byte_to_the_last(target: Path) -> None:
    readings: list[tuple[int, int | None]] = []
    async with LyingPeer([lying_peer.honest(CONTENT)]) as peer, client(peer) as depot:
        await depot.fetch(ARTIFACT, target, progress=lambda *reading: readings.append(reading))
    assert readings[0] == (0, len(CONTENT))
    assert readings[-1] == (len(CONTENT), len(CONTENT))
    assert readings == sorted(readings, key=lambda reading: reading[0])


async def test_a_session_that_was_given_is_used_and_left_open(target: Path) -> None:
    async with (
        LyingPeer([lying_peer.honest(CONTENT)]) as peer,
        aiohttp.ClientSession() as session,
    ):
        async with DepotClient(peer.url, session=session) as depot:
            await depot.fetch(ARTIFACT, target)
        assert not session.closed


@pytest.mark.parametrize(
    "answer",
    [lying_peer.no_ranges(CONTENT), lying_peer.chunked(CONTENT), lying_peer.until_closed(CONTENT)],
)
async def test_a_plainer_depot_will_do(answer: lying_peer.Answer, target: Path) -> None:
    fetched, _ = await fetch([answer], target)
    assert fetched.size_bytes == len(CONTENT)
    assert await content_of(target) == CONTENT


async def test_the_file_that_was_there_is_replaced(target: Path) -> None:
    await write(target, b"before")
    await fetch([lying_peer.honest(CONTENT)], target)
    assert await content_of(target) == CONTENT


# ---- resuming


class Breaking:
    """A depot that breaks off after so many bytes, once the client has them on disk."""

    def __init__(self, after: int) -> None:
        self._after = after
        self._arrived = asyncio.Event()

    async def answer(self, request: lying_peer.Request, connection: lying_peer.Connection) -> None:
        await lying_peer.part_head(request, connection, len(CONTENT))
        await connection.send(CONTENT[request.offset : self._after])
        await self._arrived.wait()
        connection.reset()

    def progress(self, done_bytes: int, _total_bytes: int | None) -> None:
        if done_bytes == self._after:
            self._arrived.set()


async def test_a_transfer_that_breaks_goes_on_where_it_broke(target: Path) -> None:
    first, second = Breaking(1_000_000), Breaking(2_000_000)

    def progress(done_bytes: int, total_bytes: int | None) -> None:
        first.progress(done_bytes, total_bytes)
        second.progress(done_bytes, total_bytes)

    script = [first.answer, second.answer, lying_peer.honest(CONTENT)]
    async with LyingPeer(script) as peer, DepotClient(peer.url) as depot:
        await depot.fetch(ARTIFACT, target, progress=progress)
        assert peer.offsets == [0, 1_000_000, 2_000_000]
        assert peer.requests[2].headers["if-range"] == f'"sha256:{ARTIFACT}"'
        assert peer.requests[2].headers["accept-encoding"] == "identity"
    assert await content_of(target) == CONTENT


async def test_a_later_fetch_builds_on_what_an_earlier_one_left(target: Path) -> None:
    breaking = Breaking(HALF)
    async with (
        LyingPeer([breaking.answer]) as peer,
        DepotClient(peer.url, retries=Retries(attempts=1)) as depot,
    ):
        with pytest.raises(Unreachable, match="broken off"):
            await depot.fetch(ARTIFACT, target, progress=breaking.progress)
    assert await names_in(target) == [part_of(target).name]
    fetched, offsets = await fetch([lying_peer.honest(CONTENT)], target)
    assert (fetched.resumed_bytes, offsets) == (HALF, [HALF])
    assert await content_of(target) == CONTENT
    assert await names_in(target) == [target.name]


async def test_what_an_earlier_fetch_left_is_dropped_when_asked_to(target: Path) -> None:
    await write(part_of(target), CONTENT[:HALF])
    fetched, offsets = await fetch([lying_peer.honest(CONTENT)], target, resume=False)
    assert (fetched.resumed_bytes, offsets) == (0, [0])


async def test_a_depot_without_ranges_is_read_from_the_start(target: Path) -> None:
    await write(part_of(target), CONTENT[:HALF])
    _, offsets = await fetch([lying_peer.no_ranges(CONTENT)], target)
    assert offsets == [HALF]
    assert await content_of(target) == CONTENT


async def test_a_part_that_is_whole_already_needs_no_request(target: Path) -> None:
    await write(part_of(target), CONTENT)
    _, offsets = await fetch([lying_peer.silent], target)
    assert offsets == []
    assert await content_of(target) == CONTENT


async def test_a_part_that_does_not_belong_is_dropped_and_all_is_fetched(target: Path) -> None:
    await write(part_of(target), OTHER[:HALF])
    fetched, offsets = await fetch([lying_peer.honest(CONTENT)], target)
    assert (fetched.resumed_bytes, offsets) == (0, [HALF, 0])
    assert await content_of(target) == CONTENT


async def test_a_part_that_is_too_long_is_dropped_and_all_is_fetched(target: Path) -> None:
    await write(part_of(target), CONTENT + b"more")
    script = [
        lying_peer.fixed("416 Range Not Satisfiable", f"Content-Range: bytes */{len(CONTENT)}"),
        lying_peer.honest(CONTENT),
    ]
    _, offsets = await fetch(script, target)
    assert offsets == [len(CONTENT) + 4, 0]
    assert await content_of(target) == CONTENT


async def test_less_of_the_range_than_was_asked_for_is_taken(target: Path) -> None:
    await write(part_of(target), CONTENT[:HALF])
    some = lying_peer.fixed(
        "206 Partial Content",
        f"Content-Range: bytes {HALF}-1999999/{len(CONTENT)}",
        body=CONTENT[HALF:2_000_000],
    )
    _, offsets = await fetch([some, lying_peer.honest(CONTENT)], target)
    assert offsets == [HALF, 2_000_000]
    assert await content_of(target) == CONTENT


async def test_a_part_in_use_is_left_alone(target: Path) -> None:
    kept = part_of(target)
    await write(kept, CONTENT[:HALF])
    fd = await asyncio.to_thread(os.open, kept, os.O_RDWR)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        fetched, offsets = await fetch([lying_peer.honest(CONTENT)], target)
        assert (fetched.resumed_bytes, offsets) == (0, [0])
    finally:
        os.close(fd)
    assert await content_of(kept) == CONTENT[:HALF]
    assert await names_in(target) == [kept.name, target.name]


# ---- what goes wrong


@pytest.mark.parametrize(
    "answer",
    [
        lying_peer.honest(OTHER),
        lying_peer.chunked(OTHER),
        lying_peer.fixed("200 OK", "Content-Type: text/html", body=b"<html>log in</html>"),
        lying_peer.fixed("200 OK"),
    ],
)
async def test_wrong_bytes_are_dropped_and_never_stand_under_the_name(
    answer: lying_peer.Answer, target: Path
) -> None:
    await write(target, b"before")
    with pytest.raises(HashMismatch, match=str(ARTIFACT)):
        await fetch([answer], target)
    assert await content_of(target) == b"before"
    assert await names_in(target) == [target.name]


@pytest.mark.parametrize(
    "answer",
    [
        lying_peer.silent,
        lying_peer.hanging_up,
        lying_peer.raw(b"SSH-2.0-OpenSSH_9.7\r\n"),
        lying_peer.announcing(len(CONTENT), b"", then_stall=True),
    ],
)
async def test_a_depot_that_gives_nothing_is_unreachable_after_some_attempts(
    answer: lying_peer.Answer, target: Path
) -> None:
    async with LyingPeer([answer]) as peer, client(peer) as depot:
        with pytest.raises(Unreachable, match=peer.url):
            await depot.fetch(ARTIFACT, target)
        # aiohttp repeats a GET by itself when a connection ends without an answer.
        assert len(peer.requests) in (3, 6)
    assert await names_in(target) == []


async def test_a_depot_that_is_not_there_is_unreachable(target: Path) -> None:
    async with LyingPeer([lying_peer.silent]) as peer:
        pass
    async with client(peer) as depot:
        with pytest.raises(Unreachable, match="Connection refused"):
            await depot.head(ARTIFACT)
        with pytest.raises(Unreachable, match="Connection refused"):
            await depot.fetch(ARTIFACT, target)


async def test_a_name_that_does_not_resolve_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_args: object, **_options: object) -> NoReturn:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    async with DepotClient("http://nowhere.invalid:1") as depot:
        with pytest.raises(Unreachable, match="does not resolve: Name or service not known"):
            await depot.head(ARTIFACT)


async def test_what_arrived_before_a_stall_is_kept(target: Path) -> None:
    stall = lying_peer.announcing(len(CONTENT), CONTENT[:HALF], then_stall=True)
    with pytest.raises(Unreachable, match="in time"):
        await fetch([stall], target)
    kept = await content_of(part_of(target))
    assert kept
    assert CONTENT.startswith(kept)


async def test_a_refusal_says_what_the_depot_said(store: FakeStore, target: Path) -> None:
    async with serve(depot_app(store)) as service, DepotClient(service.url) as depot:
        with pytest.raises(Refused) as caught:
            await depot.fetch(ARTIFACT, target)
        with pytest.raises(Refused):
            await depot.head(ARTIFACT)
    refusal = caught.value
    assert (refusal.status, refusal.remote_code) == (404, "NotFound")
    assert str(ARTIFACT) in refusal.remote_message
    assert refusal.request_id is not None
    assert refusal.remote_details == {}
    assert await names_in(target) == ["m2-a", "m2-b"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [(b'{"damaged": 2}', {"damaged": 2}), (b"[2]", {}), (b'"2"', {}), (b"null", {})],
)
async def test_a_refusal_has_the_details_that_the_depot_gave(
    said: bytes, kept: dict[str, object], target: Path
) -> None:
    answer = lying_peer.fixed("404 Not Found", body=b'{"message": "no", "details": %s}' % said)
    async with LyingPeer([answer]) as peer, client(peer) as depot:
        with pytest.raises(Refused, match="no") as caught:
            await depot.fetch(ARTIFACT, target)
    assert caught.value.remote_details == kept


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lying_peer.fixed("302 Found", "Location: http://127.0.0.1:1/"), "redirects to"),
        (lying_peer.fixed("500 Internal Server Error", body=b"<html>" * 1000), "answered 500"),
        (lying_peer.fixed("404 Not Found", body=b"[" * 100_000), "answered 404"),
        (lying_peer.fixed("404 Not Found", body=b'{"message": 7, "error_code": null}'), "404"),
        (lying_peer.fixed("204 No Content"), "neither the artifact"),
        (lying_peer.fixed("200 OK", "Content-Encoding: gzip", body=b"x"), "gzip"),
        (lying_peer.fixed("200 OK", "Content-Encoding: zstd", body=b"x"), "zstd"),
        (
            lying_peer.fixed("200 OK", "Content-Encoding: identity", "Content-Encoding: zstd"),
            "zstd",
        ),
        (lying_peer.fixed("206 Partial Content", "Content-Range: bytes 5-9/10", body=b"x"), "5-9"),
        (lying_peer.fixed("206 Partial Content", body=b"x"), "bytes from 0"),
        (lying_peer.fixed("416 Range Not Satisfiable"), "answered 416"),
    ],
)
async def test_an_answer_that_is_no_artifact_is_a_refusal_at_once(
    answer: lying_peer.Answer, said: str, target: Path
) -> None:
    async with LyingPeer([answer]) as peer, client(peer) as depot:
        with pytest.raises(Refused, match=said):
            await depot.fetch(ARTIFACT, target)
        assert len(peer.requests) == 1
    assert await names_in(target) == []


async def test_an_answer_that_is_encoded_unasked_costs_nothing_of_what_was_kept(
    target: Path,
) -> None:
    encoded = lying_peer.fixed("200 OK", "Content-Encoding: zstd", body=zstandard.compress(CONTENT))
    await asyncio.to_thread(part_of(target).write_bytes, CONTENT[:HALF])
    with pytest.raises(Refused, match="zstd"):
        await fetch([encoded], target)
    assert await content_of(part_of(target)) == CONTENT[:HALF]


async def test_the_length_of_an_encoded_answer_is_not_the_size_of_the_artifact() -> None:
    encoded = lying_peer.fixed("200 OK", "Content-Encoding: zstd")
    async with LyingPeer([encoded]) as peer, DepotClient(peer.url) as depot:
        assert (await depot.head(ARTIFACT)).size_bytes is None


async def test_a_cancelled_fetch_keeps_what_arrived(target: Path) -> None:
    stall = lying_peer.announcing(len(CONTENT), CONTENT[:HALF], then_stall=True)
    arrived = asyncio.Event()
    async with LyingPeer([stall]) as peer, DepotClient(peer.url) as depot:

        def report(done_bytes: int, _total_bytes: int | None) -> None:
            if done_bytes == HALF:
                arrived.set()

        async with asyncio.TaskGroup() as tasks:
            fetching = tasks.create_task(depot.fetch(ARTIFACT, target, progress=report))
            await arrived.wait()
            fetching.cancel()
    assert await content_of(part_of(target)) == CONTENT[:HALF]


@pytest.mark.parametrize(
    "url",
    ["", "host:1", "ftp://host", "http://", "http://user@host", "http://host/?a", "http://h:x"],
)
def test_a_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest, match="expected a URL"):
        DepotClient(url)


async def test_a_target_that_cannot_be_written_is_an_error_before_any_request(
    tmp_path: Path,
) -> None:
    async with LyingPeer([lying_peer.honest(CONTENT)]) as peer, client(peer) as depot:
        with pytest.raises(IsADirectoryError):
            await depot.fetch(ARTIFACT, tmp_path)
        with pytest.raises(FileNotFoundError):
            await depot.fetch(ARTIFACT, tmp_path / "nowhere" / "file")
        assert peer.requests == []


# ---- depots that send too much


def too_long_a_rest(total: int) -> lying_peer.Answer:
    """A part that announces a whole of `total` bytes and does not end there."""

    async def answer(request: lying_peer.Request, connection: lying_peer.Connection) -> None:
        if not request.offset:
            await connection.head("200 OK", f"Content-Length: {total}")
            await connection.send(CONTENT[:HALF])
            return
        span = f"Content-Range: bytes {request.offset}-{total - 1}/{total}"
        await connection.head("206 Partial Content", span, "Transfer-Encoding: chunked")
        while True:
            await connection.send(b"%x\r\n%b\r\n" % (1 << 20, bytes(1 << 20)))

    return answer


async def test_a_depot_that_sends_more_than_it_announced_is_cut_off(target: Path) -> None:
    async with LyingPeer([too_long_a_rest(len(CONTENT))]) as peer, client(peer) as depot:
        with pytest.raises(LengthMismatch):
            await depot.fetch(ARTIFACT, target)
    assert await names_in(target) == []


@pytest.mark.parametrize("most_bytes", [len(CONTENT) - 1, 1])
async def test_a_depot_that_announces_nothing_is_cut_off_at_the_bound(
    target: Path, most_bytes: int
) -> None:
    async with LyingPeer([lying_peer.endless()]) as peer:
        depot = DepotClient(peer.url, bounds=Bounds(max_size_bytes=most_bytes))
        async with depot:
            with pytest.raises(TooLarge):
                await depot.fetch(ARTIFACT, target)
    assert await names_in(target) == []


async def test_an_artifact_of_exactly_the_bound_is_taken(target: Path) -> None:
    bounds = Bounds(max_size_bytes=len(CONTENT))
    async with (
        LyingPeer([lying_peer.chunked(CONTENT)]) as peer,
        DepotClient(peer.url, bounds=bounds) as depot,
    ):
        await depot.fetch(ARTIFACT, target)
    assert await content_of(target) == CONTENT
