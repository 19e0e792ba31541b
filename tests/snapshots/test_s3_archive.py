"""What is S3's own: versions that a bucket began to keep, large objects, who may, what is there."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

import pytest

from agent.snapshots.errors import Gone, LibraryMissing, Refused, Unreachable
from agent.snapshots.opening import open_archive
from agent.snapshots.s3 import MULTIPART_BYTES, PIECE_BYTES, S3Archive
from tests.snapshots.conftest import MakeBucket, keep_versions
from tests.snapshots.making import metadata_of, put, read


def test_what_is_large_is_sent_in_parts(s3_server: str, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(True)
    archive = open_archive(f"s3://{bucket}", s3_server)
    blocks = [bytes([number]) * PIECE_BYTES for number in range(MULTIPART_BYTES // PIECE_BYTES)]
    blocks.append(b"the end")
    metadata = metadata_of(b"".join(blocks))

    version = archive.put("large", blocks, metadata)

    assert version.tag.strip('"').endswith("-5"), "not in five parts"
    assert archive.head("large").metadata == metadata
    found = hashlib.sha256()
    for block in archive.read(version, 0, archive.head("large").stored_bytes):
        found.update(block)
    assert metadata.checksum is not None
    assert found.digest() == metadata.checksum.digest
    archive.close()


def test_a_version_from_before_the_bucket_kept_any_is_listed_and_deleted(
    s3_server: str, s3_client: Any, make_bucket: MakeBucket
) -> None:
    bucket = make_bucket(False)
    archive = open_archive(f"s3://{bucket}/p", s3_server)
    first = put(archive, "name", b"first")
    keep_versions(s3_client, bucket)
    second = put(archive, "name", b"second")

    assert [each.version for each in archive.versions("name")] == [second, first]
    archive.delete(first)
    assert [each.version for each in archive.versions("name")] == [second]
    archive.close()


def test_a_deleted_name_is_gone(s3_server: str, s3_client: Any, make_bucket: MakeBucket) -> None:
    bucket = make_bucket(True)
    archive = open_archive(f"s3://{bucket}", s3_server)
    version = put(archive, "name", b"bytes")
    s3_client.delete_object(Bucket=bucket, Key="name")

    with pytest.raises(Gone):
        archive.head("name")
    assert read(archive, version, 0, 5) == b"bytes"
    archive.close()


def test_a_bucket_that_is_not_there_is_said_to_be_that(s3_server: str) -> None:
    archive = open_archive("s3://no-such-bucket/prefix", s3_server)

    with pytest.raises(Refused, match="no such bucket"):
        archive.head("name")
    with pytest.raises(Refused, match="no such bucket"):
        put(archive, "name", b"bytes")
    archive.close()


def test_a_server_that_does_not_answer_is_unreachable() -> None:
    archive = open_archive("s3://bucket/prefix", "http://127.0.0.1:9")

    with pytest.raises(Unreachable):
        archive.head("name")
    archive.close()


def test_without_credentials_one_is_told_which_are_missing(
    s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    archive = open_archive("s3://bucket/prefix", s3_server)

    with pytest.raises(Refused, match="AWS_ACCESS_KEY_ID"):
        archive.head("name")
    archive.close()


def test_without_the_library_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    monkeypatch.delitem(sys.modules, "agent.snapshots.s3", raising=False)

    with pytest.raises(LibraryMissing, match="snapshots"):
        open_archive("s3://bucket")


def test_the_endpoint_may_come_from_the_environment(
    s3_server: str, make_bucket: MakeBucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    archive = open_archive(f"s3://{make_bucket(False)}/p")

    assert isinstance(archive, S3Archive)
    version = put(archive, "name", b"bytes")
    assert archive.head("name").version == version
    archive.close()
