"""The bodies that name every artifact of a config, read and written without an object for each.

They are what the models of `agent.wire` say, which the description of the API is made of, and whose
messages a client gets for a body that is none. These functions are for a thread: none of their
steps keeps the others from running for long, however many artifacts there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from agent.wire.config import ArtifactConfigBody
from depot import hash_lists
from depot.artifact import ArtifactConfig, ArtifactHash, in_order
from depot.errors import InvalidRequest
from depot.http.requests import parse_json
from depot.reading.answers import CopyCounts, Listing


def parse_config(content: bytes) -> ArtifactConfig:
    """Read an `ArtifactConfigBody`.

    Raises:
        InvalidRequest: it is none.
    """
    config = _plain_config(content) or parse_json(content, ArtifactConfigBody).config()
    _ = config.digest  # worked out here and kept: it is compared on the event loop
    return config


def _plain_config(content: bytes) -> ArtifactConfig | None:
    """Read one whose hashes are written as every JSON writer does; None: it takes a parser."""
    divided = hash_lists.cut(content, any_case=True)
    if divided is None:
        return None
    try:
        body = parse_json(divided.rest, ArtifactConfigBody)
    except InvalidRequest:
        return None  # what is wrong is said of the whole
    config = ArtifactConfig.make(body.generation, divided.hashes)
    return config if len(config.artifacts) == len(divided.hashes) else None


def render_config(config: ArtifactConfig) -> bytes:
    """Write an `ArtifactConfigBody`."""
    hashes = "".join(hash_lists.texts(config.ordered, ","))
    return f'{{"generation":{int(config.generation)},"artifacts":[{hashes}]}}'.encode()


def render_listing(listing: Listing) -> bytes:
    """Write an `ArtifactListBody`, sorted by hash."""
    counts = ",".join(_counts(listing))
    return f'{{"generation":{int(listing.generation)},"list":{{{counts}}}}}'.encode()


def _counts(listing: Listing) -> Iterator[str]:
    for some, count in _runs(listing):
        hashes = hash_lists.texts(some, f":{count},")
        yield f"{''.join(hashes)}:{count}"


def _runs(listing: Listing) -> Iterable[tuple[Sequence[ArtifactHash], int]]:
    copies = listing.copies
    if isinstance(copies, CopyCounts):
        return copies.runs()
    return [([artifact], copies[artifact]) for artifact in in_order(copies)]
