"""Small artifacts that are kept in memory: the right bytes, and not too many."""

from __future__ import annotations

import pytest

from depot.artifact import ArtifactHash
from depot.http.hot_artifacts import SMALL_BYTES, HotArtifact, HotArtifacts, head_of

HEAD = b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2\r\n"


def name(content: bytes) -> bytes:
    return str(ArtifactHash.of(content)).encode()


def keep(hot: HotArtifacts, *contents: bytes) -> None:
    for content in contents:
        hot.keep(ArtifactHash.of(content), HEAD, content)


def kept(hot: HotArtifacts, *contents: bytes) -> list[bytes]:
    return [content for content in contents if hot.find(name(content)) is not None]


@pytest.mark.parametrize("content", [b"", b"a", bytes(SMALL_BYTES)])
def test_a_small_artifact_is_found_by_its_name_with_the_head_of_its_answer(content: bytes) -> None:
    hot = HotArtifacts()
    keep(hot, content)
    artifact = ArtifactHash.of(content)
    assert hot.find(name(content)) == HotArtifact(artifact, HEAD, content)


def test_b2_bytes_that_do_not_hash_to_the_name_are_never_kept() -> None:
    hot = HotArtifacts()
    hot.keep(ArtifactHash.of(b"right"), HEAD, b"wrong")
    assert hot.find(name(b"right")) is None
    assert hot.used_bytes == 0


def test_what_is_not_small_is_not_kept() -> None:
    hot = HotArtifacts()
    keep(hot, bytes(SMALL_BYTES + 1))
    assert hot.used_bytes == 0


def test_s1_what_is_kept_stays_within_the_budget_and_the_last_ones_asked_for_stay() -> None:
    first, second, third = (bytes([number]) * 3000 for number in range(3))
    hot = HotArtifacts(10_000)
    keep(hot, first, second)
    assert kept(hot, second, first) == [second, first]
    keep(hot, third)
    assert hot.used_bytes <= 10_000
    assert kept(hot, first, second, third) == [first, third]


@pytest.mark.parametrize("budget_bytes", [0, 3000])
def test_s1_without_room_for_it_an_artifact_is_not_kept(budget_bytes: int) -> None:
    hot = HotArtifacts(budget_bytes)
    keep(hot, bytes(3000))
    assert hot.used_bytes == 0


def test_s1_what_is_kept_twice_or_dropped_is_counted_right() -> None:
    hot = HotArtifacts()
    keep(hot, b"one")
    once_bytes = hot.used_bytes
    keep(hot, b"one")
    assert hot.used_bytes == once_bytes
    for _ in range(2):
        hot.drop(ArtifactHash.of(b"one"))
        assert hot.used_bytes == 0
    assert hot.find(name(b"one")) is None


def test_a_head_has_every_header_on_a_line_and_does_not_end() -> None:
    assert head_of({"A": "1", "B": "2"}) == HEAD
