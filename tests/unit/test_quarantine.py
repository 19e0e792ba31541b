"""What may leave the quarantine, and in which order."""

from __future__ import annotations

import random
from collections.abc import Collection

import pytest

from depot.artifact import ArtifactHash
from depot.dataset.quarantine_names import (
    QuarantinedFile,
    Reason,
    choose_to_purge,
    file_name,
    irreplaceable,
)

X, Y, Z = (ArtifactHash.of(name) for name in (b"x", b"y", b"z"))


def file(artifact: ArtifactHash, time_ms: int, size_bytes: int = 10) -> QuarantinedFile:
    found = QuarantinedFile.parse(file_name(artifact, time_ms, Reason.MISMATCH), size_bytes)
    assert found is not None
    return found


def purge(
    files: Collection[QuarantinedFile],
    need_bytes: int,
    *,
    needed: Collection[ArtifactHash] = (),
    wanted: Collection[ArtifactHash] = (X, Y, Z),
) -> list[QuarantinedFile]:
    return choose_to_purge(
        files, need_bytes, is_needed=needed.__contains__, is_wanted=wanted.__contains__
    )


@pytest.mark.parametrize("reason", Reason)
def test_a_files_name_says_all_there_is_to_know_of_it(reason: Reason) -> None:
    found = QuarantinedFile.parse(file_name(X, 1795271909123, reason), 7)
    assert found is not None
    assert (found.artifact, found.time_ms, found.reason) == (X, 1795271909123, reason)
    assert found.size_bytes == 7
    assert found.path == f".sled-depot/quarantine/{X}.1795271909123.{reason}"


def test_a_reason_of_a_later_version_is_still_a_file_of_ours() -> None:
    found = QuarantinedFile.parse(f"{X}.5.haunted", 1)
    assert found is not None
    assert found.reason is Reason.OTHER
    assert found.name == f"{X}.5.haunted"


@pytest.mark.parametrize(
    "name",
    ["", "notes.txt", str(X), f"{X}.5", f"{X}..mismatch", f"{str(X).upper()}.5.mismatch",
     f"{X}.-5.mismatch", f"{X}.5.mismatch~", f"{X}.5.MISMATCH", f"../{X}.5.mismatch",
     f"{X}.999999999999999.mismatch"],
)  # fmt: skip
def test_other_peoples_files_are_none_of_ours(name: str) -> None:
    assert QuarantinedFile.parse(name, 1) is None


def test_the_oldest_goes_first_and_no_more_than_is_needed() -> None:
    files = [file(X, 3), file(Y, 1), file(Z, 2)]
    assert purge(files, 11) == [file(Y, 1), file(Z, 2)]
    assert purge(files, 10) == [file(Y, 1)]
    assert purge(files, 0) == []


def test_what_nobody_wants_goes_before_what_is_wanted() -> None:
    files = [file(X, 1), file(Y, 2)]
    assert purge(files, 10, wanted=[X]) == [file(Y, 2)]


def test_of_what_is_needed_the_newest_stays_whatever_the_need() -> None:
    files = [file(X, 1), file(X, 2), file(X, 3), file(Y, 4)]
    assert irreplaceable(files, [X].__contains__) == {file(X, 3).name}
    assert purge(files, 1000, needed=[X]) == [file(X, 1), file(X, 2), file(Y, 4)]
    assert purge(files, 1000, needed=[X, Y]) == [file(X, 1), file(X, 2)]


def test_no_choice_ever_takes_the_last_of_what_is_needed() -> None:
    rng = random.Random(7)
    for _ in range(300):
        files = [
            file(rng.choice([X, Y, Z]), rng.randrange(50), rng.randrange(100))
            for _ in range(rng.randrange(12))
        ]
        needed = [each for each in (X, Y, Z) if rng.random() < 0.5]
        left = set(files) - set(purge(set(files), rng.randrange(600), needed=needed))
        for artifact in needed:
            had = any(each.artifact == artifact for each in files)
            assert had == any(each.artifact == artifact for each in left)
