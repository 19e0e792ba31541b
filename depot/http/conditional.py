"""Pure: which part of a representation, if any, a conditional or range request is to get.

RFC 9110 sections 13 and 14 for representations with strong entity tags and no modification
date. What the RFC lets a server ignore, and what is malformed, is ignored here: the answer is then
the whole representation, which is never wrong. Preconditions are evaluated in the RFC's order.

An artifact has two representations, its bytes and their zstd coding, each with a tag of its own. A
range is always of the bytes. Which one is sent is for the server to choose, so a precondition that
one of them meets decides for that one.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, replace
from typing import Final

from depot.artifact import ArtifactHash
from depot.http.negotiation import Wish

_ENTITY_TAG: Final = r'(?:W/)?"[\x21\x23-\x7e\x80-\U0010ffff]*"'
_TAG_LIST: Final = re.compile(rf"[\s,]*{_ENTITY_TAG}(?:\s*,[\s,]*{_ENTITY_TAG})*[\s,]*")
_TAGS: Final = re.compile(_ENTITY_TAG)
_ONE_RANGE: Final = re.compile(r"bytes=[ \t,]*([0-9]*)-([0-9]*)[ \t,]*", re.ASCII | re.IGNORECASE)
# A number with more digits than this is past the end of any file.
_MAX_DIGITS: Final = len(str(sys.maxsize)) - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The request's headers that matter, each None when it is absent."""

    if_match: str | None = None
    if_none_match: str | None = None
    if_range: str | None = None
    byte_range: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to answer.

    Attributes:
        status: 200, 206, 304, 412 or 416.
        start: offset of the first byte to send.
        length_bytes: how many to send; 0 for 304, 412 and 416.
    """

    status: int
    start: int = 0
    length_bytes: int = 0


def entity_tag(artifact: ArtifactHash) -> str:
    """The strong entity tag of an artifact's bytes: the same on every mirror and every node."""
    return f'"sha256:{artifact}"'


def zstd_entity_tag(artifact: ArtifactHash) -> str:
    """The entity tag of an artifact's zstd coding."""
    return f'"sha256:{artifact};zstd"'


@dataclass(frozen=True, slots=True)
class Choice:
    """The answers that are possible, one for each coding.

    Attributes:
        identity: in the identity coding.
        zstd: 200 or 304 in the zstd coding; None when that is none of the choices.
        needs_zstd: the client refuses the bytes themselves, or asks for the other representation.
    """

    identity: Plan
    zstd: Plan | None = None
    needs_zstd: bool = False

    @property
    def sends_nothing(self) -> bool:
        """Tell whether not a byte of the artifact is needed for the answer to a GET."""
        plan = self.identity if self.zstd is None else self.zstd
        return plan.status not in (200, 206)


def plan_choice(
    method: str, size_bytes: int, artifact: ArtifactHash, conditions: Conditions, wish: Wish
) -> Choice:
    """Decide the answers to a GET or HEAD of an artifact of `size_bytes`, in either coding."""
    identity = plan_answer(method, size_bytes, entity_tag(artifact), conditions)
    if wish is Wish.IDENTITY:
        return Choice(identity)
    whole = replace(conditions, byte_range=None)
    zstd = plan_answer(method, size_bytes, zstd_entity_tag(artifact), whole)
    if zstd.status == 412 or (wish is Wish.ZSTD and identity.status in (206, 304, 416)):
        return Choice(identity)
    return Choice(identity, zstd, wish is Wish.ONLY_ZSTD or identity.status == 412)


def plan_answer(method: str, size_bytes: int, etag: str, conditions: Conditions) -> Plan:
    """Decide the answer to a GET or HEAD of a representation of `size_bytes` with `etag`."""
    if conditions.if_match is not None and not _matches_strongly(conditions.if_match, etag):
        return Plan(412)
    if conditions.if_none_match is not None and _matches_weakly(conditions.if_none_match, etag):
        return Plan(304)
    # Only GET has ranges, and If-Range asks for the whole unless it names this representation.
    if method != "GET" or conditions.byte_range is None or conditions.if_range not in (None, etag):
        return Plan(200, 0, size_bytes)
    return _plan_range(conditions.byte_range.strip(), size_bytes)


def _plan_range(header: str, size_bytes: int) -> Plan:
    match = _ONE_RANGE.fullmatch(header)
    first, last = match.groups() if match else ("", "")
    if first:
        return _from_first(_number(first), _number(last) if last else None, size_bytes)
    if last:
        return _suffix(_number(last), size_bytes)
    return Plan(200, 0, size_bytes)


def _from_first(first: int, last: int | None, size_bytes: int) -> Plan:
    if last is not None and last < first:
        return Plan(200, 0, size_bytes)
    if first >= size_bytes:
        return Plan(416)
    end = size_bytes if last is None else min(last + 1, size_bytes)
    return Plan(206, first, end - first)


def _suffix(wanted_bytes: int, size_bytes: int) -> Plan:
    if wanted_bytes == 0:
        return Plan(416)
    if size_bytes == 0:
        # Satisfiable, says the RFC, yet Content-Range cannot say "no bytes": the whole it is.
        return Plan(200, 0, 0)
    length_bytes = min(wanted_bytes, size_bytes)
    return Plan(206, size_bytes - length_bytes, length_bytes)


def _number(digits: str) -> int:
    significant = digits.lstrip("0")
    return int(significant or "0") if len(significant) <= _MAX_DIGITS else sys.maxsize


def _matches_strongly(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in _tags(header)


def _matches_weakly(header: str, etag: str) -> bool:
    return header.strip() == "*" or etag in {tag.removeprefix("W/") for tag in _tags(header)}


def _tags(header: str) -> list[str]:
    return _TAGS.findall(header) if _TAG_LIST.fullmatch(header) else []
