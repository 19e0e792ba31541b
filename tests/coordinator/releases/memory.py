"""A repository in memory, and python-tuf's own client looking at it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient.fetcher import FetcherInterface
from tuf.ngclient.updater import Updater

from coordinator.releases.repository import Body, Repository

URL: Final = "http://repository"


class MemoryRepository(Repository):
    """The files of a repository, by path."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    @property
    def file_name(self) -> str:
        return "memory"

    def fingerprint(self) -> None:
        """It is no one file."""

    def open(self, path: str, _most_bytes: int, /) -> Body | None:
        content = self._files.get(path)
        return None if content is None else MemoryBody(content)

    def close(self) -> None:
        """Nothing is held."""


class MemoryBody:
    def __init__(self, content: bytes) -> None:
        self._content = io.BytesIO(content)
        self.size_bytes = len(content)

    def read(self, size_bytes: int, /) -> bytes:
        return self._content.read(size_bytes)

    def close(self) -> None:
        """Nothing is held."""


class MemoryFetcher(FetcherInterface):
    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = files

    def _fetch(self, url: str) -> Iterator[bytes]:
        path = urlsplit(url).path.lstrip("/")
        if path not in self._files:
            raise DownloadHTTPError(f"no {path}", 404)
        return iter([self._files[path]])


def official_client(files: Mapping[str, bytes], root: bytes, directory: Path) -> Updater:
    """python-tuf's client, which judges by the time it is."""
    return Updater(
        str(directory), f"{URL}/metadata", None, None, MemoryFetcher(files), bootstrap=root
    )
