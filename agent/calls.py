"""Requests to one of our APIs: what `AgentClient` and the coordinator's client are made of.

Rules kept here:
- What was refused is `Refused`, with the server's code, message and request id, and after how many
  seconds it wants to be asked again, where it says so; what could not be
  asked, or was answered with something else than the contract says, is `Unreachable`.
- A body is sent with `Expect: 100-continue`: a refusal arrives instead of a broken pipe.
- No redirects. Answers are bounded in size, silence is bounded in time.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, Self, TypeVar
from urllib.parse import quote

import aiohttp
from aiohttp import hdrs
from pydantic import BaseModel, ValidationError
from yarl import URL

from agent.upload import Upload
from depot.client import ClientTimeouts
from depot.errors import InvalidRequest, Refused, Unreachable
from depot.remote import Session, raise_for_problem, reaching
from depot.urls import base_url

# A config of 16 MiB comes back with at most as many bytes; a status has far fewer.
MAX_ANSWER_BYTES: Final = 32 << 20
PARSE_IN_THREAD_BYTES: Final = 64 << 10

_SECONDS: Final = re.compile(r"[0-9]{1,9}", re.ASCII)

Body = TypeVar("Body", bound=BaseModel)


class Calls:
    """Makes the requests of one client; an async context manager.

    Args:
        url: where the server listens.
        server: what it is, for people.
        timeouts: how patient to be.
        answer_timeout_s: with an answer as a whole, and with an upload after each block that moved.
        session: used instead of an own one, and not closed.

    Attributes:
        answer_timeout_s: as given.

    Raises:
        InvalidRequest: `url` is none.
    """

    def __init__(
        self,
        url: str,
        *,
        server: str,
        timeouts: ClientTimeouts | None,
        answer_timeout_s: float,
        session: aiohttp.ClientSession | None,
    ) -> None:
        self.answer_timeout_s = answer_timeout_s
        self._url = base_url(url)
        self._server = server
        self._timeouts = timeouts or ClientTimeouts()
        self._session = Session(session)

    async def __aenter__(self) -> Self:
        """Open a session unless one was given."""
        await self._session.__aenter__()
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Close the session if it is the client's own."""
        await self._session.__aexit__(*exc)

    def at(self, *path: str, **query: int | str) -> URL:
        """Where a resource is; raises InvalidRequest when a segment of the path is no name."""
        # A name with a slash in it is still one segment; one of dots would be another path.
        for segment in path:
            if segment in ("", ".", ".."):
                raise InvalidRequest(f"expected a name, found {segment!r}")
        quoted = [quote(segment, safe="") for segment in path]
        return self._url.joinpath(*quoted, encoded=True).with_query(query or None)

    async def get(self, model: type[Body], *path: str) -> Body:
        """What is there."""
        return await self.ask(model, "GET", self.at(*path))

    async def ask(
        self,
        model: type[Body],
        method: str,
        url: URL,
        body: BaseModel | None = None,
        *,
        wait_s: float | None = 0,
    ) -> Body:
        """Make a request and parse its answer, which may take `wait_s` longer than others.

        None: as long as it takes, because the caller sees to that.
        """
        async with self.exchange(method, url, body, wait_s=wait_s) as response:
            return await self._parse(response, model)

    async def send(self, method: str, body: BaseModel, *path: str) -> None:
        """Make a request whose answer has nothing in it."""
        async with self.exchange(method, self.at(*path), body):
            return

    @asynccontextmanager
    async def exchange(
        self, method: str, url: URL, body: BaseModel | None = None, *, wait_s: float | None = 0
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Make a request, and give its answer for the block."""
        timeout = aiohttp.ClientTimeout(
            total=None if wait_s is None else self.answer_timeout_s + wait_s,
            sock_connect=self._timeouts.connect_s,
            sock_read=None if wait_s is None else self._timeouts.idle_s + wait_s,
        )
        with reaching(self._url):
            async with self._request(
                method, url, data=None if body is None else _payload(body), timeout=timeout
            ) as response:
                yield response

    async def upload(
        self, model: type[Body], method: str, url: URL, upload: Upload, content_type: str
    ) -> Body:
        """Send a body that is not in memory, and parse the answer."""
        headers = {
            hdrs.CONTENT_LENGTH: str(upload.size_bytes),
            hdrs.CONTENT_TYPE: content_type,
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=self._timeouts.connect_s)
        with reaching(self._url):
            async with (
                upload.patience(),
                self._request(
                    method,
                    url,
                    data=upload.blocks(),
                    headers=headers,
                    expect100=True,
                    timeout=timeout,
                ) as response,
            ):
                return await self._parse(response, model)

    @asynccontextmanager
    async def _request(
        self, method: str, url: URL, **options: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self._session.http.request(
            method, url, allow_redirects=False, **options
        ) as response:
            try:
                await raise_for_problem(response)
            except Refused as error:
                error.retry_after_s = _retry_after_s(response)
                raise
            yield response

    async def _parse(self, response: aiohttp.ClientResponse, model: type[Body]) -> Body:
        content = await read_answer(response)
        try:
            if len(content) > PARSE_IN_THREAD_BYTES:
                return await asyncio.to_thread(model.model_validate_json, content)
            return model.model_validate_json(content)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(map(str, first["loc"])) or "body"
            raise Unreachable(
                f"{response.url} is no {self._server}: expected {model.__name__}, found {field}: "
                f"{first['msg']}"
            ) from None


def _payload(body: BaseModel) -> aiohttp.Payload:
    return aiohttp.BytesIOPayload(
        io.BytesIO(body.model_dump_json().encode()), content_type="application/json"
    )


def _retry_after_s(response: aiohttp.ClientResponse) -> int | None:
    """Read when to ask again; as a date, which no server of ours sends, it says nothing."""
    said = response.headers.get(hdrs.RETRY_AFTER, "")
    return int(said) if _SECONDS.fullmatch(said) else None


async def read_answer(response: aiohttp.ClientResponse) -> bytes:
    """Read a whole answer; raises Unreachable when it has more than `MAX_ANSWER_BYTES`."""
    content = bytearray()
    async for block in response.content.iter_any():
        content += block
        if len(content) > MAX_ANSWER_BYTES:
            raise Unreachable(f"{response.url} answers with more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)
