from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

from agent.copies.source_url import SourceUrl
from depot.artifact import ArtifactHash
from depot.errors import BadSource

ARTIFACT = ArtifactHash.of(b"artifact")


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("http://127.0.0.1:12348", "http://127.0.0.1:12348"),
        ("http://127.0.0.1:12348/", "http://127.0.0.1:12348"),
        ("http://127.0.0.1:12348///", "http://127.0.0.1:12348"),
        ("HTTP://Node-7.Example:80", "http://node-7.example"),
        ("https://node_7.example:443/", "https://node_7.example"),
        ("https://node", "https://node"),
        ("http://node:443", "http://node:443"),
        ("http://localhost.", "http://localhost."),
        ("http://[::1]:12348", "http://[::1]:12348"),
        ("http://[FD00:0:0::1]/", "http://[fd00::1]"),
        ("http://[::ffff:127.0.0.1]:1", "http://[::ffff:7f00:1]:1"),
        ("http://[fe80::1%25Eth0]:1", "http://[fe80::1%Eth0]:1"),
        ("http://[fe80::1%eth0]:1", "http://[fe80::1%eth0]:1"),
        ("http://node/depots/a/", "http://node/depots/a"),
        ("http://node/a%20b", "http://node/a%20b"),
        ("http://node:65535", "http://node:65535"),
        ("http://node:00080", "http://node"),
        ("http://1.2.3.4.example", "http://1.2.3.4.example"),
        ("http://0x7f.example", "http://0x7f.example"),
    ],
)
def test_a_base_url_is_normalised(text: str, normal: str) -> None:
    url = SourceUrl.parse(text)
    assert str(url) == normal
    assert SourceUrl.parse(normal) == url


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected http"),
        ("node:12348", "expected http"),
        ("//node", "expected http"),
        ("http:node", "expected http"),
        ("ftp://node", "expected http"),
        ("file:///etc/passwd", "expected http"),
        ("unix:///run/socket", "expected http"),
        ("javascript://node", "expected http"),
        ("http://", "expected a host"),
        ("http:///artifact", "expected a host"),
        ("http://:80", "expected a host"),
        ("http://node:", "expected a host"),
        ("http://node:http", "expected a host"),
        ("http://node:123456", "expected a host"),
        ("http://node:0", "a port is"),
        ("http://node:65536", "a port is"),
        ("http://user@node", "credentials"),
        ("http://user:secret@node", "credentials"),
        ("http://@node", "credentials"),
        ("http://node?", "query"),
        ("http://node/?a=b", "query"),
        ("http://node#", "fragment"),
        ("http://node/#top", "fragment"),
        ("http://node /", "a space"),
        ("http://node\t", "a space"),
        ("http://node/\r\nX-Header: 1", "a space"),
        ("http://node\x00", "a space"),
        ("http://b\u00fccher", "outside ASCII"),
        ("http://\uff11\uff12\uff17.0.0.1", "outside ASCII"),
        ("http://127\u30020\u30020\u30021", "outside ASCII"),
        ("http://node\\@other", "backslash"),
        ("http://%31%32%37.0.0.1", "expected a host"),
        ("http://node%00", "expected a host"),
        ("http://[::1", "expected a host"),
        ("http://::1", "expected a host"),
        ("http://[v1.x]", "expected a host"),
        ("http://[]", "expected a host"),
        ("http://[::g]", "expected a host"),
        ("http://[:::]", "not an IPv6 address"),
        ("http://[1.2.3.4]", "not an IPv6 address"),
        ("http://[fe80::1%]", "expected a host"),
        ("http://127.1", "not an IPv4 address"),
        ("http://127.0.1", "not an IPv4 address"),
        ("http://2130706433", "not an IPv4 address"),
        ("http://0x7f000001", "not an IPv4 address"),
        ("http://0x7f.0.0.1", "not an IPv4 address"),
        ("http://0X7F.1", "not an IPv4 address"),
        ("http://127.0.0.0x1", "not an IPv4 address"),
        ("http://0177.0.0.1", "not an IPv4 address"),
        ("http://017700000001", "not an IPv4 address"),
        ("http://127.0.0.1.", "not an IPv4 address"),
        ("http://127.0.0.256", "not an IPv4 address"),
        ("http://node.0x", "not an IPv4 address"),
        ("http://-node", "not a host name"),
        ("http://node..example", "not a host name"),
        ("http://.", "not a host name"),
        (f"http://{'a' * 64}.example", "not a host name"),
        (f"http://{'a.' * 127}", "not a host name"),
        ("http://node/../admin", "dot segment"),
        ("http://node/a/..", "dot segment"),
        ("http://node/./a", "dot segment"),
        ("http://node/%2e%2E/admin", "dot segment"),
        ("http://node/.%2e", "dot segment"),
        ("http://node/a%2", "must be escaped"),
        ("http://node/a<b", "must be escaped"),
        ("http://node/" + "a" * 2048, "at most 2048"),
    ],
)
def test_anything_else_is_refused_with_its_reason(text: str, why: str) -> None:
    with pytest.raises(BadSource, match=why):
        SourceUrl.parse(text)


