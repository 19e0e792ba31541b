"""What archives, publishers and downloads pass to each other.

Rules kept here:
- A `Version` is exactly one object: no bytes of another are ever read for it, whatever is published
  meanwhile.
- The checksum is of the snapshot itself, not of what compression made of it: it is checked where
  the bytes are used.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final, Self

from agent.snapshots.errors import InvalidArchive, Malformed

CHECKSUM_BYTES: Final = 32
ZSTD: Final = "zstd"
MIDSTATES: Final = "checksum-midstates"
_MIDSTATES: Final = re.compile(r"([1-9][0-9]{0,17}):([A-Za-z0-9+/=]+)", re.ASCII)
# What is safe in a path, an object's key and a URL alike.
_PART: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)
_MAX_NAME: Final = 512
SIDECAR_SUFFIX: Final = ".meta.json"
VERSIONS_SUFFIX: Final = ".versions"


@dataclass(frozen=True, slots=True)
class Checksum:
    """A SHA-256; base64 where people and archives see it."""

    digest: bytes

    def __post_init__(self) -> None:
        assert len(self.digest) == CHECKSUM_BYTES

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what an archive has.

        Raises:
            Malformed: it is not the base64 of 32 bytes.
        """
        try:
            digest = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            digest = b""
        if len(digest) != CHECKSUM_BYTES:
            raise Malformed(f"expected the base64 of a SHA-256 as checksum, found {text!r}")
        return cls(digest)

    def __str__(self) -> str:
        return base64.b64encode(self.digest).decode("ascii")


@dataclass(frozen=True, slots=True)
class Midstates:
    """States of the SHA-256 on its way through a snapshot, so that it can be taken up there.

    Attributes:
        stride_bytes: how far they are apart.
        states: of 32 bytes each, the first one after the first stride.
    """

    stride_bytes: int
    states: tuple[bytes, ...]

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read what an archive has; None for what makes no sense: nobody needs it."""
        found = _MIDSTATES.fullmatch(text)
        try:
            joined = base64.b64decode(found[2], validate=True) if found else b""
        except binascii.Error:
            return None
        if found is None or len(joined) % CHECKSUM_BYTES:
            return None
        starts = range(0, len(joined), CHECKSUM_BYTES)
        return cls(int(found[1]), tuple(joined[at : at + CHECKSUM_BYTES] for at in starts))

    def __str__(self) -> str:
        return f"{self.stride_bytes}:{base64.b64encode(b''.join(self.states)).decode('ascii')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a publisher says of a snapshot.

    Attributes:
        checksum: of the snapshot; None when it was published by something else.
        size_bytes: of the snapshot, not of what is stored.
        version: what the publisher calls it.
        created: when it was published.
        compression: what it was stored with; None for nothing.
        midstates: of the hash that ends in the checksum; a hint, and no part of what is said.
    """

    checksum: Checksum | None = None
    size_bytes: int | None = None
    version: str | None = None
    created: datetime | None = None
    compression: str | None = None
    midstates: Midstates | None = field(default=None, compare=False)

    @classmethod
    def parse(cls, items: Mapping[str, str]) -> Self:
        """Read what an archive keeps; what is not ours in it is let be.

        Raises:
            Malformed: one of ours makes no sense.
        """
        compression = items.get("compression") or None
        if compression not in (None, ZSTD):
            raise Malformed(f"expected {ZSTD} as compression, found {compression!r}")
        text, size, created = items.get("checksum"), items.get("size"), items.get("created")
        midstates = items.get(MIDSTATES)
        return cls(
            checksum=Checksum.parse(text) if text else None,
            size_bytes=_size(size) if size else None,
            version=items.get("version") or None,
            created=_time(created) if created else None,
            compression=compression,
            midstates=Midstates.parse(midstates) if midstates else None,
        )

    def items(self) -> dict[str, str]:
        """What an archive is to keep: text, with nothing but ASCII."""
        found = {
            "checksum": None if self.checksum is None else str(self.checksum),
            "size": None if self.size_bytes is None else str(self.size_bytes),
            "version": self.version,
            "created": None if self.created is None else self.created.astimezone(UTC).isoformat(),
            "compression": self.compression,
            MIDSTATES: None if self.midstates is None else str(self.midstates),
        }
        return {key: value for key, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Version:
    """Exactly one object of an archive.

    Attributes:
        name: of the snapshot.
        id: of the version, where the archive keeps several; else None.
        tag: what tells this content from any other under the same name.
    """

    name: str
    id: str | None
    tag: str

    def __str__(self) -> str:
        return self.id or self.tag


@dataclass(frozen=True, slots=True)
class Head:
    """What an archive says of a version. `stored_bytes` is what it has, compressed or not."""

    version: Version
    stored_bytes: int
    metadata: Metadata


@dataclass(frozen=True, slots=True)
class Listed:
    """A version among others."""

    version: Version
    stored_bytes: int
    stored_at: datetime


def snapshot_name(text: str) -> str:
    """Check a name: parts of letters, digits, `.`, `_` and `-`, with slashes in between.

    Raises:
        InvalidArchive: it is another, or one that an archive uses for itself.
    """
    parts = text.split("/")
    if len(text) > _MAX_NAME or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidArchive(
            f"expected a name of letters, digits, '.', '_', '-' and '/', found {text!r}"
        )
    if any(part.endswith((SIDECAR_SUFFIX, VERSIONS_SUFFIX)) for part in parts):
        raise InvalidArchive(f"{text}: the archive itself uses names that end like this")
    return text


def _size(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,18}", text, re.ASCII):
        raise Malformed(f"expected a size in bytes, found {text!r}")
    return int(text)


def _time(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise Malformed(f"expected a time as in ISO 8601, found {text!r}") from None
    try:
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:  # its offset leads out of the calendar
        raise Malformed(f"expected a time of this era, found {text!r}") from None
