"""Releases that are fetched from a server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.copies.networks import AllowedNetworks
from coordinator.errors import BadRelease, TargetMismatch
from coordinator.releases.http_repository import HttpRepository, Patience
from depot.errors import BadSource, Refused, Unreachable
from depot.streams.sources import Pace
from tests.coordinator.releases.builder import ReleaseBuilder, small_release
from tests.coordinator.releases.file_server import (
    FileServer,
    breaking_off,
    falling_silent,
    serving,
    status,
)
from tests.coordinator.releases.opening import contents_of, facts_of

LOOPBACK = AllowedNetworks.of(["127.0.0.0/8"])
BRIEF = Patience(connect_timeout_s=5.0, pace=Pace(idle_timeout_s=0.2))


@pytest.fixture
def release() -> ReleaseBuilder:
    return small_release()


@pytest.fixture
def server(release: ReleaseBuilder) -> Iterator[FileServer]:
    with serving(release.publish(), prefix="/some/repo/") as running:
        yield running


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "spool"
    path.mkdir()
    yield path
    assert not list(path.iterdir())


def repository(url: str, spool: Path, **options: Any) -> HttpRepository:
    return HttpRepository(url, LOOPBACK, spool, **options)


def test_a_release_is_fetched_and_recorded_under_its_url(
    release: ReleaseBuilder, server: FileServer, spool: Path
) -> None:
    facts = facts_of(repository(server.url, spool), release.trusted)
    assert facts.version == "1.0.0"
    assert facts.file_name == server.url.rstrip("/")
    assert [artifact.name for artifact in facts.artifacts] == ["one", "two"]


def test_each_file_is_fetched_once_and_the_same_bytes_are_read_afterwards(
    release: ReleaseBuilder, server: FileServer, spool: Path
) -> None:
    other = small_release(keys={"timestamp": ["stranger"]})
    contents = contents_of(repository(server.url, spool), other.trusted, release.trusted)
    assert contents == {"one": b"one of them\n", "two": b"and the other\n" * 100}
    assert len(server.asked) == len(set(server.asked))


def test_names_are_written_into_the_url_so_that_the_server_reads_them_again(spool: Path) -> None:
    release = ReleaseBuilder()
    release.add("a b/ü?#%41.bin", b"oddly named")
    with serving(release.publish()) as server:
        found = contents_of(repository(server.url, spool), release.trusted, version="1")
    assert found == {"a b/ü?#%41.bin": b"oddly named"}


def test_a_host_outside_the_allowed_networks_is_not_connected_to(
    release: ReleaseBuilder, server: FileServer, spool: Path
) -> None:
    with pytest.raises(BadSource, match=r"127\.0\.0\.1.* is outside the allowed networks: none"):
        HttpRepository(server.url, AllowedNetworks(()), spool)

    async def lookup(_host: str, _port: int) -> Sequence[str]:
        return ["127.0.0.1"]

    named = f"http://localhost:{server.port}/some/repo"
    networks = AllowedNetworks.of(["10.0.0.0/8"])
    with pytest.raises(BadSource, match=r"localhost is at 127\.0\.0\.1, which is outside"):
        facts_of(HttpRepository(named, networks, spool, lookup=lookup), release.trusted)
    assert server.asked == []


@pytest.mark.parametrize(
    "url", ["ftp://127.0.0.1", "http://user:secret@127.0.0.1/", "http://127.1/", "release.zip"]
)
def test_only_plain_urls_are_taken(url: str, spool: Path) -> None:
    with pytest.raises(BadSource) as caught:
        repository(url, spool)
    assert "secret" not in str(caught.value)


def test_no_redirect_is_followed(release: ReleaseBuilder, server: FileServer, spool: Path) -> None:
    server.answers["metadata/timestamp.json"] = status(302, Location="http://10.0.0.1/")
    with pytest.raises(Refused, match=r"timestamp\.json answered 302 redirects to http://10"):
        facts_of(repository(server.url, spool), release.trusted)


@pytest.mark.parametrize("number", [403, 404, 410])
def test_a_file_that_is_not_there_is_missing_however_the_server_says_so(
    release: ReleaseBuilder, server: FileServer, spool: Path, number: int
) -> None:
    server.answers["metadata/2.root.json"] = status(number)
    server.answers["metadata/1.snapshot.json"] = status(number)
    with pytest.raises(BadRelease, match=r"metadata/1\.snapshot\.json is missing"):
        facts_of(repository(server.url, spool), release.trusted)


def test_a_server_that_fails_where_there_may_be_a_newer_root_is_not_taken_to_have_none(
    release: ReleaseBuilder, server: FileServer, spool: Path
) -> None:
    server.answers["metadata/2.root.json"] = status(500)
    with pytest.raises(Refused, match=r"2\.root\.json answered 500"):
        facts_of(repository(server.url, spool), release.trusted)


def test_an_encoded_body_is_refused(
    release: ReleaseBuilder, server: FileServer, spool: Path
) -> None:
    server.answers["metadata/timestamp.json"] = status(200, Content_Encoding="gzip")
    with pytest.raises(Refused, match="a body encoded as 'gzip'"):
        facts_of(repository(server.url, spool), release.trusted)


def test_a_body_that_ends_early_is_a_broken_connection(
    release: ReleaseBuilder, server: FileServer, spool: Path
) -> None:
    server.answers["metadata/timestamp.json"] = breaking_off(b"{")
    with pytest.raises(Unreachable, match="the connection was broken off"):
        facts_of(repository(server.url, spool), release.trusted)


def test_a_body_that_falls_silent_is_given_up(
    release: ReleaseBuilder, server: FileServer, spool: Path
) -> None:
    over = threading.Event()
    server.answers["metadata/timestamp.json"] = falling_silent(over)
    try:
        with pytest.raises(Unreachable, match="no answer in time"):
            facts_of(repository(server.url, spool, patience=BRIEF), release.trusted)
    finally:
        over.set()


def test_a_server_that_is_not_there_is_named(release: ReleaseBuilder, spool: Path) -> None:
    with serving({}) as gone:
        pass
    with pytest.raises(Unreachable, match=rf"127\.0\.0\.1:{gone.port}: cannot connect"):
        facts_of(repository(gone.url, spool), release.trusted)


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"one of thEm\n", "expected the sha256 "),
        (b"one of them", "expected 12 bytes, found 11"),
        (b"one of them\n" * 100, "expected 12 bytes, found 13"),
    ],
)
def test_a_target_of_other_bytes_is_refused_and_no_more_of_it_taken_than_shows_that(
    release: ReleaseBuilder, spool: Path, sent: bytes, reason: str
) -> None:
    files = release.publish()
    (name,) = (path for path in files if path.endswith("one.tar.gz"))
    with (
        serving({**files, name: sent}) as server,
        pytest.raises(TargetMismatch, match=f"target 'one.tar.gz': {reason}"),
    ):
        facts_of(repository(server.url, spool), release.trusted)


def test_a_download_that_nobody_waits_for_any_more_ends_soon(
    release: ReleaseBuilder, server: FileServer, spool: Path
) -> None:
    over, stop = threading.Event(), threading.Event()

    def silent(handler: Any) -> None:
        stop.set()
        falling_silent(over)(handler)

    server.answers["metadata/timestamp.json"] = silent
    try:
        with pytest.raises(ConnectionAbortedError, match="the download was given up"):
            facts_of(repository(server.url, spool, stop=stop), release.trusted)
    finally:
        over.set()
