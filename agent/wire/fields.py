"""What the bodies are made of: two kinds of them, and the types of their fields."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import pairwise
from typing import Annotated, Final, overload

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    FailFast,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from depot.artifact import MAX_GENERATION, ArtifactHash

MAX_SOURCES: Final = 16


MAX_URL_LENGTH: Final = 2048


def _unique_and_sorted(hashes: tuple[str, ...]) -> tuple[str, ...]:
    """Sort `hashes`, which are lower-case already; a repeated one is a mistake of the sender."""
    ordered = sorted(hashes)
    for one, another in pairwise(ordered):
        if one == another:
            raise ValueError(f"expected each hash once, found {one} twice")
    return tuple(ordered)


Sha256 = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True),
    WithJsonSchema(
        {"type": "string", "format": "hex string (32 bytes)", "pattern": "^[0-9a-fA-F]{64}$"}
    ),
]


Sha256Set = Annotated[
    tuple[Sha256, ...],
    FailFast(),
    AfterValidator(_unique_and_sorted),
    Field(json_schema_extra={"uniqueItems": True}),
]


GenerationNumber = Annotated[
    int, Field(ge=0, le=MAX_GENERATION, json_schema_extra={"format": "uint64"})
]


Count = Annotated[int, Field(ge=0)]


DatasetPath = Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern="^/")]


DepotUrl = Annotated[str, StringConstraints(max_length=MAX_URL_LENGTH)]


class Request(BaseModel):
    """A body that a client sends."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Answer(BaseModel):
    """A body that a server sends."""

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)


def texts(artifacts: Iterable[ArtifactHash]) -> tuple[str, ...]:
    """Render hashes for the wire: lower-case, sorted, each once."""
    return tuple(sorted({artifact.digest.hex() for artifact in artifacts}))


def hashes(checked: Iterable[str]) -> frozenset[ArtifactHash]:
    """Turn strings that a model has checked into hashes."""
    return frozenset(ArtifactHash(bytes.fromhex(text)) for text in checked)


@overload
def timestamp(unix_s: float) -> datetime: ...
@overload
def timestamp(unix_s: float | None) -> datetime | None: ...
def timestamp(unix_s: float | None) -> datetime | None:
    """Render Unix seconds for the wire."""
    return None if unix_s is None else datetime.fromtimestamp(unix_s, UTC)
