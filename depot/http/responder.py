"""The answer to a request for an artifact: headers, the part that was asked for, fail-over.

Rules kept here:
- Both mirrors and every node give the same headers for the same artifact: the entity tag is its
  hash, and there is no modification date.
- A copy that cannot be read is left for the other mirror at the exact byte where it failed. When
  that one fails too, further on, the first is asked for this part: each may be bad elsewhere. When
  no copy has it the connection is cut short of Content-Length: never a clean end (B2).
- What fits into memory is read before the head is sent, so that its failure is a proper refusal.
"""

from __future__ import annotations

import base64
import errno
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Protocol, Self

import structlog
from aiohttp import hdrs, web

from depot.artifact import ArtifactHash
from depot.blocks import BLOCK_SIZE_BYTES
from depot.errors import NotFound, PreconditionFailed, RangeNotSatisfiable
from depot.http.conditional import Conditions, Plan, entity_tag, plan_answer
from depot.http.openapi import OCTETS
from depot.http.outlet import Outlet, outlet
from depot.http.pump import Pump
from depot.http.requests import header
from depot.reading import OpenArtifact
from depot.sources import Pace
from depot.worker import describe_error

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


def repr_digest(artifact: ArtifactHash) -> str:
    """The `Repr-Digest` (RFC 9530) of an artifact's bytes."""
    return f"sha-256=:{base64.b64encode(artifact.digest).decode()}:"


@dataclass(slots=True)
class _Failed:
    """A copy that failed, still open: what follows `offset` may be good."""

    copy: OpenArtifact
    offset: int
    readable: bool


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
        self._give_up(error, offset, copy_is_bad=copy_is_bad)
        try:
            await self._open_next(offset)
        except NotFound:
            # Nobody waits twice for a device that hangs, so only what was read and bad is retried.
            for failed in self._failed.values():
                if failed.readable and failed.offset < offset:
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
            self._give_up(OSError(errno.EINVAL, wrong_size), offset, copy_is_bad=True)

    def _give_up(self, error: OSError, offset: int, *, copy_is_bad: bool) -> None:
        failed = self.current
        log.error(
            "artifact copy failed while it was sent",
            sha256=str(failed.sha256),
            dataset=failed.dataset,
            offset=offset,
            reason=describe_error(error),
        )
        # Said once: a file that took its place since is another one.
        if copy_is_bad and failed.dataset not in self._failed:
            self._store.read_failed(failed, error)
        self._failed[failed.dataset] = _Failed(failed, offset, error.errno == errno.EIO)


class ArtifactResponder:
    """Answers requests for artifacts from a store."""

    def __init__(self, store: ArtifactReader, pump: Pump, pace: Pace) -> None:
        self._store = store
        self._pump = pump
        self._pace = pace

    async def respond(self, request: web.Request, artifact: ArtifactHash) -> web.StreamResponse:
        """Answer a GET or HEAD.

        Raises:
            NoDataset, NotFound, PreconditionFailed, RangeNotSatisfiable.
        """
        opened = await self._store.open_artifact(artifact, to_read=request.method != "HEAD")
        with _Copies(self._store, opened) as copies:
            plan = _plan(request, artifact, copies.size_bytes)
            headers = _headers(artifact, plan, copies.size_bytes)
            if request.method == "HEAD" or plan.status == 304:
                return web.StreamResponse(status=plan.status, headers=headers)
            if plan.length_bytes <= IN_MEMORY_BYTES:
                content = await self._read(copies, plan)
                return web.Response(status=plan.status, headers=headers, body=content)
            response = web.StreamResponse(status=plan.status, headers=headers)
            await response.prepare(request)
            async with outlet(request, self._pace) as out:
                await self._send(request, out, copies, plan)
            return response

    async def _read(self, copies: _Copies, plan: Plan) -> bytes:
        content = bytearray()
        while len(content) < plan.length_bytes:
            # Never past the end of a block: the next may have to come from another copy.
            start = plan.start + len(content)
            most_bytes = BLOCK_SIZE_BYTES - start % BLOCK_SIZE_BYTES
            length_bytes = min(plan.length_bytes - len(content), most_bytes)
            try:
                content += await self._pump.read(copies.current, start, length_bytes)
            except OSError as error:
                await copies.fail_over(error, start, copy_is_bad=True)
        return bytes(content)

    async def _send(self, request: web.Request, out: Outlet, copies: _Copies, plan: Plan) -> None:
        offset, end = plan.start, plan.start + plan.length_bytes
        while True:
            sent = await self._pump.send(out, copies.current, offset, end)
            if sent.error is None:
                return
            offset = sent.offset
            await copies.fail_over(sent.error, offset, copy_is_bad=sent.copy_is_bad)


def _plan(request: web.Request, artifact: ArtifactHash, size_bytes: int) -> Plan:
    conditions = Conditions(
        if_match=header(request, hdrs.IF_MATCH),
        if_none_match=header(request, hdrs.IF_NONE_MATCH),
        if_range=header(request, hdrs.IF_RANGE),
        byte_range=header(request, hdrs.RANGE),
    )
    plan = plan_answer(request.method, size_bytes, entity_tag(artifact), conditions)
    if plan.status == 412:
        raise PreconditionFailed(f"If-Match: expected {entity_tag(artifact)}")
    if plan.status == 416:
        raise RangeNotSatisfiable((conditions.byte_range or "")[:80], size_bytes)
    return plan


def _headers(artifact: ArtifactHash, plan: Plan, size_bytes: int) -> dict[str, str]:
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
