"""The values everything else is about: artifact hashes, generations and artifact configs.

Each type can only be made from valid input ("parse, don't validate"), so no code past this module
ever sees a path separator in a hash or a negative generation.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Self

from depot.errors import InvalidRequest

MAX_GENERATION: Final = 2**63 - 1
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, order=True)
class ArtifactHash:
    """The SHA-256 that names an artifact: exactly 32 bytes."""

    digest: bytes

    def __post_init__(self) -> None:
        if len(self.digest) != hashlib.sha256().digest_size:
            raise InvalidRequest(f"a SHA-256 has 32 bytes, found {len(self.digest)}")

    # Two of what is done most with a hash, in a fraction of the time of what is generated.

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[type[ArtifactHash], tuple[bytes]]:
        return ArtifactHash, (self.digest,)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 64 hex characters, upper or lower case.

        Raises:
            InvalidRequest: anything else.
        """
        if not _HEX.fullmatch(text):
            raise InvalidRequest(f"expected a SHA-256 of 64 hex characters, found {text[:80]!r}")
        return cls(bytes.fromhex(text))

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Hash `content`."""
        return cls(hashlib.sha256(content).digest())

    def __str__(self) -> str:
        """64 lower-case hex characters: the file name and the wire form."""
        return self.digest.hex()


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
        return cls(Generation(generation), frozenset(artifacts))

    @cached_property
    def digest(self) -> ArtifactHash:
        """SHA-256 over the generation and the sorted hashes: equal configs, equal digests."""
        content = hashlib.sha256(f"{int(self.generation)}\n".encode())
        for digest in sorted(artifact.digest for artifact in self.artifacts):
            content.update(digest)
        return ArtifactHash(content.digest())
