"""Reading requests: headers, path and query values, `100 Continue`, JSON bodies.

Rules kept here:
- A header that is repeated counts with all its values, as one list: nothing is judged by its first.
- `Expect: 100-continue` is answered when the body is wanted and not before, once, and only to
  HTTP/1.1.
- A body may not dawdle (S2). A JSON one has no content coding and is bounded in size (S1). What is
  wrong with it is said with the field's name; a key that stands twice is wrong. A large one is
  parsed in a thread.
"""

from __future__ import annotations

import asyncio
import json
import reprlib
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, TypeVar

from aiohttp import HttpVersion11, hdrs, web
from pydantic import BaseModel, ValidationError

from depot.artifact import ArtifactHash, Generation
from depot.errors import InvalidRequest, TooLarge, UnsupportedEncoding
from depot.http.held_bodies import HeldBody
from depot.http.limits import HttpLimits
from depot.http.problems import JSON_TYPE
from depot.streams.sources import PaceMeter

LIMITS: Final = web.AppKey("limits", HttpLimits)
REQUEST_ID: Final = web.RequestKey("request_id", str)
# The version of a request that is of neither HTTP/1.1 nor HTTP/1.0.
OTHER_VERSION: Final = web.RequestKey("other_version", str)
# What went wrong with a request before it was parsed, which is all that is left to say of it.
FOREGONE: Final = web.RequestKey("foregone", Exception)
# Set by whoever reads the body past aiohttp, so that nobody waits for the rest of it afterwards.
BODY_TAKEN: Final = web.RequestKey("body_taken", bool)
# The body as it is held in memory, until the request was answered.
HELD_BODY: Final = web.RequestKey("held_body", HeldBody)
_CONTINUED: Final = web.RequestKey("continued", bool)

PARSE_IN_THREAD_BYTES: Final = 64 << 10
MAX_FIELD_LENGTH: Final = 200
_PACE_CHECK_S: Final = 1.0

# Mistakes whose message is whole without the value: it is ours, or there is no value to show.
_FOUND_ALREADY: Final = frozenset({"value_error", "missing", "json_invalid"})

Model = TypeVar("Model", bound=BaseModel)


def header(request: web.Request, name: str) -> str | None:
    """The whole of a header; None when it is not there."""
    values = request.headers.getall(name, [])
    return ", ".join(values) if values else None


def content_coding(request: web.Request) -> str:
    """How the body is encoded; `identity` when nothing is said."""
    return (header(request, hdrs.CONTENT_ENCODING) or "identity").strip().lower()


def check_transfer_coding(request: web.Request) -> None:
    """Raise UnsupportedEncoding for any coding but the chunks that the HTTP library undoes."""
    coding = (header(request, hdrs.TRANSFER_ENCODING) or "chunked").strip().lower()
    if coding != "chunked":
        raise UnsupportedEncoding(f"Transfer-Encoding: expected chunked, found {coding[:80]!r}")


def artifact_hash(request: web.Request) -> ArtifactHash:
    """The hash in the path; raises InvalidRequest when it is none."""
    return ArtifactHash.parse(request.match_info["sha256"])


def query_generation(request: web.Request) -> Generation:
    """The generation in the query; raises InvalidRequest when it is missing or none."""
    values = request.query.getall("generation", [])
    if len(values) != 1:
        raise InvalidRequest(f"generation: expected one in the query, found {len(values)}")
    return Generation.parse(values[0])


def expects_continue(request: web.Request) -> bool:
    """Whether the client waits for `100 Continue` before it sends the body."""
    return (
        request.version >= HttpVersion11
        and (header(request, hdrs.EXPECT) or "").strip().lower() == "100-continue"
    )


async def send_continue(request: web.Request) -> None:
    """Tell a client that waits for it that the body is wanted. Calling it twice does no harm."""
    if not expects_continue(request) or request.get(_CONTINUED):
        return
    request[_CONTINUED] = True
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # The interim answer is not part of the final one, for which this counts.
    request.writer.output_size = 0


async def read_json(request: web.Request, model: type[Model]) -> Model:
    """Read and validate a JSON body.

    Raises:
        InvalidRequest: it is not JSON, or not a `model`.
        whatever `read_json_content` raises.
    """
    content = await read_json_content(request)
    if len(content) > PARSE_IN_THREAD_BYTES:
        return await asyncio.to_thread(parse_json, content, model)
    return parse_json(content, model)


