"""Archives by their URL."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote, urlsplit

from agent.snapshots.archive import Archive
from agent.snapshots.errors import InvalidArchive, LibraryMissing
from agent.snapshots.files import FileArchive
from agent.snapshots.values import snapshot_name
from depot.errors import InvalidRequest

KINDS: Final = "file:///directory, s3://bucket/prefix or fleet+http://coordinator:12340"


def open_archive(url: str, endpoint: str | None = None) -> Archive:
    """Open `file:///dir`, `s3://bucket/prefix` or `fleet+http://host:port`; nothing is asked yet.

    Args:
        url: where it is.
        endpoint: the server that speaks S3; None for what AWS_ENDPOINT_URL or Amazon says.

    Raises:
        InvalidArchive: it is no such URL.
        LibraryMissing: the library for it is not installed.
    """
    parts = urlsplit(url)
    if parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidArchive(f"{url}: has credentials, a query or a fragment")
    match parts.scheme:
        case "file":
            return FileArchive(_directory(url, parts))
        case "s3":
            return _bucket(url, parts, endpoint)
        case "fleet+http":
            return _fleet(url)
        case _:
            raise InvalidArchive(f"expected {KINDS} as archive, found {url!r}")


def _directory(url: str, parts: SplitResult) -> Path:
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        raise InvalidArchive(f"expected three slashes, as in file:///directory, found {url!r}")
    return Path(unquote(parts.path))


def _fleet(url: str) -> Archive:
    # It imports a client for HTTP, which the others do without.
    from agent.snapshots.fleet import FleetArchive

    try:
        return FleetArchive(url.removeprefix("fleet+"))
    except InvalidRequest as error:
        raise InvalidArchive(f"{url}: {error}") from error


def _bucket(url: str, parts: SplitResult, endpoint: str | None) -> Archive:
    if not parts.netloc:
        raise InvalidArchive(f"expected a bucket, as in s3://bucket/prefix, found {url!r}")
    prefix = parts.path.strip("/")
    if prefix:
        snapshot_name(prefix)
    try:
        from agent.snapshots.s3 import S3Archive
    except ImportError as error:
        raise LibraryMissing(
            f"{url}: the library for S3 is not installed; `pip install 'sled-depot[snapshots]'` "
            "brings it"
        ) from error
    return S3Archive(parts.netloc, prefix, endpoint)
