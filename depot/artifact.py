"""The values everything else is about: artifact hashes, generations and artifact configs.

Each type can only be made from valid input ("parse, don't validate"), so no code past this module
ever sees a path separator in a hash or a negative generation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from operator import lt
from typing import Final, Self

from depot.errors import InvalidRequest

MAX_GENERATION: Final = 2**63 - 1
DIGEST_BYTES: Final = hashlib.sha256().digest_size
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


def counted(text: str) -> str:
    """Show what should be a hash; one of the wrong length by that, which nobody counts by eye."""
    if re.fullmatch(r"[0-9a-fA-F]+", text, re.ASCII):
        return f"{len(text)} digits: {text[:80]!r}"
    return repr(text[:80])


class ArtifactHash(bytes):
    """The SHA-256 that names an artifact: exactly 32 bytes.

    It is those bytes and nothing around them, because a node looks up, compares and keeps hundreds
    of thousands: so that costs what it costs the interpreter, in time and in memory.
    """

    __slots__ = ()

    def __new__(cls, digest: bytes) -> Self:
        """Raises InvalidRequest unless `digest` has 32 bytes."""
        if len(digest) != DIGEST_BYTES:
            raise InvalidRequest(f"a SHA-256 has {DIGEST_BYTES} bytes, found {len(digest)}")
        return super().__new__(cls, digest)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 64 hex characters, upper or lower case.

        Raises:
            InvalidRequest: anything else.
        """
        if not _HEX.fullmatch(text):
            raise InvalidRequest(f"expected a SHA-256 of 64 hex characters, found {counted(text)}")
        return cls(bytes.fromhex(text))

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Hash `content`."""
        return cls(hashlib.sha256(content).digest())

    @classmethod
    def divide(cls, digests: bytes | bytearray) -> list[Self]:
        """Cut many hashes, one after the other, apart; what is left at the end is no hash."""
        make, size = super().__new__, DIGEST_BYTES
        return [
            make(cls, digests[at : at + size]) for at in range(0, len(digests) - size + 1, size)
        ]

    @property
    def digest(self) -> bytes:
        """The 32 bytes as plain bytes."""
        return bytes(self)

    def __str__(self) -> str:
        """64 lower-case hex characters: the file name and the wire form."""
        return self.hex()

    def __repr__(self) -> str:
        """How it is made."""
        return f"ArtifactHash.parse({self.hex()!r})"


def in_order(artifacts: Iterable[ArtifactHash]) -> tuple[ArtifactHash, ...]:
    """Sort artifacts.

    By their first byte to begin with, because one sort of 100,000 would keep every other thread
    from running for as long as it takes.
    """
    by_first_byte: list[list[ArtifactHash]] = [[] for _ in range(256)]
    for artifact in artifacts:
        by_first_byte[artifact[0]].append(artifact)
    for some in by_first_byte:
        some.sort()
    return tuple(chain.from_iterable(by_first_byte))


def shared(
    artifacts: Iterable[ArtifactHash], known: Iterable[ArtifactHash]
) -> Iterator[ArtifactHash]:
    """The same artifacts, by the objects of `known` where there are any.

    One object for each artifact, wherever it is kept, is a hundred bytes less for each place, and
    two that are one object are compared at once.
    """
    there = {artifact: artifact for artifact in known}
    artifacts = tuple(artifacts)
    return map(there.get, artifacts, artifacts)


class Generation(int):
    """A config's place in the order of configs: 0 .. 2^63-1, higher is newer."""

    def __new__(cls, value: int) -> Self:
        """Raises InvalidRequest when `value` is out of range or not a plain integer."""
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidRequest(f"a generation is an integer, found {value!r}")
        if not 0 <= value <= MAX_GENERATION:
            raise InvalidRequest(f"a generation is 0 .. 2^63-1, found {value}")
        return super().__new__(cls, value)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ASCII digits as they stand in a query string.

        Raises:
            InvalidRequest: anything else.
        """
        if not re.fullmatch(r"[0-9]{1,19}", text, re.ASCII):
            raise InvalidRequest(f"a generation is 0 .. 2^63-1 in digits, found {text[:40]!r}")
        return cls(int(text))


@dataclass(frozen=True)
class ArtifactConfig:
    """What a sled is to hold: the set of artifacts, and the generation that set it."""

    generation: Generation
    artifacts: frozenset[ArtifactHash]

    @classmethod
    def make(cls, generation: int, artifacts: Iterable[ArtifactHash]) -> Self:
        """Build a config from any integer and any iterable of hashes."""
        listed = tuple(artifacts)
        config = cls(Generation(generation), frozenset(listed))
        if all(map(lt, listed, islice(listed, 1, None))):  # as they are written down
            vars(config)["ordered"] = listed
        return config

    @cached_property
    def ordered(self) -> tuple[ArtifactHash, ...]:
        """The artifacts, sorted."""
        return in_order(self.artifacts)

    @cached_property
    def digest(self) -> ArtifactHash:
        """SHA-256 over the generation and the sorted hashes: equal configs, equal digests."""
        content = hashlib.sha256(f"{int(self.generation)}\n".encode())
        content.update(b"".join(self.ordered))
        return ArtifactHash(content.digest())
