"""The release that the reference tool made: real bytes, one key, expired since February 2026."""

from __future__ import annotations

import hashlib
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest

from coordinator.errors import Expired, TargetMismatch, Untrusted
from coordinator.releases.release import open_release
from depot.artifact import ArtifactHash
from tests.coordinator.releases.builder import NOW_S, small_release, zip_bytes

SAMPLE: Final = Path(__file__).parents[4] / "shared" / "data" / "release-v1-sample.zip"
BEFORE_IT_EXPIRED_S: Final = datetime(2026, 2, 5, tzinfo=UTC).timestamp()
CORPUS: Final = "measurement_corpus-fake-corpus-1.0.0.tar.gz"

pytestmark = pytest.mark.skipif(
    not SAMPLE.exists(), reason="the reference release is not beside this repository"
)


def files_of_sample() -> dict[str, bytes]:
    with zipfile.ZipFile(SAMPLE) as archive:
        return {name.removeprefix("repo/"): archive.read(name) for name in archive.namelist()}


def root_of_sample() -> bytes:
    return files_of_sample()["metadata/1.root.json"]


def test_the_reference_release_is_read_whole() -> None:
    with open_release(SAMPLE, [root_of_sample()], now_s=BEFORE_IT_EXPIRED_S) as opened:
        facts = opened.release
        assert facts.version == "1.0.0"
        assert facts.file_name == "release-v1-sample.zip"
        assert facts.sha256 == ArtifactHash.of(SAMPLE.read_bytes())
        assert not facts.allowed_expired
        assert (facts.root.index, facts.root.version) == (0, 1)
        assert len(facts.artifacts) == 14
        corpus = next(each for each in facts.artifacts if each.name == "fake-corpus")
        assert (corpus.version, corpus.kind, corpus.tags) == ("1.0.0", "measurement_corpus", None)
        assert corpus.size_bytes == 1 << 20
        assert set(opened.targets) == {artifact.sha256 for artifact in facts.artifacts}
        for sha256, target in opened.targets.items():
            with target.open() as reader:
                content = b"".join(reader.blocks())
            assert hashlib.sha256(content).digest() == sha256
            assert len(content) == target.size_bytes


def test_it_is_refused_once_it_has_expired_and_the_refusal_says_what_did_and_when() -> None:
    with (
        pytest.raises(Expired, match=r"timestamp\.json on 2026-02-11T22:10:26Z") as caught,
        open_release(SAMPLE, [root_of_sample()], now_s=NOW_S),
    ):
        pass
    for role in ("1.root", "1770243026.snapshot", "1770243026.targets"):
        assert f"{role}.json on 2026-02-11T22:10:26Z" in str(caught.value)


def test_it_is_taken_when_that_is_allowed_and_the_record_says_so() -> None:
    with open_release(SAMPLE, [root_of_sample()], now_s=NOW_S, allow_expired=True) as opened:
        assert opened.release.allowed_expired


def test_allowing_what_did_not_happen_is_not_recorded() -> None:
    with open_release(
        SAMPLE, [root_of_sample()], now_s=BEFORE_IT_EXPIRED_S, allow_expired=True
    ) as opened:
        assert not opened.release.allowed_expired


def test_the_root_of_someone_else_does_not_verify_it() -> None:
    with (
        pytest.raises(Untrusted, match=r"timestamp\.json is signed by 0 of the 1 keys it needs"),
        open_release(SAMPLE, [small_release().trusted], now_s=BEFORE_IT_EXPIRED_S),
    ):
        pass


@pytest.mark.parametrize("position", [0, 1 << 19, -1])
def test_one_flipped_bit_in_one_target_is_refused_and_the_target_named(
    tmp_path: Path, position: int
) -> None:
    files = files_of_sample()
    (name,) = (each for each in files if each.endswith(CORPUS))
    content = bytearray(files[name])
    content[position] ^= 0x10
    damaged = tmp_path / "damaged.zip"
    damaged.write_bytes(zip_bytes({**files, name: bytes(content)}))
    with (
        pytest.raises(TargetMismatch, match="expected the sha256 8a0e23157b") as caught,
        open_release(damaged, [root_of_sample()], now_s=BEFORE_IT_EXPIRED_S),
    ):
        pass
    assert caught.value.details() == {"target": CORPUS}
