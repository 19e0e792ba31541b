"""Is this answer of a peer the artifact that was asked for? Pure; nothing is read from the body.

What is known before the first byte is judged here, so that a login page, a redirect or a wrong
length is not taken for an artifact; what the bytes are is for the hash alone to say. A depot is not
required to send a digest or an ETag (the reference depot sends neither), but one that is sent must
be that of the artifact, and one that is right vouches for an unlikely content type.

To a request for the rest of an artifact, a depot may also answer with the whole (200): `starts_at`
says where the body begins, and the reader drops what it has.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Final

from depot.artifact import ArtifactHash
from depot.errors import DepotCopy, TooLarge
from depot.http.relay_headers import depth_of

_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,19})-([0-9]{1,19})/([0-9]{1,19})", re.ASCII)
_OUR_ETAG: Final = re.compile(r'(?:W/)?"sha256:([^"]*)"')
_REPR_SHA256: Final = re.compile(r"(?:^|[\s,])sha-256=:([^:]*):")
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})
_WORTH_ANOTHER_TRY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class Asked:
    """What was asked of the peer: the artifact from byte `offset_bytes` on.

    Attributes:
        end_bytes: where to stop; None: at the artifact's end.
    """

    sha256: ArtifactHash
    offset_bytes: int
    max_artifact_size_bytes: int
    end_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """A body that may be the artifact.

    Attributes:
        starts_at_bytes: where the body begins in the artifact: the offset asked for, or 0.
        total_bytes: the artifact's size according to this peer; None when it does not say.
        ends_at_bytes: where the body ends in the artifact, when that is not at its end.
        depth: how many relays the bytes come through; 0: this peer holds the artifact.
    """

    starts_at_bytes: int
    total_bytes: int | None
    ends_at_bytes: int | None = None
    depth: int = 0

    @property
    def length_bytes(self) -> int | None:
        """Size of the body; None when it ends where it ends."""
        end = self.total_bytes if self.ends_at_bytes is None else self.ends_at_bytes
        return None if end is None else end - self.starts_at_bytes


def judge_answer(status: int, headers: Mapping[str, str], asked: Asked) -> PeerAnswer:
    """Accept or refuse what a peer answered. Header names are looked up without regard to case.

    Raises:
        DepotCopy: not the artifact; `transient` when the same peer may do better later.
        TooLarge: larger than any artifact may be.
    """
    partial = _judge_status(status, headers, asked)
    _judge_coding(headers)
    vouched = _judge_identity(headers, asked.sha256)
    _judge_content_type(headers, vouched=vouched)
    length = _content_length(headers)
    answer = _partial(headers, length, asked) if partial else PeerAnswer(0, length)
    if answer.total_bytes is not None and answer.total_bytes > asked.max_artifact_size_bytes:
        raise TooLarge(
            f"an artifact has at most {asked.max_artifact_size_bytes} bytes here, "
            f"the source announces {answer.total_bytes}"
        )
    return replace(answer, depth=depth_of(headers))


def _judge_status(status: int, headers: Mapping[str, str], asked: Asked) -> bool:
    """Whether it is a partial answer."""
    if status == HTTPStatus.OK:
        return False
    asked_for_a_part = asked.offset_bytes > 0 or asked.end_bytes is not None
    if status == HTTPStatus.PARTIAL_CONTENT and asked_for_a_part:
        return True
    if 300 <= status < 400:
        target = headers.get("Location", "nowhere")[:200]
        raise DepotCopy(f"it redirects ({status}) to {target!r}; redirects are not followed")
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        raise DepotCopy(f"it has nothing from byte {asked.offset_bytes} on (416)")
    raise DepotCopy(
        f"expected 200, it answered {status} {_phrase(status)}".rstrip(),
        transient=status in _WORTH_ANOTHER_TRY,
    )


def _judge_identity(headers: Mapping[str, str], sha256: ArtifactHash) -> bool:
    """Whether the peer says itself that this is the artifact; refused if it says it is not."""
    etag = _OUR_ETAG.fullmatch(headers.get("ETag", ""))
    if etag and etag[1].lower() != str(sha256):
        raise DepotCopy(f"its ETag names another artifact: {etag[1][:80]!r}")
    digest = _REPR_SHA256.search(headers.get("Repr-Digest", ""))
    if digest and digest[1] != base64.b64encode(sha256.digest).decode():
        raise DepotCopy(f"its Repr-Digest is of other bytes: {digest[1][:80]!r}")
    return bool(etag or digest)


def _judge_coding(headers: Mapping[str, str]) -> None:
    coding = headers.get("Content-Encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise DepotCopy(f"it sends the bytes encoded as {coding[:80]!r} without having been asked")


def _judge_content_type(headers: Mapping[str, str], *, vouched: bool) -> None:
    media_type = headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if media_type in _PAGES and not vouched:
        raise DepotCopy(f"it sends a page ({media_type}) where an artifact was expected")


def _content_length(headers: Mapping[str, str]) -> int | None:
    # A coded transfer has no length, whatever Content-Length stands beside it (RFC 9112, 6.3).
    if "Transfer-Encoding" in headers or "Content-Length" not in headers:
        return None
    text = headers["Content-Length"]
    if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII):
        raise DepotCopy(f"its Content-Length is no length: {text[:80]!r}")
    return int(text)


def _partial(headers: Mapping[str, str], length: int | None, asked: Asked) -> PeerAnswer:
    text = headers.get("Content-Range", "")
    match = _CONTENT_RANGE.fullmatch(text)
    first, last, total = map(int, match.groups()) if match else (-1, -1, -1)
    end = total if asked.end_bytes is None else min(asked.end_bytes, total)
    if first != asked.offset_bytes or last + 1 != end or length not in (None, end - first):
        wanted = "the end" if asked.end_bytes is None else str(asked.end_bytes)
        raise DepotCopy(
            f"asked for bytes from {asked.offset_bytes} to {wanted}, "
            f"found Content-Range {text[:80]!r} and Content-Length {length}"
        )
    return PeerAnswer(first, total, None if asked.end_bytes is None else end)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return ""
