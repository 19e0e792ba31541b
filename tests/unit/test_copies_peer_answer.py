from __future__ import annotations

import base64

import pytest
from multidict import CIMultiDict

from agent.copies.peer_answer import Asked, PeerAnswer, judge_answer
from depot.artifact import ArtifactHash
from depot.errors import DepotCopy, TooLarge
from depot.writing.arriving import MAX_DEPTH

ARTIFACT = ArtifactHash.of(b"artifact")
OTHER = ArtifactHash.of(b"other")
WHOLE = Asked(ARTIFACT, 0, 1000)
REST = Asked(ARTIFACT, 40, 1000)


def repr_digest(sha256: ArtifactHash) -> str:
    return f"sha-256=:{base64.b64encode(sha256.digest).decode()}:"


def judge(status: int, headers: dict[str, str], asked: Asked = WHOLE) -> PeerAnswer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return judge_answer(status, CIMultiDict(named), asked)


@pytest.mark.parametrize(
    ("headers", "total"),
    [
        ({"Content_Length": "100"}, 100),
        ({"Content_Length": "0"}, 0),
        ({"Content_Length": "1000"}, 1000),
        ({"Content_Length": "100", "Content_Type": "application/octet-stream"}, 100),
        ({"Content_Length": "100", "Content_Type": "text/plain"}, 100),
        ({"Content_Length": "100", "Content_Encoding": "identity"}, 100),
        ({"Content_Length": "100", "ETag": '"5f3-62a"'}, 100),
        ({"Content_Length": "100", "ETag": f'"sha256:{ARTIFACT}"'}, 100),
        ({"Content_Length": "100", "ETag": f'"sha256:{str(ARTIFACT).upper()}"'}, 100),
        ({"Content_Length": "100", "Repr_Digest": repr_digest(ARTIFACT)}, 100),
        ({"Content_Length": "100", "Repr_Digest": "md5=:AAAA:"}, 100),
        ({"Transfer_Encoding": "chunked"}, None),
        ({"Transfer_Encoding": "chunked", "Content_Length": "100"}, None),
        ({}, None),
    ],
)
def test_a_plausible_whole_is_accepted(headers: dict[str, str], total: int | None) -> None:
    assert judge(200, headers) == PeerAnswer(starts_at_bytes=0, total_bytes=total)


@pytest.mark.parametrize("vouching", [{"ETag": f'"sha256:{ARTIFACT}"'},
                                      {"Repr_Digest": repr_digest(ARTIFACT)}])  # fmt: skip
def test_a_page_is_refused_unless_the_peer_vouches_for_it(vouching: dict[str, str]) -> None:
    for content_type in ("text/html", "Text/HTML; charset=utf-8", "application/xhtml+xml"):
        with pytest.raises(DepotCopy, match="a page"):
            judge(200, {"Content_Type": content_type})
        assert judge(200, {"Content_Type": content_type, **vouching}).total_bytes is None


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({"ETag": f'"sha256:{OTHER}"'}, "another artifact"),
        ({"ETag": f'W/"sha256:{OTHER}"'}, "another artifact"),
        ({"ETag": f'"sha256:{ARTIFACT};zstd"'}, "another artifact"),
        ({"Repr_Digest": repr_digest(OTHER)}, "of other bytes"),
        ({"Repr_Digest": f"sha-512=:AA:, {repr_digest(OTHER)}"}, "of other bytes"),
        ({"Content_Encoding": "gzip"}, "gzip"),
        ({"Content_Encoding": "zstd"}, "zstd"),
        (
            {"Content_Encoding": "zstd", "ETag": f'"sha256:{ARTIFACT};zstd"'},
            "encoded as 'zstd' without having been asked",
        ),
        ({"Content_Encoding": "identity, br"}, "br"),
        ({"Content_Length": "-1"}, "no length"),
        ({"Content_Length": "1e3"}, "no length"),
        ({"Content_Length": "9" * 20}, "no length"),
    ],
)
def test_what_cannot_be_the_artifact_is_refused_for_good(headers: dict[str, str], why: str) -> None:
    with pytest.raises(DepotCopy, match=why) as caught:
        judge(200, headers)
    assert not caught.value.transient


