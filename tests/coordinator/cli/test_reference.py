from __future__ import annotations

from pathlib import Path

from coordinator.cli import reference
from coordinator.cli.depot_coordinator import EXIT_CODES

PAGE = Path(__file__).parents[3] / "docs" / "coordinator-cli.md"


def test_the_reference_is_what_the_command_says() -> None:
    assert PAGE.read_text() == reference.text(), (
        "docs/coordinator-cli.md is stale: "
        "python -m coordinator.cli.reference > docs/coordinator-cli.md"
    )


def test_the_reference_has_every_verb_and_every_exit_status() -> None:
    text = reference.text()
    for verb in ("sled reset", "trust add", "release upload", "status", "wait", "history"):
        assert f"### `depot-coordinator {verb}`" in text
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in text
