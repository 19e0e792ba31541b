"""What every client of another server shares: its silence, its refusals.

Rules kept here:
- A server that cannot be reached, breaks off or speaks nonsense is `Unreachable`; one that answers
  with anything but success, redirects included, has `Refused`.
- Nothing of an answer is trusted: an error body is read up to a bound, and whatever in it is not of
  the documented shape is left out.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import aiohttp
from yarl import URL

from depot.errors import Refused, Unreachable

MAX_PROBLEM_BYTES: Final = 64 << 10
MAX_TEXT_LENGTH: Final = 1000
_PROBLEM_TIMEOUT_S: Final = 10.0


class Session:
    """The HTTP session of a client: one that was given, or one of its own while it is open."""

    def __init__(self, given: aiohttp.ClientSession | None) -> None:
        self._given = given
        self._own: aiohttp.ClientSession | None = None

    @property
    def http(self) -> aiohttp.ClientSession:
        """What to send requests with."""
        session = self._given or self._own
        assert session is not None, "use the client as a context manager"
        return session

    async def __aenter__(self) -> None:
        """Open a session unless one was given."""
        if self._given is None:
            self._own = aiohttp.ClientSession()

    async def __aexit__(self, *_exc: object) -> None:
        """Close the session if it is an own one."""
        own, self._own = self._own, None
        if own is not None:
            await own.close()


@contextmanager
def reaching(url: URL) -> Iterator[None]:
    """Turn every way in which a server can fail to answer into `Unreachable`."""
    try:
        yield
    except (aiohttp.ClientError, TimeoutError) as error:
        raise Unreachable(f"{url.origin()}: {_reason(error)}") from error


async def raise_for_problem(response: aiohttp.ClientResponse) -> None:
    """Raise Refused, with what the server said, unless it answered 1xx or 2xx."""
    if response.status < 300:
        return
    said = _problem(await _read_some(response))
    location = response.headers.get("Location", "")[:MAX_TEXT_LENGTH]
    message = _text(said, "message") or (f"redirects to {location}" if location else "")
    details = said.get("details")
    raise Refused(
        str(response.url),
        response.status,
        remote_code=_text(said, "error_code"),
        remote_message=message,
        request_id=_text(said, "request_id"),
        remote_details=details if isinstance(details, dict) else {},
    )


async def _read_some(response: aiohttp.ClientResponse) -> bytes:
    content = b""
    try:
        async with asyncio.timeout(_PROBLEM_TIMEOUT_S):
            while len(content) < MAX_PROBLEM_BYTES:
                block = await response.content.read(MAX_PROBLEM_BYTES - len(content))
                if not block:
                    break
                content += block
    except (aiohttp.ClientError, TimeoutError):
        return b""  # The status alone says enough.
    return content


def _problem(content: bytes) -> dict[str, Any]:
    try:
        body: Any = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return body if isinstance(body, dict) else {}


def _text(said: Mapping[str, Any], name: str) -> str | None:
    value = said.get(name)
    return value[:MAX_TEXT_LENGTH] if isinstance(value, str) else None


def _reason(error: aiohttp.ClientError | TimeoutError) -> str:
    match error:
        case aiohttp.ClientSSLError():
            # Its number is not errno's either.
            return f"cannot connect: {error.__cause__ or error}"
        case aiohttp.ClientConnectorError():
            if isinstance(error.os_error, socket.gaierror):
                # Its number is not errno's.
                return f"its name does not resolve: {error.os_error.strerror}"
            number = error.os_error.errno
            # asyncio puts the address where the reason belongs.
            return f"cannot connect: {os.strerror(number) if number else error.os_error}"
        case aiohttp.ConnectionTimeoutError():
            return "cannot connect in time"
        case TimeoutError():
            return "no answer in time"
        case (
            aiohttp.ServerDisconnectedError()
            | aiohttp.ClientPayloadError()
            | aiohttp.ClientOSError()
        ):
            return "the connection was broken off"
        case _:
            return str(error) or type(error).__name__
