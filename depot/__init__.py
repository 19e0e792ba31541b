"""Content-addressed storage on mirrored datasets, and the repo depot API.

A library: no process, no argv, no signals. The names below are the public interface; see
`docs/python-api.md`.
"""

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.client import DepotClient
from depot.errors import DepotError
from depot.initialise import InitReport, init_datasets
from depot.put import Put, Stored
from depot.reading import ArtifactDetail, CopyDetail, Listing, OpenArtifact
from depot.sources import FileSource, Source
from depot.store import ArtifactStore, StoreOptions

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