def test_the_refusal_names_the_url() -> None:
    with pytest.raises(BadSource, match="ftp://node-7"):
        SourceUrl.parse("ftp://node-7")


def test_the_refusal_does_not_repeat_credentials() -> None:
    with pytest.raises(BadSource) as caught:
        SourceUrl.parse("http://user:hunter2@node-7")
    assert "hunter2" not in str(caught.value)
    assert "node-7" in str(caught.value)


def test_dots_inside_a_path_segment_are_no_dot_segments() -> None:
    assert SourceUrl.parse("http://node/...a/v1..2").prefix == "/...a/v1..2"


@pytest.mark.parametrize(
    ("text", "literal"),
    [
        ("http://127.0.0.1", True),
        ("http://[::1]", True),
        ("http://[fe80::1%eth0]", True),
        ("http://localhost", False),
        ("http://1.2.3.4.example", False),
        ("http://7node", False),
    ],
)
def test_an_address_is_told_from_a_name(text: str, literal: bool) -> None:
    assert SourceUrl.parse(text).is_literal is literal


@pytest.mark.parametrize(
    ("text", "header"),
    [
        ("http://node", "node"),
        ("http://node:81", "node:81"),
        ("https://node:443", "node"),
        ("http://[::1]:81", "[::1]:81"),
        ("http://[fe80::1%25eth0]:81", "[fe80::1]:81"),
        ("http://[fe80::1%25eth0]", "[fe80::1]"),
    ],
)
def test_the_host_header_has_no_scope(text: str, header: str) -> None:
    assert SourceUrl.parse(text).host_header == header


@pytest.mark.parametrize(
    "base", ["http://node:81", "http://node/depots/a%20b", "http://[fe80::1%eth0]:81"]
)
def test_the_artifact_is_below_the_prefix(base: str) -> None:
    url = SourceUrl.parse(base + "/").artifact_url(ARTIFACT)
    assert str(url) == f"{base}/artifact/sha256/{ARTIFACT}"


@given(st.text(alphabet="htps:/.@?#[]%\\0x17af-_ \t\u3002", max_size=30))
def test_what_is_accepted_means_the_same_host_to_the_http_library(tail: str) -> None:
    try:
        parsed = SourceUrl.parse(f"http://{tail}")
    except BadSource:
        return
    seen: URL = parsed.artifact_url(ARTIFACT)
    assert (seen.scheme, seen.raw_host, seen.port) == (parsed.scheme, parsed.host, parsed.port)
    assert seen.raw_path == f"{parsed.prefix}/artifact/sha256/{ARTIFACT}"
    assert seen.user is None
    assert not seen.query_string
