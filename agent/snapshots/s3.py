"""An archive in a bucket: `s3://bucket/prefix`, of any server that speaks S3.

A snapshot NAME is the object `prefix/NAME`; what is said of it is the object's own metadata.

Rules kept here:
- Where the bucket keeps versions, a version is read by its id; everywhere, only while its entity
  tag is the one that the head had. A bucket without versions can thus lose a version to a newer
  one, but never give bytes of both.
- Parts are uploaded side by side and become an object only when all of them are there: what is
  larger than MULTIPART_BYTES never lies there half.
- Imported only when such an archive is opened: the library takes 30 MiB and a third of a second.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from http import HTTPStatus
from itertools import chain, islice
from typing import Any, Final

import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    ResponseStreamingError,
)
from botocore.exceptions import (
    ConnectionError as BotoConnectionError,
)
from botocore.loaders import create_loader
from urllib3.exceptions import HTTPError

from agent.snapshots.errors import Gone, Refused, SnapshotError, Truncated, Unreachable
from agent.snapshots.parts import side_by_side, sized
from agent.snapshots.values import Head, Listed, Metadata, Version

MULTIPART_BYTES: Final = 64 << 20
"""What is larger is sent in parts."""
PIECE_BYTES: Final = 16 << 20
MAX_PIECES: Final = 9_000  # an object has at most 10,000; a source may turn out a bit larger
BLOCK_BYTES: Final = 1 << 20
CONNECT_TIMEOUT_S: Final = 10
READ_TIMEOUT_S: Final = 30
PARTS_AT_ONCE: Final = 4
CONNECTIONS: Final = 16
_WRITE_ATTEMPTS: Final = 6
# Where nothing says which region: what servers other than Amazon's take, and Amazon's default.
_REGION: Final = "us-east-1"
# What was stored while the bucket kept none has this one, and can be replaced.
_STORED_BEFORE: Final = "null"
_NO_VERSION: Final = frozenset({None, "", _STORED_BEFORE})
# The last is what a version answers that says "deleted".
_GONE: Final = frozenset(
    {HTTPStatus.NOT_FOUND, HTTPStatus.PRECONDITION_FAILED, HTTPStatus.METHOD_NOT_ALLOWED}
)
_BUSY: Final = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS})
_BUSY_CODES: Final = frozenset({"RequestTimeout", "SlowDown", "Throttling", "InternalError"})
_CONNECTION: Final = (
    BotoConnectionError,
    HTTPClientError,
    IncompleteReadError,
    ResponseStreamingError,
    HTTPError,
)

# Reads what is known of each service, a tenth of a second, once.
_LOADER: Final = create_loader()

Call = Callable[..., Mapping[str, Any]]


class S3Archive:
    """Snapshots in a bucket. The credentials come from where the AWS SDK looks for them."""

    def __init__(
        self,
        bucket: str,
        prefix: str,
        endpoint: str | None,
    ) -> None:
        self.url = f"s3://{bucket}/{prefix}".rstrip("/")
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        session = botocore.session.get_session()
        session.register_component("data_loader", _LOADER)
        # Whoever reads tries again itself, from where it was; a part is sent again from here.
        self._reading, self._writing = (
            _client(session, endpoint, attempts) for attempts in (1, _WRITE_ATTEMPTS)
        )

    def head(self, name: str) -> Head:
        """See Archive."""
        try:
            found = self._call(self._reading.head_object, Key=self._key(name))
        except Gone:
            # The answer to a HEAD has no body that would tell which of the two is not there.
            self._require_bucket()
            raise
        if "ETag" not in found:
            raise Refused(
                f"{self.url}: says no entity tag of {name}: versions cannot be told apart"
            )
        version = _version(name, found.get("VersionId"), found["ETag"])
        # Names of headers: many servers answer them with capitals.
        said = {key.lower(): value for key, value in found.get("Metadata", {}).items()}
        return Head(version, found["ContentLength"], Metadata.parse(said))

    def read(self, version: Version, start: int, stop: int) -> Iterator[bytes]:
        """See Archive."""
        if start >= stop:
            return
        found = self._call(
            self._reading.get_object,
            Key=self._key(version.name),
            IfMatch=version.tag,
            Range=f"bytes={start}-{stop - 1}",
            **_exactly(version),
        )
        with closing(found["Body"]) as body:
            self._check(version, found, start, stop)
            try:
                while start < stop:
                    block = body.read(min(BLOCK_BYTES, stop - start))
                    if not block:
                        raise Unreachable(
                            f"{self.url}: the answer ended {stop - start} bytes early"
                        )
                    start += len(block)
                    yield block
            except _CONNECTION as error:
                raise Unreachable(f"{self.url}: {error}") from error

    def put(self, name: str, blocks: Iterable[bytes], metadata: Metadata) -> Version:
        """See Archive."""
        found = self._put(self._key(name), blocks, metadata)
        return _version(name, found.get("VersionId"), found["ETag"])

    def versions(self, name: str) -> Sequence[Listed]:
        """See Archive."""
        key = self._key(name)
        pages = self._reading.get_paginator("list_object_versions")
        with _errors(self.url):
            entries = [
                each
                for page in pages.paginate(Bucket=self._bucket, Prefix=key)
                for each in page.get("Versions", ())
                if each["Key"] == key
            ]
        entries.sort(key=_newest_first, reverse=True)
        return [_listed(name, each) for each in entries]

    def delete(self, version: Version) -> None:
        """See Archive."""
        with suppress(Gone):
            newest = self.head(version.name).version
            if newest == version:
                raise Refused(f"{version.name}: version {version} is the newest")
            if newest.id is None and version.id is None:
                return  # the bucket keeps one, and this is not the one
            self._call(
                self._writing.delete_object,
                Key=self._key(version.name),
                VersionId=version.id or _STORED_BEFORE,
            )

    def close(self) -> None:
        """See Archive."""
        self._reading.close()
        self._writing.close()

    def _key(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _call(self, call: Call, **arguments: Any) -> Mapping[str, Any]:
        with _errors(self.url):
            return call(Bucket=self._bucket, **arguments)

    def _require_bucket(self) -> None:
        try:
            self._call(self._reading.head_bucket)
        except Gone:
            raise Refused(f"{self.url}: there is no such bucket") from None

    def _check(self, version: Version, found: Mapping[str, Any], start: int, stop: int) -> None:
        """Have what is answered be what was asked for, whatever the server thinks of conditions."""
        if found.get("ETag") != version.tag:
            raise Gone(f"{version.name}: another version is in the place of {version}")
        if found["ContentLength"] < stop - start:
            raise Truncated(
                f"{version.name}, version {version}: expected {stop - start} bytes from {start} on,"
                f" found {found['ContentLength']}"
            )
        if not str(found.get("ContentRange", "")).startswith(f"bytes {start}-"):
            raise Refused(f"{self.url}: gives no ranges")

    def _put(self, key: str, blocks: Iterable[bytes], metadata: Metadata) -> Mapping[str, Any]:
        said = {"Key": key, "Metadata": metadata.items()}
        pieces = sized(blocks, _piece_bytes(metadata.size_bytes or 0))
        # Looked for before anything is sent, and that is when a source says that it changed.
        first = list(islice(pieces, MULTIPART_BYTES // PIECE_BYTES))
        more = next(pieces, None)
        if more is None:
            body = b"".join(first)
            return self._call(self._writing.put_object, Body=body, ContentMD5=_md5(body), **said)
        return self._put_parts(said, chain(first, (more,), pieces))

    def _put_parts(self, said: Mapping[str, Any], parts: Iterator[bytes]) -> Mapping[str, Any]:
        begun = self._call(self._writing.create_multipart_upload, **said)
        upload = {"Key": said["Key"], "UploadId": begun["UploadId"]}

        def send(numbered: tuple[int, bytes]) -> dict[str, Any]:
            number, part = numbered
            sent = self._call(
                self._writing.upload_part,
                Body=part,
                ContentMD5=_md5(part),
                PartNumber=number,
                **upload,
            )
            return {"PartNumber": number, "ETag": sent["ETag"]}

        try:
            sent = list(side_by_side(send, enumerate(parts, 1), workers=PARTS_AT_ONCE))
            return self._call(
                self._writing.complete_multipart_upload, MultipartUpload={"Parts": sent}, **upload
            )
        except BaseException:
            # Parts without an object cost money until somebody finds them.
            with suppress(SnapshotError):
                self._call(self._writing.abort_multipart_upload, **upload)
            raise


def _client(session: botocore.session.Session, endpoint: str | None, attempts: int) -> Any:
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=CONNECTIONS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        # Many servers that speak S3 do not know the newer ways to say a checksum.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    region = session.get_config_variable("region") or _REGION
    return session.create_client("s3", region_name=region, endpoint_url=endpoint, config=config)


@contextmanager
def _errors(url: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        raise _meaning(url, error) from error
    except _CONNECTION as error:
        raise Unreachable(f"{url}: {error}") from error
    except NoCredentialsError as error:
        raise Refused(
            f"{url}: found no credentials; AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY name some"
        ) from error
    except BotoCoreError as error:
        raise Refused(f"{url}: {error}") from error


def _meaning(url: str, error: ClientError) -> SnapshotError:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code == "NoSuchBucket":
        return Refused(f"{url}: there is no such bucket")
    if status in _GONE:
        return Gone(f"{url}: {error}")
    if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
        return Truncated(f"{url}: {error}")
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _BUSY or code in _BUSY_CODES:
        return Unreachable(f"{url}: {error}")
    return Refused(f"{url}: {error}")


def _piece_bytes(size_bytes: int) -> int:
    return max(PIECE_BYTES, -(-size_bytes // MAX_PIECES))


def _version(name: str, version_id: str | None, tag: str) -> Version:
    return Version(name, None if version_id in _NO_VERSION else version_id, tag)


def _exactly(version: Version) -> dict[str, str]:
    return {} if version.id is None else {"VersionId": version.id}


def _listed(name: str, entry: Mapping[str, Any]) -> Listed:
    version = _version(name, entry.get("VersionId"), entry["ETag"])
    return Listed(version, entry["Size"], entry["LastModified"])


def _newest_first(entry: Mapping[str, Any]) -> tuple[bool, datetime]:
    return bool(entry.get("IsLatest")), entry["LastModified"]


def _md5(content: bytes) -> str:
    """What has the server refuse a body that was damaged on its way."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode("ascii")
