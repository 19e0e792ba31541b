from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from agent.config.settings import DEFAULT_SOURCES
from agent.copies.networks import AllowedNetworks
from agent.copies.peers import PeerBody, PeerFetcher, PeerLimits
from agent.copies.resolver import SystemLookup
from agent.copies.source_url import SourceUrl
from depot.artifact import ArtifactHash
from depot.errors import BadSource, DepotCopy, TooLarge
from depot.http.body import TAKEOVER_FROM_BYTES
from tests.lying_peer import (
    Answer,
    LyingPeer,
    chunked,
    fixed,
    hanging_up,
    honest,
    no_ranges,
    raw,
    repeating,
    silent,
    until_closed,
)

CONTENT = bytes(range(256)) * 40
ARTIFACT = ArtifactHash.of(CONTENT)
NETWORKS = AllowedNetworks.of(DEFAULT_SOURCES)
PATIENT = PeerLimits(connect_timeout_s=30, idle_timeout_s=30, max_artifact_size_bytes=1 << 24)
IMPATIENT = PeerLimits(connect_timeout_s=0.2, idle_timeout_s=0.2, max_artifact_size_bytes=1 << 24)


@asynccontextmanager
async def peer_and_fetcher(
    *script: Answer, limits: PeerLimits = PATIENT
) -> AsyncIterator[tuple[LyingPeer, PeerFetcher]]:
    async with LyingPeer(script) as peer, PeerFetcher(NETWORKS, limits) as fetcher:
        yield peer, fetcher


async def read_all(body: PeerBody) -> bytes:
    def read() -> bytes:
        content, buffer = bytearray(), memoryview(bytearray(1000))
        while count := body.content.readinto(buffer):
            content += buffer[:count]
        return bytes(content)

    try:
        return await asyncio.to_thread(read)
    finally:
        await body.close()


async def refusal(answer: Answer, *, offset: int = 0, limits: PeerLimits = PATIENT) -> DepotCopy:
    async with peer_and_fetcher(answer, limits=limits) as (peer, fetcher):
        with pytest.raises(DepotCopy) as caught:
            await fetcher.open(SourceUrl.parse(peer.url), ARTIFACT, offset)
    # The HTTP library itself asks once more when a connection ends without an answer.
    assert 1 <= peer.connections <= 2
    return caught.value


