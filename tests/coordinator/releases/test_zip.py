"""Releases in zips, as they are found and as somebody would like them to be."""

from __future__ import annotations

import json
import os
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.errors import BadRelease, TargetMismatch
from coordinator.releases.zip_repository import ZipRepository
from depot.artifact import ArtifactHash
from depot.errors import DepotError
from tests.coordinator.releases.builder import (
    Files,
    ReleaseBuilder,
    small_release,
    write_zip,
    zip_bytes,
)
from tests.coordinator.releases.opening import contents_of, facts_of
from tests.coordinator.releases.zips import Raw, deflate, raw_zip

CONTENTS = {"one": b"one of them\n", "two": b"and the other\n" * 100}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("prefix", ["repo/", ""])
def test_a_release_is_read_out_of_a_zip(tmp_path: Path, method: int, prefix: str) -> None:
    release = small_release()
    path = write_zip(tmp_path, release.publish(), method=method, prefix=prefix)
    assert contents_of(path, release.trusted) == CONTENTS
    facts = facts_of(path, release.trusted)
    assert facts.file_name == "release.zip"
    assert facts.sha256 == ArtifactHash.of(path.read_bytes())


def test_the_name_and_the_hash_are_those_that_the_caller_knows_already(tmp_path: Path) -> None:
    release = small_release()
    path = write_zip(tmp_path, release.publish())
    known = ArtifactHash.of(b"what was hashed while it was received")
    facts = facts_of(ZipRepository(path, sha256=known), release.trusted, file_name="R1.zip")
    assert (facts.file_name, facts.sha256) == ("R1.zip", known)


def test_other_files_in_the_zip_are_left_alone(tmp_path: Path) -> None:
    release = small_release()
    files = {"README": b"read me", "targets/stranger": b"?", "metadata/9.root.json": b"no root"}
    path = write_zip(tmp_path, {**files, **release.publish()})
    assert contents_of(path, release.trusted) == CONTENTS


def test_a_zip_of_something_else_lacks_a_timestamp(tmp_path: Path) -> None:
    path = write_zip(tmp_path, {"picture.png": b""}, prefix="")
    with pytest.raises(BadRelease, match=r"metadata/timestamp\.json is missing"):
        facts_of(path, small_release().trusted)


def test_what_is_no_zip_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    path.write_bytes(b"certainly no zip")
    with pytest.raises(BadRelease, match="the zip is refused"):
        facts_of(path, small_release().trusted)
    with pytest.raises(FileNotFoundError):
        facts_of(tmp_path / "absent.zip", small_release().trusted)
    with pytest.raises(BadRelease, match="null: expected a zip or a directory, found neither"):
        facts_of(Path("/dev/null"), small_release().trusted)


def test_a_missing_target_is_named_with_the_file_it_should_be_in(tmp_path: Path) -> None:
    release = small_release()
    files = release.publish()
    (name,) = (path for path in files if path.endswith("one.tar.gz"))
    del files[name]
    with pytest.raises(TargetMismatch, match=f"target 'one.tar.gz': expected the file {name}"):
        facts_of(write_zip(tmp_path, files), release.trusted)


def members(files: Files, *changed: Raw) -> bytes:
    by_name = {each.name: each for each in changed}
    return raw_zip(
        [by_name.get(f"repo/{path}", Raw(f"repo/{path}", each)) for path, each in files.items()]
    )


@pytest.mark.parametrize(
    ("packed", "why"),
    [
        (deflate(bytes(range(100)))[:30], "its packed bytes end too early"),
        (deflate(b"\0" * 99), "it unpacks to 99 bytes, expected 100"),
        (deflate(b"\0" * 101), "it unpacks to more than the 100 bytes it has"),
        (deflate(b"\0" * 10_000_000), "it unpacks to more than the 100 bytes it has"),
        (deflate(b"\0" * 100) + b"x", "bytes follow the end of its packed bytes"),
        (b"\xff" * 40, "it does not unpack"),
        (b"\1", "its packed bytes end too early"),
    ],
)
def test_s1_a_member_unpacks_to_what_it_said_and_no_further(
    tmp_path: Path, packed: bytes, why: str
) -> None:
    release = ReleaseBuilder()
    release.add("zeros", b"\0" * 100)
    files = release.publish()
    (name,) = (path for path in files if path.endswith("zeros"))
    lying = Raw(f"repo/{name}", b"\0" * 100, deflated=True, packed=packed)
    path = tmp_path / "release.zip"
    path.write_bytes(members(files, lying))
    with pytest.raises(TargetMismatch, match=f"target 'zeros': .*{why}"):
        facts_of(path, release.trusted, version="1")