def test_more_than_an_artifact_may_have_is_too_large() -> None:
    with pytest.raises(TooLarge, match=r"at most 1000 .* 1001"):
        judge(200, {"Content_Length": "1001"})
    with pytest.raises(TooLarge, match=r"at most 1000 .* 1001"):
        judge(206, {"Content_Range": "bytes 40-1000/1001"}, REST)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_named_and_not_followed(status: int) -> None:
    with pytest.raises(DepotCopy, match=rf"\({status}\) to 'http://other/'") as caught:
        judge(status, {"Location": "http://other/"})
    assert not caught.value.transient


@pytest.mark.parametrize(
    "status", [201, 204, 206, 300, 304, 400, 403, 404, 410, 416, 501, 505, 999]
)
def test_any_other_status_is_final(status: int) -> None:
    with pytest.raises(DepotCopy, match=str(status)) as caught:
        judge(status, {})
    assert not caught.value.transient


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_an_overloaded_peer_may_be_asked_again(status: int) -> None:
    with pytest.raises(DepotCopy, match=str(status)) as caught:
        judge(status, {})
    assert caught.value.transient


@pytest.mark.parametrize(
    "headers", [{}, {"Content_Length": "60"}, {"Transfer_Encoding": "chunked"}]
)
def test_the_rest_is_accepted_when_it_is_exactly_what_was_asked(headers: dict[str, str]) -> None:
    answer = judge(206, {"Content_Range": "bytes 40-99/100", **headers}, REST)
    assert answer == PeerAnswer(starts_at_bytes=40, total_bytes=100)
    assert answer.length_bytes == 60


@pytest.mark.parametrize(
    ("content_range", "length"),
    [
        ("bytes 0-99/100", "100"),
        ("bytes 41-99/100", "59"),
        ("bytes 39-99/100", "61"),
        ("bytes 40-98/100", "59"),
        ("bytes 40-100/100", "61"),
        ("bytes 40-99/*", "60"),
        ("bytes */100", "60"),
        ("bytes 40-99/100", "61"),
        ("bytes 40-99/100", "100"),
        ("bytes 40-39/40", "1"),
        ("bytes 40-99/100, bytes 0-1/100", "60"),
        ("items 40-99/100", "60"),
        ("", "60"),
    ],
)
def test_any_other_part_is_refused(content_range: str, length: str) -> None:
    with pytest.raises(DepotCopy, match="asked for bytes from 40"):
        judge(206, {"Content_Range": content_range, "Content_Length": length}, REST)


def test_the_whole_instead_of_the_rest_starts_at_zero() -> None:
    answer = judge(200, {"Content_Length": "100"}, REST)
    assert answer == PeerAnswer(starts_at_bytes=0, total_bytes=100)
    assert answer.length_bytes == 100


@pytest.mark.parametrize(
    ("headers", "depth"),
    [
        ({}, 0),
        ({"Depot_Arriving_Depth": "3"}, 0),
        ({"Depot_Arriving": "1", "Depot_Arriving_Depth": "1"}, 1),
        ({"Depot_Arriving": "1", "Depot_Arriving_Depth": " 31 "}, 31),
        ({"Depot_Arriving": "1"}, MAX_DEPTH),
        ({"Depot_Arriving": "1", "Depot_Arriving_Depth": "0"}, MAX_DEPTH),
        ({"Depot_Arriving": "1", "Depot_Arriving_Depth": "-1"}, MAX_DEPTH),
        ({"Depot_Arriving": "1", "Depot_Arriving_Depth": "9999"}, MAX_DEPTH),
        ({"Depot_Arriving": "1", "Depot_Arriving_Depth": "9" * 5000}, MAX_DEPTH),
        ({"Depot_Arriving": "1", "Depot_Arriving_Depth": "²"}, MAX_DEPTH),
    ],
)
def test_a_relay_says_how_deep_it_is_or_may_be_anywhere(
    headers: dict[str, str], depth: int
) -> None:
    assert judge(200, headers | {"Content_Length": "100"}).depth == depth