async def test_a_large_artifact_is_read_through_the_library_where_no_descriptor_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def dup(_fd: int) -> int:
        raise OSError(errno.EMFILE, "injected")

    monkeypatch.setattr(socket, "dup", dup)
    large = CONTENT * (1 + TAKEOVER_FROM_BYTES // len(CONTENT))
    async with peer_and_fetcher(honest(large)) as (peer, fetcher):
        body = await fetcher.open(SourceUrl.parse(peer.url), ArtifactHash.of(large))
        assert await read_all(body) == large


@pytest.mark.parametrize("make", [honest, no_ranges, chunked, until_closed])
async def test_an_artifact_is_read_from_any_depot(make: Callable[[bytes], Answer]) -> None:
    async with peer_and_fetcher(make(CONTENT)) as (peer, fetcher):
        body = await fetcher.open(SourceUrl.parse(peer.url), ARTIFACT)
        assert await read_all(body) == CONTENT
    assert peer.requests[0].path == f"/artifact/sha256/{ARTIFACT}"
    assert peer.requests[0].headers["accept-encoding"] == "identity"
    assert "range" not in peer.requests[0].headers


async def test_a_large_artifact_is_read_whole() -> None:
    content = CONTENT * (2 * TAKEOVER_FROM_BYTES // len(CONTENT))
    sha256 = ArtifactHash.of(content)
    async with peer_and_fetcher(honest(content)) as (peer, fetcher):
        body = await fetcher.open(SourceUrl.parse(peer.url), sha256)
        assert await read_all(body) == content


async def test_the_rest_is_asked_for_under_the_condition_that_it_is_the_same_artifact() -> None:
    async with peer_and_fetcher(honest(CONTENT)) as (peer, fetcher):
        body = await fetcher.open(SourceUrl.parse(peer.url), ARTIFACT, 1000)
        assert body.answer.starts_at_bytes == 1000
        assert body.answer.total_bytes == len(CONTENT)
        assert await read_all(body) == CONTENT[1000:]
    assert peer.requests[0].headers["range"] == "bytes=1000-"
    assert peer.requests[0].headers["if-range"] == f'"sha256:{ARTIFACT}"'


async def test_the_path_prefix_of_a_source_is_kept() -> None:
    async with peer_and_fetcher(honest(CONTENT)) as (peer, fetcher):
        body = await fetcher.open(SourceUrl.parse(f"{peer.url}/depots/a/"), ARTIFACT)
        await body.close()
    assert peer.requests[0].path == f"/depots/a/artifact/sha256/{ARTIFACT}"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (fixed("404 Not Found"), "404 Not Found"),
        (fixed("200 OK", "Content-Type: text/html", body=b"<h1>Log in</h1>"), "a page"),
        (fixed("200 OK", "Content-Encoding: gzip", body=gzip.compress(CONTENT)), "gzip"),
        (fixed("200 OK", f'ETag: "sha256:{ArtifactHash.of(b"")}"'), "another artifact"),
        (
            fixed("200 OK", f"Repr-Digest: sha-256=:{base64.b64encode(bytes(32)).decode()}:"),
            "of other bytes",
        ),
        (raw(b"SSH-2.0-OpenSSH_9.6\r\n"), "not HTTP"),
        (raw(bytes(range(256)) * 40), "not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"), "not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n"), "not HTTP"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n"), "not HTTP"),
    ],
)
async def test_what_is_no_artifact_is_refused_for_good(answer: Answer, why: str) -> None:
    error = await refusal(answer)
    assert why in str(error)
    assert not error.transient


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (fixed("500 Internal Server Error"), "500"),
        (fixed("503 Service Unavailable", "Retry-After: 5"), "503"),
        (hanging_up, ""),
        (silent, "no answer within 0.4 s"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-"), ""),
    ],
)
async def test_a_peer_in_trouble_may_be_asked_again(answer: Answer, why: str) -> None:
    error = await refusal(answer, limits=IMPATIENT if answer is silent else PATIENT)
    assert why in str(error)
    assert error.transient


