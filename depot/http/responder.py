"""The answer to a request for an artifact: headers, the part that was asked for, fail-over.

Rules kept here:
- Both mirrors and every node give the same headers for the same artifact: the entity tag is its
  hash, and there is no modification date.
- A copy that cannot be read is left for the other mirror at the exact byte where it failed. When
  that one fails too, further on, the first is asked for this part: each may be bad elsewhere. When
  no copy has it the connection is cut short of Content-Length: never a clean end (B2). So it is
  when the file was changed while references to it were sent: they are what it has become.
- What fits into memory is read before the head is sent, so that its failure is a proper refusal.
- The zstd coding is sent in chunks, and only a whole stream gets the last one: what fails before
  cuts the connection, as it does without a coding (B2).
"""

from __future__ import annotations

import base64
import errno
from collections.abc import Collection
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol, Self

import structlog
from aiohttp import HttpVersion11, hdrs, web

from depot.artifact import ArtifactHash
from depot.errors import BodyTimeout, Io, NotFound, PreconditionFailed, RangeNotSatisfiable
from depot.http.compressing import Compressor, ReadPart
from depot.http.conditional import (
    Choice,
    Conditions,
    Plan,
    entity_tag,
    plan_choice,
    zstd_entity_tag,
)
from depot.http.hot_artifacts import HotArtifacts, head_of
from depot.http.negotiation import Wish, zstd_wish
from depot.http.openapi import OCTETS
from depot.http.outlet import Outlet, outlet
from depot.http.patience import patience
from depot.http.pump import Pump
from depot.http.requests import header
from depot.http.small_artifacts import GoodCopies
from depot.http.turn import is_nobodys_fault
from depot.mirrors.open_artifact import OpenArtifact
from depot.os_errors import describe_error
from depot.streams.blocks import BLOCK_SIZE_BYTES
from depot.streams.budget import Budget
from depot.streams.sources import Pace

log = structlog.get_logger("depot.http")

IN_MEMORY_BYTES: Final = 64 << 10
CACHE_CONTROL: Final = "public, max-age=31536000, immutable"


class ArtifactReader(Protocol):
    """What of a store the depot API needs."""

    async def open_artifact(
        self, artifact: ArtifactHash, /, *, exclude: Collection[int] = (), to_read: bool = True
    ) -> OpenArtifact:
        """Open a good copy that is on none of the datasets `exclude`; not `to_read`: to look at."""

    def read_failed(self, opened: OpenArtifact, error: OSError, /) -> None:
        """Note that a copy could not be read."""

    def holdings(self) -> GoodCopies:
        """What can be said at once of the copies that are good."""


def repr_digest(artifact: ArtifactHash) -> str:
    """The `Repr-Digest` (RFC 9530) of an artifact's bytes."""
    return f"sha-256=:{base64.b64encode(artifact.digest).decode()}:"


@dataclass(slots=True)
class _Failed:
    """A copy that failed, still open: what follows `offset` may be good.

    Attributes:
        is_bad: it was read, and its error is its own or its device's.
    """

    copy: OpenArtifact
    offset: int
    error: OSError
    is_bad: bool

    def may_have(self, offset: int) -> bool:
        """Tell whether it may give what follows `offset`.

        Nobody waits twice for a device that hangs. One that is busy gives others their turns.
        """
        if not self.is_bad:
            return True
        return self.error.errno == errno.EIO and self.offset < offset


class _Copies:
    """The copies of one artifact, one after the other; a context manager that closes them."""

    def __init__(self, store: ArtifactReader, opened: OpenArtifact) -> None:
        self._store = store
        self._failed: dict[int, _Failed] = {}
        self.current = opened
        self.size_bytes = opened.size_bytes

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for failed in self._failed.values():
            failed.copy.close()
        self.current.close()

    async def fail_over(self, error: OSError, offset: int, *, copy_is_bad: bool) -> None:
        """Go on to a copy that has not failed at `offset`.

        Raises:
            NotFound, NoDataset: there is none.
        """
        self.give_up(error, offset, copy_is_bad=copy_is_bad)
        try:
            await self._open_next(offset)
        except NotFound:
            for failed in self._failed.values():
                if failed.may_have(offset):
                    self.current = failed.copy
                    return
            raise

    async def _open_next(self, offset: int) -> None:
        while True:
            self.current = await self._store.open_artifact(
                self.current.sha256, exclude=frozenset(self._failed)
            )
            if self.current.size_bytes == self.size_bytes:
                return
            wrong_size = f"{self.current.size_bytes} bytes, the copy before had {self.size_bytes}"
            self.give_up(OSError(errno.EINVAL, wrong_size), offset, copy_is_bad=True)

    def give_up(self, error: OSError, offset: int, *, copy_is_bad: bool) -> None:
        """Take note that the copy that is sent has failed."""
        failed = self.current
        log.error(
            "artifact copy failed while it was sent",
            sha256=str(failed.sha256),
            dataset=failed.place,
            offset=offset,
            reason=describe_error(error),
        )
        before = self._failed.pop(failed.dataset, None)  # so that it comes last
        # Said once: a file that took its place since is another one.
        if copy_is_bad and not (before and before.is_bad):
            self._store.read_failed(failed, error)
        self._failed[failed.dataset] = _Failed(failed, offset, error, copy_is_bad)