async def read_json_content(request: web.Request) -> bytes:
    """Read what is to be a JSON body.

    Raises:
        UnsupportedEncoding: the body has a content coding.
        TooLarge: it has more than `max_json_body_bytes`.
        TooManyBodies: there is no room for it beside the others.
        InvalidRequest: it says that it is something else.
        BodyTimeout: it arrives too slowly.
        LengthMismatch: it ends early.
    """
    _check_json_headers(request)
    return await _read_body(request, request.app[LIMITS])


def _check_json_headers(request: web.Request) -> None:
    coding = content_coding(request)
    if coding != "identity":
        raise UnsupportedEncoding(
            f"expected a JSON body without content coding, found {coding[:80]!r}"
        )
    if hdrs.CONTENT_TYPE in request.headers and request.content_type != JSON_TYPE:
        raise InvalidRequest(
            f"Content-Type: expected {JSON_TYPE}, found {request.content_type[:80]!r}"
        )
    _check_size(request.content_length or 0, request.app[LIMITS])


def _check_size(size_bytes: int, limits: HttpLimits) -> None:
    if size_bytes > limits.max_json_body_bytes:
        raise TooLarge(
            f"expected a JSON body of at most {limits.max_json_body_bytes} bytes, "
            f"found {size_bytes} or more"
        )


async def read_body(request: web.Request) -> bytes:
    """Read a body whose length is announced, and known to be short.

    Raises:
        as `body_blocks`.
    """
    if request.content.is_eof() and request.content.exception() is None:
        return request.content.read_nowait()  # it came with its head
    async with aclosing(body_blocks(request)) as blocks:
        return b"".join([block async for block in blocks])


async def body_blocks(request: web.Request) -> AsyncGenerator[bytes]:
    """Give the body as it arrives.

    Raises:
        BodyTimeout: it arrives too slowly.
        LengthMismatch: it ends early.
        InvalidRequest: it is not well-formed.
        ConnectionError: the client is gone.
    """
    pace = request.app[LIMITS].pace
    loop = asyncio.get_running_loop()
    meter = PaceMeter(pace, loop.time())
    while not request.content.at_eof():
        waiting = asyncio.timeout(min(_PACE_CHECK_S, pace.idle_timeout_s))
        try:
            async with waiting:
                block = await request.content.readany()
        except TimeoutError as error:
            if not waiting.expired():  # the network's own
                raise ConnectionResetError("the client is gone") from error
            meter.check(loop.time())
        except web.RequestPayloadError as error:
            raise InvalidRequest(f"the body is not well-formed: {error}") from error
        else:
            meter.arrived(len(block), loop.time())
            yield block


async def _read_body(request: web.Request, limits: HttpLimits) -> bytes:
    await send_continue(request)
    content = bytearray()
    async with aclosing(body_blocks(request)) as blocks:
        async for block in blocks:
            content += block
            request[HELD_BODY].arrived(len(block))
            _check_size(len(content), limits)
    return bytes(content)


def parse_json(content: bytes, model: type[Model]) -> Model:
    """Read a model from JSON.

    Raises:
        InvalidRequest: it is not JSON, not a `model`, or a key in it stands twice.
    """
    try:
        parsed = model.model_validate_json(content)
    except ValidationError as error:
        raise InvalidRequest(_first_mistake(error)) from None
    # The parser takes the last of several keys of one name. A key has a colon: where there are no
    # more of those than fields no key is repeated, which spares a large body the second look.
    if content.count(b":") > len(parsed.model_fields_set):
        json.loads(content, object_pairs_hook=_refuse_repeated)
    return parsed


def _refuse_repeated(pairs: list[tuple[str, object]]) -> None:
    name, times = Counter(name for name, _ in pairs).most_common(1)[0] if pairs else ("", 0)
    if times > 1:
        raise InvalidRequest(f"{name[:MAX_FIELD_LENGTH]}: expected once, found {times} times")


def _first_mistake(error: ValidationError) -> str:
    mistake = error.errors(include_url=False, include_context=False)[0]
    # The sender chooses the names of unknown fields, and so their length.
    field = ".".join(str(part) for part in mistake["loc"])[:MAX_FIELD_LENGTH] or "body"
    # Pydantic names our own messages as such; they say already what was found.
    said = mistake["msg"].removeprefix("Value error, ")
    if mistake["type"] in _FOUND_ALREADY:
        return f"{field}: {said}"
    return f"{field}: {said}, found {reprlib.repr(mistake['input'])}"
