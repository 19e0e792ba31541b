"""The benchmark runs and measures everything it promises. How fast anything is, is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
EVERY_ROW: Final = [
    "get-1",
    "get-8",
    "get-verified",
    "limit-socket",
    "put",
    "put-direct",
    "limit-sha256",
    "limit-direct",
    "copy",
    "copy-curl",
    "memory",
]


def run(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_small_slice_yields_every_row_or_says_why_not(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    printed = run("--size", "16", "--pairs", "1", "--dir", str(tmp_path), "--json", str(result))

    rows = {row["key"]: row for row in json.loads(result.read_text())["rows"]}
    assert list(rows) == EVERY_ROW
    for row in rows.values():
        assert row["work"] in printed
        assert row["note"] or row["value"]
        assert row["note"] or row["ratio"] or not row["against"]
    assert list(tmp_path.iterdir()) == [result], "something was left behind"


def test_one_part_runs_alone(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    small = ("--size", "1", "--pairs", "1", "--dir", str(tmp_path))
    run("--only", "put", *small, "--json", str(result))

    keys = [row["key"] for row in json.loads(result.read_text())["rows"]]
    assert keys == ["put", "put-direct", "limit-sha256", "limit-direct", "memory"]