class ArtifactResponder:
    """Answers requests for artifacts from a store.

    Args:
        compressor: None: nothing is compressed.
        budget: what all answers together may send; None: no limit.
        hot: where small artifacts that were sent whole are kept; None: nowhere.
    """

    def __init__(
        self,
        store: ArtifactReader,
        pump: Pump,
        pace: Pace,
        compressor: Compressor | None = None,
        budget: Budget | None = None,
        hot: HotArtifacts | None = None,
    ) -> None:
        self._store = store
        self._pump = pump
        self._pace = pace
        self._compressor = compressor
        self._budget = budget or Budget()
        self._hot = hot

    async def respond(self, request: web.Request, artifact: ArtifactHash) -> web.StreamResponse:
        """Answer a GET or HEAD.

        Raises:
            NoDataset, NotFound, PreconditionFailed, RangeNotSatisfiable.
        """
        if request.method == "HEAD" or _has_preconditions(request):
            # What is not going to be read is not made ready for it, which may take a whole pass.
            opened = await self._store.open_artifact(artifact, to_read=False)
            with _Copies(self._store, opened) as copies:
                choice = self._choose(request, copies)
                if request.method == "HEAD" or choice.sends_nothing:
                    return await self._respond(request, copies, choice)
        opened = await self._store.open_artifact(artifact)
        with _Copies(self._store, opened) as copies:
            return await self._respond(request, copies, self._choose(request, copies))

    def headers_of_whole(self, artifact: ArtifactHash, size_bytes: int) -> dict[str, str]:
        """The headers of an answer with all of an artifact in the identity coding."""
        return self._vary(headers_of(artifact, Plan(200, 0, size_bytes), size_bytes))

    def _choose(self, request: web.Request, copies: _Copies) -> Choice:
        wish = Wish.IDENTITY
        # The stream's length is not known before its end, which HTTP/1.0 could not tell from a cut.
        if self._compressor is not None and request.version >= HttpVersion11:
            wish = zstd_wish(header(request, hdrs.ACCEPT_ENCODING))
        sha256, size_bytes = copies.current.sha256, copies.size_bytes
        return plan_choice(request.method, size_bytes, sha256, conditions_of(request), wish)

    async def _respond(
        self, request: web.Request, copies: _Copies, choice: Choice
    ) -> web.StreamResponse:
        response = await self._respond_encoded(request, copies, choice)
        if response is None:
            response = await self._respond_plain(request, copies, choice.identity)
        return response

    async def _respond_plain(
        self, request: web.Request, copies: _Copies, plan: Plan
    ) -> web.StreamResponse:
        sha256 = copies.current.sha256
        refuse(request, sha256, plan, copies.size_bytes)
        headers = self._vary(headers_of(sha256, plan, copies.size_bytes))
        if request.method == "HEAD" or plan.status == 304:
            return web.StreamResponse(status=plan.status, headers=headers)
        if plan.length_bytes <= IN_MEMORY_BYTES:
            content = await self._read(copies, plan.start, plan.length_bytes)
            if self._hot is not None and plan.status == 200:
                self._hot.keep(sha256, head_of(headers), content)
            await self._budget.pay(len(content))
            return web.Response(status=plan.status, headers=headers, body=content)
        response = web.StreamResponse(status=plan.status, headers=headers)
        async with outlet(request, response, self._pace) as out:
            await self._send(request, out, copies, plan)
        return response

    async def _respond_encoded(
        self, request: web.Request, copies: _Copies, choice: Choice
    ) -> web.StreamResponse | None:
        """Answer in the zstd coding; None when the bytes themselves are to be sent."""
        if choice.zstd is None or self._compressor is None:
            return None
        sha256, size_bytes = copies.current.sha256, copies.size_bytes
        headers = self._vary(_zstd_headers(sha256, choice.zstd))
        response = web.StreamResponse(status=choice.zstd.status, headers=headers)
        if choice.zstd.status == 304:
            return response
        read = partial(self._read, copies)
        with self._compressor.place() as granted:
            pays = granted and (
                choice.needs_zstd or await self._compressor.pays(sha256, size_bytes, read)
            )
            if not pays:
                return None
            if request.method != "HEAD":
                await self._compress(request, response, self._compressor, size_bytes, read)
            return response

    async def _compress(
        self,
        request: web.Request,
        response: web.StreamResponse,
        compressor: Compressor,
        size_bytes: int,
        read: ReadPart,
    ) -> None:
        response.enable_chunked_encoding()
        await response.prepare(request)
        async with aclosing(compressor.stream(size_bytes, read)) as blocks:
            async for block in blocks:
                await self._budget.pay(len(block))
                try:
                    async with patience(request, self._pace):
                        await response.write(block)
                except TimeoutError as error:
                    raise BodyTimeout("the client does not take its answer") from error

    def _vary(self, headers: dict[str, str]) -> dict[str, str]:
        """Say what the choice of the coding depended on, where there could have been one."""
        return headers if self._compressor is None else {**headers, "Vary": hdrs.ACCEPT_ENCODING}

    async def _read(self, copies: _Copies, start: int, length_bytes: int) -> bytes:
        """Read a part that fits into memory, from whichever copies have it.

        Raises:
            NotFound, NoDataset: none has.
        """
        parts: list[bytes] = []
        offset, end = start, start + length_bytes
        while offset < end:
            # Never past the end of a block: the next may have to come from another copy.
            part_bytes = min(end - offset, BLOCK_SIZE_BYTES - offset % BLOCK_SIZE_BYTES)
            try:
                parts.append(await self._pump.read(copies.current, offset, part_bytes))
            except OSError as error:
                await copies.fail_over(error, offset, copy_is_bad=not is_nobodys_fault(error))
            else:
                offset += part_bytes
        return b"".join(parts)  # which does not copy a single part

    async def _send(self, request: web.Request, out: Outlet, copies: _Copies, plan: Plan) -> None:
        offset, end = plan.start, plan.start + plan.length_bytes
        while offset < end:
            async with out.granted(self._budget, end - offset) as step_bytes:
                sent = await self._pump.send(out, copies.current, offset, offset + step_bytes)
            offset = sent.offset
            if sent.error is not None:
                if sent.in_doubt:
                    copies.give_up(sent.error, offset, copy_is_bad=True)
                    raise Io(f"{copies.current.sha256}: what was sent of it may be wrong")
                await copies.fail_over(sent.error, offset, copy_is_bad=sent.copy_is_bad)