def test_damage_of_packed_metadata_is_no_target_s(tmp_path: Path) -> None:
    release = small_release()
    broken = Raw("repo/metadata/timestamp.json", b"{}", deflated=True, packed=b"\xff" * 9)
    path = tmp_path / "release.zip"
    path.write_bytes(members(release.publish(), broken))
    with pytest.raises(BadRelease, match=r"metadata/timestamp\.json: it does not unpack"):
        facts_of(path, release.trusted)


def test_a_target_of_another_size_is_refused_unread(tmp_path: Path) -> None:
    release = small_release()
    files = release.publish()
    (name,) = (path for path in files if path.endswith("one.tar.gz"))
    path = write_zip(tmp_path, {**files, name: b"\0" * 1000}, method=zipfile.ZIP_DEFLATED)
    with pytest.raises(TargetMismatch, match="expected 12 bytes, found 1000"):
        facts_of(path, release.trusted)


def test_a_zip_that_shrinks_while_it_is_read_is_a_damaged_one(tmp_path: Path) -> None:
    release = small_release()
    path = write_zip(tmp_path, release.publish())
    repository = ZipRepository(path)
    os.truncate(path, 100)
    with pytest.raises(BadRelease, match="the zip became shorter while it was read"):
        facts_of(repository, release.trusted)


def test_what_is_opened_is_closed_whatever_happens(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    release = small_release()
    path = write_zip(tmp_path, release.publish())
    bad = tmp_path / "bad.zip"
    bad.write_bytes(b"no zip")
    for _ in range(3):
        contents_of(path, release.trusted)
        for each, root in ((path, small_release(keys={"root": ["x"]}).trusted), (bad, b"")):
            with pytest.raises(DepotError):
                facts_of(each, root, now_s=1e10)
    assert len(os.listdir("/proc/self/fd")) == before


RELEASE = small_release()
FILES = RELEASE.publish()
ZIP = zip_bytes(FILES, method=zipfile.ZIP_DEFLATED)
UNHURRIED = settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read_or_refused(path: Path, content: bytes) -> None:
    """Whatever the bytes are: the right contents, or one of the refusals there are."""
    path.write_bytes(content)
    with suppress(DepotError):
        assert contents_of(path, RELEASE.trusted) == CONTENTS


@given(st.data())
@UNHURRIED
def test_s4_a_damaged_zip_is_refused_or_its_contents_are_right(
    tmp_path: Path, data: st.DataObject
) -> None:
    content = bytearray(ZIP)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "zero"])):
            case "flip":
                content[at] ^= 1 << data.draw(st.integers(0, 7))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 40))]
            case "insert":
                content[at:at] = data.draw(st.binary(min_size=1, max_size=40))
            case _:
                content[at : at + 8] = bytes(len(content[at : at + 8]))
    read_or_refused(tmp_path / "release.zip", bytes(content))


@given(st.data())
@UNHURRIED
def test_s4_metadata_that_say_anything_are_refused_or_the_contents_are_right(
    tmp_path: Path, data: st.DataObject
) -> None:
    paths = sorted(path for path in FILES if path.startswith("metadata/"))
    path = data.draw(st.sampled_from([*paths, "metadata/2.root.json"]))
    document = json.loads(FILES.get(path, FILES["metadata/1.root.json"]))
    at = document
    while isinstance(at, dict) and at:
        name = data.draw(st.sampled_from(sorted(at)))
        if not isinstance(at[name], dict) or data.draw(st.booleans()):
            at[name] = data.draw(
                st.none()
                | st.booleans()
                | st.integers()
                | st.floats()
                | st.text(max_size=9)
                | st.lists(st.integers(), max_size=2)
                | st.just({})
            )
            break
        at = at[name]
    files = {**FILES, path: json.dumps(document).encode()}
    read_or_refused(tmp_path / "release.zip", zip_bytes(files))
