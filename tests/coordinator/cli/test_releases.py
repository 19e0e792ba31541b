from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.coordinator.cli.conftest import Cli
from tests.coordinator.releases.builder import (
    PAST,
    ReleaseBuilder,
    small_release,
    write_files,
    write_zip,
)

DEMO_RELEASE = Path(__file__).parents[3] / "packaging" / "demo_release.py"


@pytest.fixture
def builder() -> ReleaseBuilder:
    return small_release()


@pytest.fixture
def trusting(cli: Cli, tmp_path: Path, builder: ReleaseBuilder) -> Cli:
    """A coordinator that trusts the builder's root."""
    root = tmp_path / "root.json"
    root.write_bytes(builder.trusted)
    cli.fine("trust", "add", root)
    return cli


def test_a_zip_is_uploaded_listed_shown_and_removed(
    trusting: Cli, tmp_path: Path, builder: ReleaseBuilder
) -> None:
    file = write_zip(tmp_path, builder.publish())
    assert trusting.fine("release", "upload", file) == (
        "release 1.0.0 recorded: 2 artifacts, 1.4 KiB\n"
    )
    assert "was there already" in trusting.fine("release", "upload", file)
    trusting.fine("target", "set", "1.0.0")
    head, row = trusting.fine("release", "ls").splitlines()
    assert head.split() == ["STATE", "ARTIFACTS", "SIZE", "UPLOADED", "RELEASE"]
    assert row.split()[:5] == ["complete,", "target", "2", "1.4", "KiB"]
    assert row.endswith(" 1.0.0")
    shown = trusting.fine("release", "show", "1.0.0")
    assert " as release.zip" in shown
    assert "holds     2 artifacts, 1.4 KiB" in shown
    assert [line.split()[-2:] for line in shown.splitlines()[-2:]] == [
        ["sp", "one"],
        ["host", "two"],
    ]
    refused = trusting("release", "rm", "1.0.0", "--yes")
    assert (refused.code, "`depot-coordinator target set`" in refused.err) == (3, True)


def test_a_directory_is_packed_the_same_each_time_and_uploaded(
    trusting: Cli, tmp_path: Path, builder: ReleaseBuilder
) -> None:
    directory = write_files(tmp_path / "built", builder.publish(), "repo/")
    (directory / "repo" / "targets" / "link").symlink_to("/etc/passwd")
    first = trusting("release", "upload", directory, "--json").document
    again = trusting("release", "upload", f"{directory}/repo/", "--json").document
    assert (first["status"], again["status"]) == ("inserted", "already_exists")
    assert first["release"]["file_name"] == "built.zip"
    unasked = trusting("release", "rm", "1.0.0", "--json")
    assert (unasked.code, "give --yes" in unasked.err) == (2, True)
    assert trusting.fine("release", "rm", "1.0.0", "--yes") == "release 1.0.0 removed\n"
    assert trusting.fine("release", "ls") == "no releases\n"


def test_progress_and_notes_are_on_stderr_and_can_be_left_out(
    trusting: Cli, tmp_path: Path, builder: ReleaseBuilder
) -> None:
    file = write_zip(tmp_path, builder.publish())
    assert "uploading: " in trusting("release", "upload", file).err
    assert trusting("release", "upload", file, "--quiet").err == ""


def test_an_expired_release_needs_consent(
    cli: Cli, tmp_path: Path, builder: ReleaseBuilder
) -> None:
    del builder
    expired = small_release(expires=PAST)
    (tmp_path / "root.json").write_bytes(expired.trusted)
    cli.fine("trust", "add", tmp_path / "root.json")
    file = write_zip(tmp_path, expired.publish())
    refused = cli("release", "upload", file)
    assert (refused.code, "--allow-expired" in refused.err) == (3, True)
    assert "although it has expired" in cli.fine("release", "upload", file, "--allow-expired")


@pytest.mark.parametrize("name", ["nothing.zip", "empty.zip", "directory"])
def test_what_is_no_release_is_a_usage_error(cli: Cli, tmp_path: Path, name: str) -> None:
    (tmp_path / "empty.zip").touch()
    (tmp_path / "directory").mkdir()
    done = cli("release", "upload", tmp_path / name, "--json")
    assert done.code == 2
    assert str(tmp_path / name) in done.document["error"]["message"]


def test_a_url_is_fetched_by_the_coordinator_if_it_may(cli: Cli, trusting: Cli) -> None:
    del trusting
    refused = cli("release", "upload", "http://127.0.0.1:9/repo")
    assert (refused.code, "import.allowed_sources" in refused.err) == (3, True)


def test_roots_are_listed_shown_and_removed(trusting: Cli, builder: ReleaseBuilder) -> None:
    root = trusting("trust", "ls", "--json").document["items"][0]
    assert root["id"] in trusting.fine("trust", "ls")
    for options in ((), ("--json",)):
        assert trusting.fine("trust", "show", root["id"], *options).encode() == builder.trusted
    assert trusting.fine("trust", "rm", root["id"]) == f"{root['id']} removed\n"
    assert trusting.fine("trust", "ls") == "no roots of trust\n"


def test_a_file_that_is_no_json_is_no_root(cli: Cli, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("x", "y")
    done = cli("trust", "add", tmp_path / "x.zip")
    assert (done.code, "expected a TUF root.json" in done.err) == (2, True)


def test_the_release_that_the_documented_command_makes_is_trusted_and_taken(
    cli: Cli, tmp_path: Path
) -> None:
    made = tmp_path / "trial"
    command = [sys.executable, str(DEMO_RELEASE), str(made), "--version", "2.0.0"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "depot-coordinator trust add" in said
    cli.fine("trust", "add", made / "root.json")
    # It is good for a month, which is over at the time that this coordinator's clock tells.
    taken = cli.fine("release", "upload", made / "release.zip", "--allow-expired")
    assert taken.startswith("release 2.0.0 recorded, although it has expired: 15 artifacts")
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (again.returncode, again.stderr) == (1, f"demo_release: {made}: File exists\n")


def test_whoever_is_asked_about_a_release_learns_what_goes_and_can_say_no(
    trusting: Cli, tmp_path: Path, builder: ReleaseBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting.fine("release", "upload", write_zip(tmp_path, builder.publish()))
    monkeypatch.setattr("sys.stdin", Terminal("n\n"))
    asked = trusting("release", "rm", "1.0.0")
    assert "2 artifacts (1.4 KiB) that no other one has will leave 0 sleds" in asked.err
    assert asked.code != 0
    assert "1.0.0" in trusting.fine("release", "ls")


class Terminal(io.StringIO):
    """Somebody who types."""

    def isatty(self) -> bool:
        return True
