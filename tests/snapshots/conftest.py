"""Archives to test with: a directory, and buckets of a server that speaks S3."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from moto.server import ThreadedMotoServer

from agent.cli.depot import run
from agent.snapshots.archive import Archive
from agent.snapshots.files import FileArchive
from agent.snapshots.opening import open_archive

MakeBucket = Callable[[bool], str]


@dataclass(frozen=True, slots=True)
class Ended:
    status: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def last(self) -> Any:
        return json.loads(self.lines[-1])


Cli = Callable[..., Ended]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """A server; all the buckets of a test run are on it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the developer's own."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "a secret",
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def s3_client(s3_server: str) -> Iterator[Any]:
    """Somebody else who uses the server."""
    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=s3_server,
        region_name="us-east-1",
        aws_access_key_id="somebody",
        aws_secret_access_key="else",
    )
    yield client
    client.close()


@pytest.fixture(scope="session")
def make_bucket(s3_client: Any) -> MakeBucket:
    """Make a bucket of one's own, which keeps versions or not; its name."""

    def make(versioned: bool) -> str:
        name = f"bucket-{secrets.token_hex(6)}"
        s3_client.create_bucket(Bucket=name)
        if versioned:
            keep_versions(s3_client, name)
        return name

    return make


def keep_versions(client: Any, bucket: str) -> None:
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


@pytest.fixture(params=["file", "s3-versions", "s3"])
def archive(
    request: pytest.FixtureRequest, tmp_path: Path, s3_server: str, make_bucket: MakeBucket
) -> Iterator[Archive]:
    """An archive of each kind."""
    if request.param == "file":
        opened: Archive = FileArchive(tmp_path / "archive")
    else:
        bucket = make_bucket(request.param == "s3-versions")
        opened = open_archive(f"s3://{bucket}/some/prefix", s3_server)
    yield opened
    opened.close()


@pytest.fixture
def keeps_versions(request: pytest.FixtureRequest) -> bool:
    """Whether the archive of this test has more than one version of a name."""
    return bool(request.node.callspec.params["archive"] != "s3")


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    def invoke(*arguments: object) -> Ended:
        status = run(list(map(str, arguments)))
        return Ended(status, *capsys.readouterr())

    return invoke
