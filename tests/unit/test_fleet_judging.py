"""The judge of the fleet finds what is planted: a check that cannot fail proves nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.ondisk import sha256, wrong_bytes
from tests.system.judging import astray, damaged, names, nowhere

CONTENTS: Final = (b"one", b"two", b"three")
ONE, TWO, THREE = (sha256(content) for content in CONTENTS)
BOTH: Final = frozenset({ONE, TWO})


@pytest.fixture
def sled(tmp_path: Path) -> Path:
    """A dataset that holds two artifacts, and what is no artifact."""
    path = tmp_path / "sled-0" / "m2-0"
    (path / ".sled-depot").mkdir(parents=True)
    (path / "artifact-config.json").write_text("{}")
    for content in CONTENTS[:2]:
        (path / sha256(content)).write_bytes(content)
    return path


def test_f1_a_dataset_with_exactly_what_is_wanted_is_fine(sled: Path) -> None:
    assert astray({sled: BOTH}) == []
    assert damaged([sled]) == []


def test_f1_a_missing_file_is_found(sled: Path) -> None:
    (sled / ONE).unlink()
    assert astray({sled: BOTH}) == [
        f"sled-0/m2-0 lacks 1 ['{ONE[:8]}'], has still 0 []",
    ]


def test_f1_a_file_too_many_is_found(sled: Path) -> None:
    (sled / THREE).write_bytes(CONTENTS[2])
    assert astray({sled: BOTH}) == [
        f"sled-0/m2-0 lacks 0 [], has still 1 ['{THREE[:8]}']",
    ]


def test_f1_one_dataset_of_many_is_found(sled: Path, tmp_path: Path) -> None:
    empty = tmp_path / "sled-1" / "m2-1"
    empty.mkdir(parents=True)
    gone = tmp_path / "sled-2" / "m2-0"
    found = astray({sled: BOTH, empty: BOTH, gone: BOTH})
    assert [each.split()[0] for each in found] == ["sled-1/m2-1", "sled-2/m2-0"]


def test_f2_what_one_directory_holds_is_somewhere(sled: Path, tmp_path: Path) -> None:
    assert not nowhere(BOTH, [names(tmp_path / "gone"), names(sled)])


def test_f2_what_no_directory_holds_is_nowhere(sled: Path) -> None:
    (sled / TWO).unlink()
    assert nowhere(BOTH, [names(sled), frozenset({THREE})]) == {TWO}


def test_f2_a_file_that_goes_meanwhile_hides_no_other(
    sled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_scan = os.scandir

    @contextmanager
    def scan_and_lose_one(path: Path) -> Iterator[Iterator[os.DirEntry[str]]]:
        with real_scan(path) as entries:
            listed = list(entries)
        (path / ONE).unlink()
        yield iter(listed)

    monkeypatch.setattr(os, "scandir", scan_and_lose_one)
    assert names(sled) == {TWO}


def test_b1_a_flipped_bit_is_found(sled: Path) -> None:
    (sled / TWO).write_bytes(b"twp")
    assert damaged([sled]) == [f"{sled}/{TWO[:8]}"]


def test_b1_a_file_that_goes_while_it_is_judged_hides_no_wrong_one(
    sled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sled / ONE).write_bytes(b"onf")
    (sled / TWO).write_bytes(b"twp")
    first, second = sorted((ONE, TWO))
    real_read = Path.read_bytes

    def read_late(path: Path) -> bytes:
        if path.name == first:
            path.unlink()
        return real_read(path)

    monkeypatch.setattr(Path, "read_bytes", read_late)
    assert wrong_bytes(sled) == [second]