def _has_preconditions(request: web.Request) -> bool:
    return hdrs.IF_NONE_MATCH in request.headers or hdrs.IF_MATCH in request.headers


def conditions_of(request: web.Request) -> Conditions:
    """The conditions of a request."""
    return Conditions(
        if_match=header(request, hdrs.IF_MATCH),
        if_none_match=header(request, hdrs.IF_NONE_MATCH),
        if_range=header(request, hdrs.IF_RANGE),
        byte_range=header(request, hdrs.RANGE),
    )


def refuse(request: web.Request, artifact: ArtifactHash, plan: Plan, size_bytes: int) -> None:
    """Raise what a plan to refuse the request is."""
    if plan.status == 412:
        raise PreconditionFailed(f"If-Match: expected {entity_tag(artifact)}")
    if plan.status == 416:
        raise RangeNotSatisfiable((header(request, hdrs.RANGE) or "")[:80], size_bytes)


def headers_of(artifact: ArtifactHash, plan: Plan, size_bytes: int) -> dict[str, str]:
    """The headers of an answer in the identity coding."""
    headers = {
        "ETag": entity_tag(artifact),
        "Repr-Digest": repr_digest(artifact),
        "Accept-Ranges": "bytes",
        "Cache-Control": CACHE_CONTROL,
    }
    if plan.status == 304:
        return headers
    headers["Content-Type"] = OCTETS
    headers["Content-Length"] = str(plan.length_bytes)
    if plan.status == 206:
        last = plan.start + plan.length_bytes - 1
        headers["Content-Range"] = f"bytes {plan.start}-{last}/{size_bytes}"
    return headers


def _zstd_headers(artifact: ArtifactHash, plan: Plan) -> dict[str, str]:
    # No Accept-Ranges, as a range of this representation is not to be had; and no Repr-Digest,
    # which would be that of the encoded bytes.
    headers = {
        "ETag": zstd_entity_tag(artifact),
        "Unencoded-Digest": repr_digest(artifact),
        "Cache-Control": CACHE_CONTROL,
    }
    if plan.status != 304:
        headers["Content-Type"] = OCTETS
        headers[hdrs.CONTENT_ENCODING] = "zstd"
    return headers
