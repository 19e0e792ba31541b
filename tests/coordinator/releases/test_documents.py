"""What artifacts are called, and what a release is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from coordinator.errors import BadRelease
from coordinator.releases.repository import ReleaseLimits
from depot.artifact import ArtifactHash
from tests.coordinator.releases.builder import ReleaseBuilder, small_release
from tests.coordinator.releases.opening import by_name, facts_of, published

LISTED = {"name": "sp", "version": "1.2.3", "kind": "gimlet_sp", "target": "sp.tar"}
LISTED_V2 = {"target_name": "sp.tar", "version": "1.2.3", "tags": {"kind": "sp", "board": "g-e"}}


def with_target() -> ReleaseBuilder:
    release = ReleaseBuilder()
    release.add("sp.tar", b"sp")
    return release


def facts(release: ReleaseBuilder, tmp_path: Path, **options: Any) -> Any:
    return facts_of(published(release, tmp_path), release.trusted, **options)


def test_the_first_document_gives_names_versions_and_kinds(tmp_path: Path) -> None:
    release = with_target()
    release.document([LISTED], version="11.0.0-0.ci+git123")
    found = facts(release, tmp_path)
    assert found.version == "11.0.0-0.ci+git123"
    (artifact,) = found.artifacts
    assert (artifact.name, artifact.version, artifact.kind) == ("sp", "1.2.3", "gimlet_sp")
    assert (artifact.sha256, artifact.size_bytes) == (ArtifactHash.of(b"sp"), 2)
    assert artifact.tags is None


def test_the_second_document_gives_tags_and_names_the_targets(tmp_path: Path) -> None:
    release = with_target()
    release.document_v2([LISTED_V2])
    (artifact,) = facts(release, tmp_path).artifacts
    assert (artifact.name, artifact.version, artifact.kind) == ("sp.tar", "1.2.3", None)
    assert artifact.tags == (("board", "g-e"), ("kind", "sp"))


def test_with_both_documents_what_either_lists_is_an_artifact(tmp_path: Path) -> None:
    release = with_target()
    release.add("new.tar", b"new")
    release.document([LISTED])
    release.document_v2([{**LISTED_V2, "target_name": "new.tar"}])
    assert set(by_name(facts(release, tmp_path))) == {"sp", "new.tar"}


def test_targets_that_no_document_lists_are_no_artifacts(tmp_path: Path) -> None:
    release = with_target()
    release.add("notes.txt", b"notes")
    release.document([LISTED])
    assert set(by_name(facts(release, tmp_path))) == {"sp"}


def test_a_plain_release_has_its_targets_for_artifacts(tmp_path: Path) -> None:
    release = with_target()
    (artifact,) = facts(release, tmp_path, version="2026.07").artifacts
    assert (artifact.name, artifact.version) == ("sp.tar", "2026.07")
    assert (artifact.kind, artifact.tags) == (None, None)


def test_a_plain_release_needs_a_version(tmp_path: Path) -> None:
    with pytest.raises(BadRelease, match=r"neither artifacts\.json nor .* give one with --version"):
        facts(with_target(), tmp_path)


@pytest.mark.parametrize("version", ["", " ", "a/b", "-1", ".", "1 0", "1\n", "ü", "x" * 129])
def test_a_version_can_stand_in_a_url(tmp_path: Path, version: str) -> None:
    with pytest.raises(BadRelease, match="expected a version of at most 128"):
        facts(with_target(), tmp_path, version=version)


def test_a_version_that_is_given_has_to_be_the_document_s(tmp_path: Path) -> None:
    release = small_release(version="3.0.0")
    assert facts(release, tmp_path, version="3.0.0").version == "3.0.0"
    with pytest.raises(BadRelease, match=r"artifacts\.json is of version '3\.0\.0', expected '3'"):
        facts(release, tmp_path, version="3")


def test_documents_have_to_agree_on_the_version(tmp_path: Path) -> None:
    release = with_target()
    release.document([LISTED], version="1.0.0")
    release.document_v2([LISTED_V2], version="1.0.1")
    with pytest.raises(BadRelease, match=r"artifacts\.json is of version '1\.0\.0', expected '1"):
        facts(release, tmp_path)


def test_a_target_that_is_not_there_is_named(tmp_path: Path) -> None:
    release = with_target()
    release.document([{**LISTED, "target": "sq.tar"}])
    with pytest.raises(BadRelease, match=r"artifacts\.json lists the target 'sq\.tar', which the"):
        facts(release, tmp_path)


def test_one_name_does_not_mean_two_blobs(tmp_path: Path) -> None:
    release = with_target()
    release.add("other.tar", b"other")
    release.document([LISTED, {**LISTED, "target": "other.tar"}])
    with pytest.raises(BadRelease, match=r"sp 1\.2\.3 is listed twice, as [0-9a-f]{64} and as"):
        facts(release, tmp_path)


def test_the_same_said_twice_is_said_once(tmp_path: Path) -> None:
    release = with_target()
    release.document([LISTED, LISTED, {**LISTED, "kind": "other"}])
    kinds = [artifact.kind for artifact in facts(release, tmp_path).artifacts]
    assert kinds == ["gimlet_sp", "other"]


def test_fields_that_are_not_known_are_left_alone(tmp_path: Path) -> None:
    release = with_target()
    release.document([{**LISTED, "since": 2027}])
    assert len(facts(release, tmp_path).artifacts) == 1


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Invalid JSON"),
        (b"[" * 100_000, "Invalid JSON"),
        (b"[]", "valid dictionary|object"),
        (b'{"artifacts": []}', "system_version: Field required"),
        (b'{"system_version": 1, "artifacts": []}', "system_version: Input should be a valid str"),
        (b'{"system_version": "1"}', "artifacts: Field required"),
        (json.dumps({"system_version": "1", "artifacts": [{}]}).encode(), r"artifacts\.0\.name"),
        (
            json.dumps({"system_version": "1", "artifacts": [{**LISTED, "kind": ""}]}).encode(),
            r"artifacts\.0\.kind: String should have at least 1 character",
        ),
    ],
)
def test_a_document_that_is_none_is_refused_with_the_place(
    tmp_path: Path, content: bytes, why: str
) -> None:
    release = with_target()
    release.add("artifacts.json", content)
    with pytest.raises(BadRelease, match=rf"artifacts\.json: .*({why})"):
        facts(release, tmp_path)


def test_s1_documents_have_a_bound(tmp_path: Path) -> None:
    release = small_release()
    with pytest.raises(BadRelease, match=r"artifacts\.json has \d+ bytes, at most 9 are read"):
        facts(release, tmp_path, limits=ReleaseLimits(document_bytes=9))


@pytest.mark.parametrize("text", ["\x1b[2Jsp", "s\np", "s\u202ep", "\0"])
@pytest.mark.parametrize("field", ["name", "version", "kind", "target"])
def test_names_are_printable_for_they_are_shown_in_terminals(
    tmp_path: Path, field: str, text: str
) -> None:
    release = with_target()
    release.document([{**LISTED, field: text}])
    with pytest.raises(BadRelease, match=rf"artifacts\.0\.{field}: .*expected printable") as caught:
        facts(release, tmp_path)
    assert str(caught.value).isprintable()


def test_tags_are_printable_and_may_be_empty(tmp_path: Path) -> None:
    release = with_target()
    release.document_v2([{**LISTED_V2, "tags": {"board": ""}}])
    assert facts(release, tmp_path).artifacts[0].tags == (("board", ""),)
    release.document_v2([{**LISTED_V2, "tags": {"board": "\x1b"}}])
    with pytest.raises(BadRelease, match=r"tags\.board: .*expected printable"):
        facts(release, tmp_path)
