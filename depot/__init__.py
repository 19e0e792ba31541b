"""Content-addressed storage on mirrored datasets, and the repo depot API.

A library: no process, no argv, no signals. The names below are the public interface; see
`docs/python-api.md`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from depot.artifact import ArtifactConfig, ArtifactHash, Generation
    from depot.client import DepotClient
    from depot.errors import DepotError
    from depot.initialise import InitReport, init_datasets
    from depot.mirrors.open_artifact import OpenArtifact
    from depot.options import StoreOptions
    from depot.reading.answers import ArtifactDetail, CopyDetail, Listing
    from depot.store import ArtifactStore
    from depot.streams.sources import FileSource, Source
    from depot.writing.put import Put
    from depot.writing.stored import Stored

__all__ = [
    "ArtifactConfig",
    "ArtifactDetail",
    "ArtifactHash",
    "ArtifactStore",
    "CopyDetail",
    "DepotClient",
    "DepotError",
    "FileSource",
    "Generation",
    "InitReport",
    "Listing",
    "OpenArtifact",
    "Put",
    "Source",
    "StoreOptions",
    "Stored",
    "init_datasets",
]

# Looked up when first asked for: a dataset's worker process starts without the HTTP libraries.
_HOMES: Final = {
    "ArtifactConfig": "depot.artifact",
    "ArtifactDetail": "depot.reading.answers",
    "ArtifactHash": "depot.artifact",
    "ArtifactStore": "depot.store",
    "CopyDetail": "depot.reading.answers",
    "DepotClient": "depot.client",
    "DepotError": "depot.errors",
    "FileSource": "depot.streams.sources",
    "Generation": "depot.artifact",
    "InitReport": "depot.initialise",
    "Listing": "depot.reading.answers",
    "OpenArtifact": "depot.mirrors.open_artifact",
    "Put": "depot.writing.put",
    "Source": "depot.streams.sources",
    "StoreOptions": "depot.options",
    "Stored": "depot.writing.stored",
    "init_datasets": "depot.initialise",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used."""
    if name not in _HOMES:
        raise AttributeError(f"module 'depot' has no attribute {name!r}")
    found: object = getattr(import_module(_HOMES[name]), name)
    globals()[name] = found
    return found
