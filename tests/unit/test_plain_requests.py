"""Which requests are plain: what nothing but the path decides about."""

from __future__ import annotations

import sys

import pytest

from depot.http.browsers import OwnNames
from depot.http.depot_api import DEPOT_API
from depot.http.plain_requests import NOT_PLAIN, REMEMBERED, PlainRequests

HOST = "Host: 127.0.0.1:12348"
ENCODED_FROM_BYTES = 1000
ANY_NAME = OwnNames.of(None)


def most_bytes(*headers: str, version: str = "HTTP/1.1", encodes: bool = True) -> int:
    plain = PlainRequests(DEPOT_API.check, ENCODED_FROM_BYTES if encodes else None, ANY_NAME)
    rest = "\r\n".join([f" {version}", *headers, "", ""]).encode("latin-1")
    judged = plain.most_bytes(rest)
    assert plain.most_bytes(rest) == judged, "what is remembered is another judgement"
    return judged


@pytest.mark.parametrize(
    "headers",
    [
        [HOST],
        ["host: sled-7"],
        ["Host: [fe80::1]:12348"],
        [HOST, "User-Agent: curl/8.5.0 (x; y)", "Accept: */*"],
        [HOST, "Accept-Encoding: identity", "User-Agent: sled-agent"],
        [HOST, "Accept-Encoding: gzip, deflate, br", "Connection: keep-alive"],
        [HOST, "Connection: Keep-Alive", "Accept-Language: en"],
        [HOST, "api-version: 1.0.0"],
    ],
)
def test_what_clients_send_to_fetch_an_artifact_is_plain(headers: list[str]) -> None:
    assert most_bytes(*headers) == sys.maxsize


@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Accept: */*"],
        [HOST, HOST],
        [HOST, "host: other"],
        ["Host:"],
        ["Host: "],
        ["Host: a b"],
        ["Host: a/b"],
        ["Host: user@a"],
        [HOST, "Accept: a", "accept: b"],
        [HOST, "Range: bytes=0-1"],
        [HOST, "If-None-Match: *"],
        [HOST, "If-Match: *"],
        [HOST, 'If-Range: "x"'],
        [HOST, "Connection: close"],
        [HOST, "Connection: keep-alive, upgrade"],
        [HOST, "Upgrade: h2c"],
        [HOST, "Authorization: Basic eA=="],
        [HOST, "Expect: 100-continue"],
        [HOST, "Content-Length: 0"],
        [HOST, "Transfer-Encoding: chunked"],
        [HOST, "X-Whatever: 1"],
        [HOST, "api-version: 2.0.0"],
        [HOST, "api-version: new"],
        [HOST, "Accept : a"],
        [HOST, " Accept: a"],
        [HOST, "Accept:a"],
        [HOST, "Accept:  a"],
        [HOST, "Accept: a "],
        [HOST, "Accept: a\tb"],
        [HOST, "Accept: a\x00b"],
        [HOST, "Accept: a\nb"],
        [HOST, "Accept: a\rb"],
        [HOST, "Accept: \xe9"],
        [HOST, "Accept: a", " folded"],
        [HOST, "", "GET / HTTP/1.1", HOST],
    ],
)
def test_whatever_else_a_head_says_makes_it_another(headers: list[str]) -> None:
    assert most_bytes(*headers) == NOT_PLAIN


@pytest.mark.parametrize("version", ["HTTP/1.0", "HTTP/1.2", "http/1.1", "HTTP/1.1 ", "x HTTP/1.1"])
def test_only_requests_of_http_1_1_for_the_path_alone_are_plain(version: str) -> None:
    assert most_bytes(HOST, version=version) == NOT_PLAIN


@pytest.mark.parametrize("rest", [b"", b" HTTP/1.1\r\n", b" HTTP/1.1\r\nHost: a\r\n", b"\r\n\r\n"])
def test_a_part_of_a_head_is_not_plain(rest: bytes) -> None:
    assert PlainRequests(DEPOT_API.check, None, ANY_NAME).most_bytes(rest) == NOT_PLAIN


def test_bytes_behind_the_head_make_it_another() -> None:
    plain = PlainRequests(DEPOT_API.check, None, ANY_NAME)
    rest = f" HTTP/1.1\r\n{HOST}\r\n\r\n".encode()
    assert plain.most_bytes(rest) == sys.maxsize
    assert plain.most_bytes(rest + b"x") == NOT_PLAIN
    assert plain.most_bytes(rest + b"\r\n\r\n") == NOT_PLAIN


@pytest.mark.parametrize(
    ("accept_encoding", "judged"),
    [
        ("zstd", ENCODED_FROM_BYTES - 1),
        ("gzip, deflate, br, zstd", ENCODED_FROM_BYTES - 1),
        ("zstd, identity;q=0", NOT_PLAIN),
        ("zstd;q=0", sys.maxsize),
    ],
)
def test_who_may_get_zstd_is_plain_only_for_what_is_too_small_for_it(
    accept_encoding: str, judged: int
) -> None:
    line = f"Accept-Encoding: {accept_encoding}"
    assert most_bytes(HOST, line) == judged
    assert most_bytes(HOST, line, encodes=False) == sys.maxsize


def test_s1_so_many_heads_are_remembered_and_no_more() -> None:
    plain = PlainRequests(DEPOT_API.check, None, ANY_NAME)
    for number in range(1000):
        plain.most_bytes(f" HTTP/1.1\r\nHost: sled-{number}\r\n\r\n".encode())
        assert 0 < len(plain) <= REMEMBERED


def test_a_host_that_is_not_ours_is_plain_only_where_nothing_is_said_of_names() -> None:
    named = PlainRequests(DEPOT_API.check, None, OwnNames.of(("sled-7.example",)))
    unnamed = PlainRequests(DEPOT_API.check, None, ANY_NAME)
    hosts = {"10.0.0.7": True, "[fd00::7]:1": True, "Sled-7.example:1": True, "evil": False}
    for host, ours in hosts.items():
        rest = f" HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        assert named.most_bytes(rest) == (sys.maxsize if ours else NOT_PLAIN)
        assert unnamed.most_bytes(rest) == sys.maxsize


@pytest.mark.parametrize(
    "said", ["Origin: http://127.0.0.1:12348", "Origin: null", "Sec-Fetch-Site: same-origin"]
)
def test_what_a_browser_says_of_a_page_is_never_plain(said: str) -> None:
    assert most_bytes(HOST, said) == NOT_PLAIN