@pytest.mark.parametrize(
    "answer",
    [
        repeating(b"HTTP/1.1 200 OK\r\nX-Slow: ", b"z"),
        repeating(b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    ],
)
async def test_a_head_that_never_ends_is_given_up(answer: Answer) -> None:
    error = await refusal(answer, limits=IMPATIENT)
    assert "no answer within 0.4 s" in str(error)
    assert error.transient


async def test_a_closed_port_is_unreachable() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = SourceUrl.parse(f"http://127.0.0.1:{unused.getsockname()[1]}")
        async with PeerFetcher(NETWORKS, PATIENT) as fetcher:
            with pytest.raises(DepotCopy, match="Connection refused") as caught:
                await fetcher.open(url, ARTIFACT)
    assert caught.value.transient


async def test_a_redirect_is_not_followed() -> None:
    async with LyingPeer([honest(CONTENT)]) as target:
        location = f"Location: {target.url}/artifact/sha256/{ARTIFACT}"
        error = await refusal(fixed("302 Found", location))
        assert target.url in str(error)
        assert target.connections == 0


async def test_an_announcement_beyond_the_largest_artifact_is_too_large() -> None:
    answer = raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n")
    async with peer_and_fetcher(answer) as (peer, fetcher):
        with pytest.raises(TooLarge, match="99999999999"):
            await fetcher.open(SourceUrl.parse(peer.url), ARTIFACT)


@pytest.mark.parametrize(
    "span", ["bytes 0-10239/10240", "bytes 999-10239/10240", "bytes 1000-10238/10240", "bytes */5"]
)
async def test_another_part_than_the_one_asked_for_is_refused(span: str) -> None:
    answer = fixed("206 Partial Content", f"Content-Range: {span}", body=CONTENT[1000:])
    assert "Content-Range" in str(await refusal(answer, offset=1000))


# ---- addresses


async def open_by(host: str, peer: LyingPeer, addresses: Sequence[str]) -> bytes:
    """What `host`, which resolves to `addresses`, gives."""

    async def lookup(name: str, _port: int) -> Sequence[str]:
        assert name == host
        return addresses

    async with PeerFetcher(NETWORKS, PATIENT, lookup=lookup) as fetcher:
        return await read_all(
            await fetcher.open(SourceUrl.parse(f"http://{host}:{peer.port}"), ARTIFACT)
        )


@pytest.mark.parametrize(
    "host",
    ["10.0.0.1", "169.254.169.254", "0.0.0.0", "255.255.255.255", "[::]", "[2001:db8::1]",
     "[::ffff:10.0.0.1]", "[::ffff:0.0.0.0]", "[ff02::1%25lo]"],
)  # fmt: skip
async def test_an_address_outside_the_networks_is_refused_without_a_connection(host: str) -> None:
    async with LyingPeer([honest(CONTENT)]) as peer, PeerFetcher(NETWORKS, PATIENT) as fetcher:
        url = SourceUrl.parse(f"http://{host}:{peer.port}")
        with pytest.raises(BadSource, match="outside the allowed networks"):
            fetcher.check(url)
        with pytest.raises(BadSource, match="outside the allowed networks"):
            await fetcher.open(url, ARTIFACT)
        assert peer.connections == 0


@pytest.mark.parametrize(
    "addresses",
    [["10.0.0.1"], ["0.0.0.0"], ["::ffff:10.0.0.1"], ["::"], ["2001:db8::1", "192.0.2.1"]],
)
async def test_a_name_that_leads_outside_the_networks_is_refused(addresses: list[str]) -> None:
    async with LyingPeer([honest(CONTENT)]) as peer:
        with pytest.raises(BadSource, match="node-7 is at") as caught:
            await open_by("node-7", peer, addresses)
        assert addresses[0] in str(caught.value)
        assert peer.connections == 0


async def test_of_a_names_addresses_only_the_allowed_ones_are_used() -> None:
    async with LyingPeer([honest(CONTENT)]) as peer:
        assert await open_by("node-7", peer, ["192.0.2.1", "::", "127.0.0.1"]) == CONTENT
        assert peer.requests[0].headers["host"] == f"node-7:{peer.port}"


async def test_a_name_is_resolved_anew_for_each_connection() -> None:
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])

    async def lookup(_host: str, _port: int) -> Sequence[str]:
        return next(answers)

    async with (
        LyingPeer([honest(CONTENT)]) as peer,
        PeerFetcher(NETWORKS, PATIENT, lookup=lookup) as fetcher,
    ):
        url = SourceUrl.parse(f"http://node-7:{peer.port}")
        assert await read_all(await fetcher.open(url, ARTIFACT)) == CONTENT
        with pytest.raises(BadSource):
            await fetcher.open(url, ARTIFACT)
        assert peer.connections == 1


async def test_a_name_that_has_no_address_is_unreachable() -> None:
    async def lookup(_host: str, _port: int) -> Sequence[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with PeerFetcher(NETWORKS, PATIENT, lookup=lookup) as fetcher:
        with pytest.raises(DepotCopy, match="does not resolve: Name or service not known"):
            await fetcher.open(SourceUrl.parse("http://node-7"), ARTIFACT)


async def test_a_resolver_that_never_answers_is_given_up() -> None:
    async def lookup(_host: str, _port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        raise AssertionError

    async with PeerFetcher(NETWORKS, IMPATIENT, lookup=lookup) as fetcher:
        with pytest.raises(DepotCopy, match="no answer within"):
            await fetcher.open(SourceUrl.parse("http://node-7"), ARTIFACT)


async def test_a_mapped_loopback_address_is_reached_as_what_it_is() -> None:
    async with peer_and_fetcher(honest(CONTENT)) as (peer, fetcher):
        url = SourceUrl.parse(f"http://[::ffff:127.0.0.1]:{peer.port}")
        assert await read_all(await fetcher.open(url, ARTIFACT)) == CONTENT


async def test_the_systems_resolver_gives_loopback_for_localhost() -> None:
    lookup = SystemLookup(30)
    assert set(await lookup("localhost", 80)) <= {"127.0.0.1", "::1"}
    lookup.close()


async def test_a_proxy_in_the_environment_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    async with LyingPeer([honest(b"proxied")]) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        async with peer_and_fetcher(honest(CONTENT)) as (peer, fetcher):
            body = await fetcher.open(SourceUrl.parse(peer.url), ARTIFACT)
            assert await read_all(body) == CONTENT
        assert proxy.connections == 0
