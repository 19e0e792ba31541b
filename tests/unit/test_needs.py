"""Nothing is skipped for want of something that must be there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.needs import VARIABLE, Need, lack

ROOT: Final = Path(__file__).parents[2]
SKIPS: Final = ("pytest.skip(", ".skipif(", "importorskip(")
# What is not about the machine's means: another device worker, a file that is not shipped, a tool
# or a system that some have.
OTHERWISE: Final = {
    "tests/coordinator/api/test_uploads.py",
    "tests/coordinator/releases/test_sample.py",
    "tests/http/test_depot_zstd.py",
    "tests/http/test_fast_path_reads.py",
    "tests/http/test_limits.py",
    "tests/http/test_reference_contract.py",
    "tests/snapshots/test_download.py",
    "tests/snapshots/test_landing.py",
    "tests/store/builders.py",
    "tests/store/test_group_commit.py",
    "tests/system/test_packaging.py",
    "tests/unit/test_page_cache.py",
    "tests/unit/test_rules_are_tested.py",
}


def test_what_is_missing_is_skipped_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(pytest.skip.Exception, match="not installed"):
        lack(Need.POSTGRESQL, "not installed")


def test_what_must_be_there_and_is_not_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "root postgresql")
    with pytest.raises(pytest.fail.Exception, match="postgresql is here: not installed"):
        lack(Need.POSTGRESQL, "not installed")


def test_only_what_is_named_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "root postgresql")
    with pytest.raises(pytest.skip.Exception):
        lack(Need.MOUNTS, "no loop devices")


def test_a_word_that_names_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "postgres")
    with pytest.raises(ValueError, match="postgres"):
        lack(Need.POSTGRESQL, "not installed")


def test_ci_says_what_must_be_there() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert f"export {VARIABLE}=" in script
    assert all(need in script for need in Need)


def test_whoever_skips_otherwise_has_another_reason() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if any(each in path.read_text() for each in SKIPS)
    }
    assert found - {"tests/needs.py", "tests/unit/test_needs.py"} == OTHERWISE
