from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, MutableMapping
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import BaseModel, ConfigDict

from depot.errors import TooLarge
from depot.http.body import request_body
from depot.http.limits import HttpLimits
from depot.http.middleware import AT_ONCE_BYTES
from depot.http.openapi import Endpoint
from depot.http.replies import json_reply
from depot.http.requests import parse_json, read_json, send_continue
from depot.http.service import HttpService, make_app
from tests.http.raw import RawClient
from tests.http.servers import API, serve_endpoints


class Number(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    number: int


class Handlers:
    """Endpoints that show what the front does around them."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.transport: asyncio.Transport | None = None

    def table(self) -> tuple[Endpoint, ...]:
        rows = (
            ("GET", "/hello", self.hello),
            ("PUT", "/number", self.number),
            ("PUT", "/stored", self.stored),
            ("PUT", "/refused", self.refused),
            ("PUT", "/twice", self.wants_body_twice),
            ("GET", "/slow", self.slow),
            ("GET", "/broken", self.broken),
            ("GET", "/half", self.half),
            ("GET", "/lost", self.lost),
            ("GET", "/large", self.large),
            ("GET", "/small", self.small),
        )
        return tuple(
            Endpoint(
                method=method,
                path=path,
                operation_id=path.strip("/"),
                handler=handler,
                summary="test",
            )
            for method, path, handler in rows
        )

    async def hello(self, request: web.Request) -> web.Response:
        return web.Response(text="hello")

    async def number(self, request: web.Request) -> web.Response:
        self.entered.set()
        return json_reply(await read_json(request, Number))

    async def stored(self, request: web.Request) -> web.Response:
        async with request_body(request, HttpLimits()) as source:
            self.entered.set()
            while await asyncio.to_thread(source.readinto, memoryview(bytearray(1 << 16))):
                pass
        return web.Response()

    async def refused(self, request: web.Request) -> web.Response:
        raise TooLarge("expected less")

    async def wants_body_twice(self, request: web.Request) -> web.Response:
        await send_continue(request)
        await send_continue(request)
        return web.Response(body=await request.content.read())

    async def slow(self, request: web.Request) -> web.Response:
        self.entered.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return web.Response(text="done")

    async def broken(self, request: web.Request) -> web.Response:
        raise KeyError("/secret/path")

    async def half(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        raise KeyError("in the middle")

    async def lost(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        self.entered.set()
        # A thread that sends past the event loop hears of it first.
        raise ConnectionResetError("the client is gone") from BrokenPipeError("splice")

    async def large(self, request: web.Request) -> web.Response:
        self.transport = request.transport
        self.entered.set()
        return web.Response(body=bytes(64 << 20))

    async def small(self, _: web.Request) -> web.Response:
        return web.Response(body=bytes(AT_ONCE_BYTES))


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture
async def service(handlers: Handlers) -> AsyncIterator[HttpService]:
    async with serve_endpoints(handlers.table()) as service:
        yield service


# ---- refusals


@pytest.mark.parametrize(
    ("lines", "status", "code"),
    [
        (["GET /nowhere HTTP/1.1"], 404, "NotFound"),
        (["GET /no%0Awhere HTTP/1.1"], 404, "NotFound"),
        (["OPTIONS * HTTP/1.1"], 404, "NotFound"),
        (["DELETE /hello HTTP/1.1"], 405, "MethodNotAllowed"),
        (["GET /hello HTTP/1.1", "api-version: 49.0.0"], 400, "ApiVersion"),
        (["GET /hello HTTP/1.1", "api-version: new"], 400, "ApiVersion"),
        (["GET /hello HTTP/1.1", "api-version: 1.0.0", "api-version: 2"], 400, "ApiVersion"),
        (["PUT /hello HTTP/1.1", "Expect: 100-continue"], 405, "MethodNotAllowed"),
        (["GET /hello HTTP/1.1", "Expect: cake"], 417, "ExpectationFailed"),
        (["GET /hello HTTP/1.1", "Expect: 100-continue", "Expect: cake"], 417, "ExpectationFailed"),
        (
            ["PUT /number HTTP/1.1", "Content-Encoding: identity", "Content-Encoding: gzip"],
            415,
            "UnsupportedEncoding",
        ),
        (["PUT /hello HTTP/1.1", "Transfer-Encoding: gzip, chunked"], 415, "UnsupportedEncoding"),
        (["GET /broken HTTP/1.1"], 500, "Internal"),
        (["GET /hello HTTP/1.1", "Content-Length: many"], 400, "InvalidRequest"),
        (["GET /hello\x01 HTTP/1.1"], 400, "InvalidRequest"),
        (["GET /hello HTTP/1.1\nx: y"], 400, "InvalidRequest"),
        (["GET /hello HTTP/2.0"], 505, "HttpVersionNotSupported"),
        (["GET /hello HTTP/0.9"], 505, "HttpVersionNotSupported"),
        (["GET /hello"], 505, "HttpVersionNotSupported"),
        (["NONSENSE"], 400, "InvalidRequest"),
        (["GET /hello HTTP/1.1", "x: " + "y" * 20_000], 400, "InvalidRequest"),
    ],
)
async def test_every_refusal_has_the_common_body_and_a_request_id(
    service: HttpService, lines: list[str], status: int, code: str
) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send(*lines)
        answer = await client.answer()
    body = answer.json()
    assert (answer.status, body["error_code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert len(body["request_id"]) == 32
    assert answer.headers["x-request-id"] == body["request_id"]
    assert "Traceback" not in body["message"]
    assert "/secret/path" not in body["message"]


async def test_another_version_of_http_is_refused_in_ours(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("GET /hello HTTP/2.0")
        assert (await client.rest()).startswith(b"HTTP/1.1 505 ")


async def test_a_wrong_method_is_answered_with_the_right_ones(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("DELETE /hello HTTP/1.1")
        answer = await client.answer()
    assert answer.headers["allow"] == "GET, HEAD"


async def test_a_success_has_a_request_id_of_its_own(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        ids = set()
        for _ in range(2):
            await client.send("GET /hello HTTP/1.1", "api-version: 48.0.0")
            answer = await client.answer()
            assert answer.body == b"hello"
            ids.add(answer.headers["x-request-id"])
    assert len(ids) == 2


async def test_head_answers_like_get_without_a_body(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("HEAD /hello HTTP/1.1")
        answer = await client.answer(has_body=False)
        assert (answer.status, answer.headers["content-length"]) == (200, "5")
        await client.send("GET /hello HTTP/1.1")
        assert (await client.answer()).body == b"hello"


async def test_an_answer_that_breaks_in_the_middle_is_cut_short(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("GET /half HTTP/1.1")
        await client.head()
        assert len(await client.rest()) < 100


async def test_a_client_that_left_is_no_failure_of_the_server(
    handlers: Handlers, logged: list[MutableMapping[str, Any]]
) -> None:
    async with serve_endpoints(handlers.table()) as service:
        for line in ("PUT /number HTTP/1.1", "PUT /stored HTTP/1.1", "GET /lost HTTP/1.1"):
            handlers.entered.clear()
            async with RawClient.connect(service.url) as client:
                await client.send(line, f"Content-Length: {2 << 20}", body=b"{")
                await handlers.entered.wait()
                client.reset()
            while service.connections:
                async with RawClient.connect(service.url) as other:
                    await other.send("GET /hello HTTP/1.1", "Connection: close")
                    await other.rest()
    assert [entry for entry in logged if entry["log_level"] in ("warning", "error")] == []


# ---- keys that stand twice


@pytest.mark.parametrize(
    "body",
    [
        b'{"number": 1, "number": 2}',
        b'{"number": 1, "number": 1}',
        b'{"number": 1, "n\\u0075mber": 2}',
        b'{"number" \n : 1, "number"\t:2}',
        b'{"number": 1, "number": 2, "number": 3' + b" " * 100_000 + b"}",
    ],
)
async def test_a_key_that_stands_twice_is_refused_by_its_name(
    service: HttpService, body: bytes
) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("PUT /number HTTP/1.1", f"Content-Length: {len(body)}", body=body)
        answer = await client.answer()
    assert (answer.status, answer.json()["error_code"]) == (400, "InvalidRequest")
    assert answer.json()["message"].startswith("number: expected once, found ")


@pytest.mark.parametrize(
    "body", [b'{"text": "a:b", "list": ["c:d", ":"]}', b'{"text": "\\":", "list": []}']
)
def test_a_colon_in_a_value_is_no_key(body: bytes) -> None:
    class Texts(BaseModel):
        text: str
        list: tuple[str, ...]

    assert ":" in parse_json(body, Texts).text


# ---- 100 Continue


async def test_a_refusal_is_sent_instead_of_100_continue(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send(
            "PUT /refused HTTP/1.1", "Expect: 100-continue", "Content-Length: 1000000000"
        )
        answer = await client.answer()
    assert (answer.status, answer.headers["connection"]) == (413, "close")


async def test_100_continue_is_sent_once_and_only_when_the_body_is_wanted(
    service: HttpService,
) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("PUT /twice HTTP/1.1", "Expect: 100-Continue", "Content-Length: 4")
        assert await client.head() == (100, {})
        await client.send_bytes(b"body")
        assert (await client.answer()).body == b"body"


async def test_100_continue_is_not_sent_to_http_1_0(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send(
            "PUT /twice HTTP/1.0", "Expect: 100-continue", "Content-Length: 4", body=b"body"
        )
        assert (await client.answer()).body == b"body"


# ---- bodies


async def test_a_refused_body_is_taken_in_so_that_the_refusal_arrives(
    service: HttpService,
) -> None:
    async with RawClient.connect(service.url) as client:
        body = bytes(1 << 20)
        await client.send("PUT /refused HTTP/1.1", f"Content-Length: {len(body)}", body=body)
        answer = await client.answer()
        assert answer.json()["error_code"] == "TooLarge"
        assert answer.headers["connection"] == "close"
        assert await client.rest() == b""


async def test_a_refused_body_is_taken_in_for_a_bounded_time(handlers: Handlers) -> None:
    limits = HttpLimits(refused_drain_s=0.05)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        await client.send("PUT /refused HTTP/1.1", "Content-Length: 10")
        assert (await client.answer()).status == 413
        assert await client.rest() == b""


async def test_a_refused_body_is_taken_in_up_to_a_bounded_size(handlers: Handlers) -> None:
    limits = HttpLimits(refused_drain_s=60, refused_drain_bytes=1000)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        await client.send("PUT /refused HTTP/1.1", "Content-Length: 5000", body=bytes(2000))
        assert (await client.answer()).status == 413
        assert await client.rest() == b""


async def test_a_refused_body_that_was_read_anyway_keeps_the_connection(
    service: HttpService,
) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("PUT /number HTTP/1.1", "Content-Length: 2", body=b"{}")
        answer = await client.answer()
        assert (answer.status, answer.json()["message"][:6]) == (400, "number")
        await client.send("GET /hello HTTP/1.1")
        assert (await client.answer()).status == 200


@pytest.mark.parametrize(
    ("headers", "body", "status", "code", "named"),
    [
        ({}, b'{"number": "1"}', 400, "InvalidRequest", "number"),
        ({}, b'{"number": 1, "more": 2}', 400, "InvalidRequest", "more"),
        ({}, b'{"number": ', 400, "InvalidRequest", "JSON"),
        ({}, b"\xff", 400, "InvalidRequest", "JSON"),
        ({}, b"[" * 100_000, 400, "InvalidRequest", "JSON"),
        ({}, b'{"number": 1' + b" " * 100_000 + b"2}", 400, "InvalidRequest", "JSON"),
        ({}, b" " * 200_001, 413, "TooLarge", "200000"),
        ({"Content-Encoding": "gzip"}, b"{}", 415, "UnsupportedEncoding", "gzip"),
        ({"Content-Type": "text/plain"}, b"{}", 400, "InvalidRequest", "text/plain"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_json_body_that_is_wrong_is_refused_and_the_mistake_is_named(
    handlers: Handlers,
    headers: dict[str, str],
    body: bytes,
    status: int,
    code: str,
    named: str,
    *,
    chunked: bool,
) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield body

    limits = HttpLimits(max_json_body_bytes=200_000)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        aiohttp.ClientSession() as session,
        session.put(
            f"{service.url}/number",
            data=pieces() if chunked else body,
            headers={"Content-Type": "application/json", **headers},
        ) as response,
    ):
        answer = await response.json()
    assert (response.status, answer["error_code"]) == (status, code)
    assert named in answer["message"]


async def test_a_mistake_is_told_in_few_words_however_long_it_is(
    service: HttpService, logged: list[MutableMapping[str, Any]]
) -> None:
    body = json.dumps({"number": 1, "k" * 1_000_000: 2}).encode()
    async with RawClient.connect(service.url) as client:
        await client.send("PUT /number HTTP/1.1", f"Content-Length: {len(body)}", body=body)
        answer = await client.answer()
    assert answer.json()["message"].startswith("kkkk")
    assert len(answer.body) < 1000
    assert all(len(str(entry)) < 1000 for entry in logged)


@pytest.mark.parametrize("padding", [0, 100_000])
async def test_a_json_body_is_read_whether_it_is_small_or_large(
    service: HttpService, padding: int
) -> None:
    body = json.dumps({"number": 7}).encode() + b" " * padding
    async with (
        aiohttp.ClientSession(skip_auto_headers={"Content-Type"}) as session,
        session.put(f"{service.url}/number", data=body) as response,
    ):
        assert await response.json() == {"number": 7}


@pytest.mark.parametrize(
    ("framing", "body", "expected_bytes"),
    [
        ("Content-Length: 100", b'{"number": 7}', 100),
        ("Transfer-Encoding: chunked", b'd\r\n{"number": 7}\r\n', None),
    ],
)
async def test_a_body_that_ends_early_is_refused_although_it_reads_well(
    service: HttpService, framing: str, body: bytes, expected_bytes: int | None
) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("PUT /number HTTP/1.1", framing, body=body)
        client.writer.write_eof()
        answer = await client.answer()
    assert (answer.status, answer.json()["error_code"]) == (400, "LengthMismatch")
    assert answer.json()["details"] == {"expected_bytes": expected_bytes, "actual_bytes": 13}


async def test_a_body_with_broken_chunks_is_refused(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send(
            "PUT /number HTTP/1.1", "Transfer-Encoding: chunked", body=b"5\r\nhello\r\nnonsense\r\n"
        )
        answer = await client.answer()
    assert (answer.status, answer.json()["error_code"]) == (400, "InvalidRequest")


async def test_a_body_that_falls_silent_is_given_up(handlers: Handlers) -> None:
    limits = HttpLimits(idle_timeout_s=0.05, refused_drain_s=0.05)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        await client.send("PUT /number HTTP/1.1", "Content-Length: 12", body=b'{"num')
        answer = await client.answer()
    assert (answer.status, answer.json()["error_code"]) == (408, "BodyTimeout")


# ---- time


async def test_a_head_that_does_not_complete_is_answered_408(handlers: Handlers) -> None:
    limits = HttpLimits(header_timeout_s=0.05)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        await client.send_bytes(b"GET /hello HTTP/1.1\r\nHost:")
        answer = await client.answer()
        assert (answer.status, answer.json()["error_code"]) == (408, "HeaderTimeout")
        assert answer.headers["x-request-id"] == answer.json()["request_id"]
        assert await client.rest() == b""


async def test_a_later_head_that_does_not_complete_is_answered_408(handlers: Handlers) -> None:
    limits = HttpLimits(header_timeout_s=0.05, idle_timeout_s=60)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        await client.send("GET /hello HTTP/1.1")
        assert (await client.answer()).status == 200
        await client.send_bytes(b"GET /hel")
        assert (await client.answer()).status == 408


@pytest.mark.parametrize("pieces", [1, 2, 3])
async def test_a_head_that_began_while_another_request_ran_is_timed_after_that(
    handlers: Handlers, pieces: int
) -> None:
    limits = HttpLimits(header_timeout_s=0.05, idle_timeout_s=60)
    first, begun = b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n", b"GET /hello HTTP/1.1\r\nHo"
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        if pieces == 1:
            await client.send_bytes(first + begun)
        else:
            await client.send_bytes(first)
            await handlers.entered.wait()
            await client.send_bytes(begun[:5])
            await client.send_bytes(begun[5:])
        if pieces == 3:  # a whole one between the two
            await client.send_bytes(b"st: test\r\n\r\nGET /hel")
        async with RawClient.connect(service.url) as silent:
            await silent.rest()
        handlers.release.set()
        assert (await client.answer()).body == b"done"
        if pieces == 3:
            assert (await client.answer()).body == b"hello"
        assert (await client.answer()).json()["error_code"] == "HeaderTimeout"
        assert await client.rest() == b""


async def test_whole_requests_are_no_beginning_of_another(handlers: Handlers) -> None:
    limits = HttpLimits(header_timeout_s=0.02, idle_timeout_s=60)
    hello = b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n"
    number = b"PUT /number HTTP/1.1\r\nHost: test\r\nContent-Length: 13\r\n\r\n"
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        await client.send_bytes(hello + hello + number + b'{"number": 7}')
        for _ in range(3):
            assert (await client.answer()).status == 200
        # Many header timeouts long nothing is said; the connection is idle.
        for _ in range(3):
            async with RawClient.connect(service.url) as silent:
                await silent.rest()
        await client.send_bytes(hello)
        assert (await client.answer()).status == 200


async def test_a_connection_that_sends_nothing_is_closed_without_an_answer(
    handlers: Handlers,
) -> None:
    limits = HttpLimits(header_timeout_s=0.05)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        assert await client.rest() == b""


async def test_the_header_timeout_does_not_touch_a_request_that_runs(handlers: Handlers) -> None:
    limits = HttpLimits(header_timeout_s=0.5, idle_timeout_s=60)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as slow,
    ):
        await slow.send("GET /slow HTTP/1.1")
        # A pipelined head that is incomplete must not end the request before it either.
        await slow.send_bytes(b"GET /hello HT")
        async with RawClient.connect(service.url) as silent:
            await silent.rest()
        handlers.release.set()
        assert (await slow.answer()).body == b"done"
        await slow.send_bytes(b"TP/1.1\r\nHost: test\r\n\r\n")
        assert (await slow.answer()).body == b"hello"


async def test_a_kept_connection_that_stays_idle_is_closed(handlers: Handlers) -> None:
    limits = HttpLimits(idle_timeout_s=0.05)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        await client.send("GET /hello HTTP/1.1")
        assert (await client.answer()).status == 200
        assert await client.rest() == b""


async def test_s1_a_connection_is_closed_when_idle_also_if_its_last_head_took_longer_than_that(
    handlers: Handlers,
) -> None:
    limits = HttpLimits(header_timeout_s=60, idle_timeout_s=0.05)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        await client.send_bytes(b"GET /hello HT")
        async with RawClient.connect(service.url) as other:
            await other.send("GET /hello HTTP/1.1")
            await other.answer()
            await other.rest()  # idle for as long as it may be, and so was the first by now
        await client.send_bytes(b"TP/1.1\r\nHost: test\r\n\r\n")
        assert (await client.answer()).status == 200
        async with asyncio.timeout(10):
            assert await client.rest() == b""


async def test_an_answer_that_nobody_takes_does_not_hold_its_connection(
    handlers: Handlers,
) -> None:
    limits = HttpLimits(idle_timeout_s=0.05)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        await client.send("GET /large HTTP/1.1")
        while service.connections:
            # Nothing of the large answer is read here; each turn is a round trip, not a sleep.
            async with RawClient.connect(service.url) as other:
                await other.send("GET /hello HTTP/1.1", "Connection: close")
                await other.rest()
        assert len(await client.rest()) < 64 << 20


async def test_s2_small_answers_that_nobody_takes_do_not_hold_their_connection(
    handlers: Handlers,
) -> None:
    limits = HttpLimits(idle_timeout_s=0.05)
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as client,
    ):
        assert isinstance(client.writer.transport, asyncio.Transport)
        client.writer.transport.pause_reading()
        client.writer.write(b"GET /small HTTP/1.1\r\nHost: test\r\n\r\n" * 2000)
        async with asyncio.timeout(30):
            while service.connections:
                async with RawClient.connect(service.url) as other:
                    await other.send("GET /hello HTTP/1.1", "Connection: close")
                    await other.rest()


async def test_a_large_answer_is_whole_and_never_waits_as_a_copy_of_itself(
    handlers: Handlers, service: HttpService
) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send("GET /large HTTP/1.1")
        await handlers.entered.wait()
        async with RawClient.connect(service.url) as other:  # by now the answer has begun
            await other.send("GET /hello HTTP/1.1")
            await other.answer()
        assert handlers.transport is not None
        assert handlers.transport.get_write_buffer_size() < 1 << 20
        assert (await client.answer()).body == bytes(64 << 20)


async def test_pipelined_requests_are_answered_in_order(service: HttpService) -> None:
    async with RawClient.connect(service.url) as client:
        one = b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n"
        two = b"GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n"
        await client.send_bytes((one + two) * 40)
        for _ in range(40):
            assert (await client.answer()).status == 200
            assert (await client.answer()).status == 404


async def test_what_was_pipelined_before_the_client_ended_its_output_is_answered(
    service: HttpService,
) -> None:
    async with RawClient.connect(service.url) as client:
        await client.send_bytes(b"GET /hello HTTP/1.1\r\nHost: test\r\n\r\n" * 40)
        client.writer.write_eof()
        for _ in range(40):
            assert (await client.answer()).body == b"hello"
        assert await client.rest() == b""


# ---- connections


@pytest.mark.parametrize(
    "limits", [HttpLimits(max_connections=3), HttpLimits(max_connections_per_client=3)]
)
async def test_a_connection_over_the_limit_is_answered_503_and_closed(
    handlers: Handlers, limits: HttpLimits
) -> None:
    async with (
        serve_endpoints(handlers.table(), limits) as service,
        RawClient.connect(service.url) as one,
        RawClient.connect(service.url) as two,
        RawClient.connect(service.url) as three,
    ):
        for client in (one, two, three):
            await client.send("GET /hello HTTP/1.1")
            assert (await client.answer()).status == 200
        async with RawClient.connect(service.url) as refused:
            await refused.send("GET /hello HTTP/1.1")
            answer = await refused.answer()
            assert (answer.status, answer.json()["error_code"]) == (503, "TooManyConnections")
            assert answer.headers["retry-after"] == "5"
            assert answer.headers["connection"] == "close"
            assert await refused.rest() == b""
        await three.send("GET /hello HTTP/1.1", "Connection: close")
        await three.rest()
        async with RawClient.connect(service.url) as accepted:
            await accepted.send("GET /hello HTTP/1.1")
            assert (await accepted.answer()).status == 200


async def test_a_client_that_left_counts_until_its_request_has_ended(handlers: Handlers) -> None:
    limits = HttpLimits(max_connections=1)
    async with serve_endpoints(handlers.table(), limits) as service:
        async with RawClient.connect(service.url) as left:
            await left.send("GET /slow HTTP/1.1")
            await handlers.entered.wait()
            left.reset()
        for _ in range(20):  # round trips, in which the server has heard of the reset
            async with RawClient.connect(service.url) as refused:
                assert (await refused.answer()).json()["error_code"] == "TooManyConnections"
        handlers.release.set()
        while service.connections:
            async with RawClient.connect(service.url) as other:
                await other.send("GET /hello HTTP/1.1", "Connection: close")
                await other.rest()


async def test_a_server_on_ipv6_says_so_in_its_url(handlers: Handlers) -> None:
    service = HttpService(make_app(handlers.table(), api=API), limits=HttpLimits(), name="test")
    try:
        await service.start("[::1]", 0)
    except OSError as error:
        pytest.skip(f"no IPv6 here: {error}")
    async with aiohttp.ClientSession() as session, session.get(f"{service.url}/hello") as response:
        assert await response.text() == "hello"
    assert service.url.startswith("http://[::1]:")
    await service.stop(0)


async def test_a_port_that_is_taken_is_an_error_that_leaves_nothing(
    handlers: Handlers, service: HttpService
) -> None:
    second = HttpService(make_app(handlers.table(), api=API), limits=HttpLimits(), name="second")
    with pytest.raises(OSError, match="address already in use"):
        await second.start("127.0.0.1", int(service.url.rpartition(":")[2]))


# ---- draining


async def test_a_draining_server_refuses_new_work_and_finishes_the_old(
    handlers: Handlers,
) -> None:
    async with serve_endpoints(handlers.table()) as service:
        async with (
            RawClient.connect(service.url) as running,
            RawClient.connect(service.url) as kept,
        ):
            await kept.send("GET /hello HTTP/1.1")
            assert (await kept.answer()).status == 200
            await running.send("GET /slow HTTP/1.1")
            await handlers.entered.wait()
            async with asyncio.TaskGroup() as tasks:
                stopping = tasks.create_task(service.stop(60))
                await kept.send("GET /hello HTTP/1.1")
                async with RawClient.connect(service.url) as late:
                    await late.send("GET /hello HTTP/1.1")
                    for client in (kept, late):
                        answer = await client.answer()
                        assert answer.status == 503
                        assert answer.json()["error_code"] == "ShuttingDown"
                        assert "retry-after" in answer.headers
                        assert answer.headers["connection"] == "close"
                assert not stopping.done()
                handlers.release.set()
                answer = await running.answer()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
        with pytest.raises(OSError, match="Connect call failed"):
            async with RawClient.connect(service.url):
                pass


async def test_what_does_not_finish_in_the_drain_time_is_cancelled(handlers: Handlers) -> None:
    async with (
        serve_endpoints(handlers.table()) as service,
        RawClient.connect(service.url) as client,
    ):
        await client.send("GET /slow HTTP/1.1")
        await handlers.entered.wait()
        await service.stop(0.01)
        assert handlers.cancelled.is_set()
        assert await client.rest() == b""


async def test_s1_an_idle_connection_does_not_keep_its_last_answer() -> None:
    dropped = asyncio.Event()

    class Content(bytes):
        def __del__(self) -> None:
            dropped.set()

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=Content(b"x" * 50_000))

    endpoint = Endpoint(
        method="GET", path="/once", operation_id="once", handler=answer, summary="test"
    )
    async with serve_endpoints([endpoint]) as service, RawClient.connect(service.url) as client:
        await client.send("GET /once HTTP/1.1")
        assert (await client.answer()).body == b"x" * 50_000
        async with asyncio.timeout(30):
            await dropped.wait()
