"""Where one request ends: only what is certain lets the next one be looked at before the parser."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from aiohttp import EMPTY_PAYLOAD
from aiohttp.base_protocol import BaseProtocol
from aiohttp.streams import StreamReader

from depot.http.boundary import Boundary

HEAD = b"PUT /x HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\n"
CHUNKED = b"PUT /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
WITHOUT = b"GET /x HTTP/1.1\r\nHost: test\r\n\r\n"


@pytest.fixture
async def body() -> StreamReader:
    return StreamReader(BaseProtocol(asyncio.get_running_loop()), 1 << 16)


def found(body: StreamReader, length: int | None = 3) -> list[tuple[object, StreamReader]]:
    headers = {} if length is None else {"Content-Length": str(length)}
    return [(SimpleNamespace(headers=headers), body)]


def is_clean(boundary: Boundary) -> bool:
    return boundary.is_clean


def test_nothing_was_sent_or_a_part_of_a_head() -> None:
    boundary = Boundary()
    assert is_clean(boundary)
    boundary.parsed(b"PUT", [], new=True)
    assert not is_clean(boundary)


def test_a_request_without_a_body_ends_with_its_head() -> None:
    boundary = Boundary()
    boundary.parsed(WITHOUT, found(EMPTY_PAYLOAD, None), new=True)
    assert is_clean(boundary)
    boundary.parsed(b"G", [], new=True)
    assert not is_clean(boundary)
    assert boundary.next_has_begun


async def test_a_body_that_came_whole_is_the_end_of_its_request(body: StreamReader) -> None:
    boundary = Boundary()
    boundary.parsed(HEAD + b"abc", found(body), new=True)
    assert is_clean(boundary)
    assert boundary.content is body
    assert boundary.length_bytes == 3


async def test_a_body_that_comes_in_parts_ends_with_its_last(body: StreamReader) -> None:
    boundary = Boundary()
    boundary.parsed(HEAD, found(body), new=True)
    assert not is_clean(boundary)
    boundary.parsed(b"", found(body), new=False)
    boundary.parsed(b"ab", found(body), new=False)
    assert not is_clean(boundary)
    boundary.parsed(b"c", [], new=False)
    assert is_clean(boundary)
    boundary.parsed(b"", [], new=True)
    assert is_clean(boundary)


@pytest.mark.parametrize("behind", [b"abcd", b"abc" + WITHOUT, b"abc\r\n"])
async def test_what_comes_behind_a_body_is_a_part_of_something(
    body: StreamReader, behind: bytes
) -> None:
    boundary = Boundary()
    boundary.parsed(HEAD, found(body), new=True)
    boundary.parsed(behind, found(body), new=False)
    assert not is_clean(boundary)


@pytest.mark.parametrize(
    "data",
    [
        CHUNKED + b"abc",
        b"\r\n" + HEAD + b"abc",
        HEAD.replace(b"Host: test\r\n", b"Host: test\n") + b"abc",
        HEAD[:-2] + b"\n" + b"abc",
    ],
)
async def test_of_a_head_that_may_end_elsewhere_nothing_is_certain(
    body: StreamReader, data: bytes
) -> None:
    boundary = Boundary()
    boundary.parsed(data, found(body), new=True)
    assert not is_clean(boundary)


async def test_what_is_parsed_behind_something_unknown_stays_so(body: StreamReader) -> None:
    boundary = Boundary()
    boundary.parsed(HEAD[:5], [], new=True)
    boundary.parsed(HEAD[5:] + b"abc", found(body), new=False)
    assert not is_clean(boundary)
    boundary.parsed(WITHOUT, found(EMPTY_PAYLOAD, None), new=False)
    assert is_clean(boundary)
