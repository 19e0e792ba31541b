from __future__ import annotations

from pathlib import Path

from coordinator.cli import reference
from coordinator.cli.depot_coordinator import EXIT_CODES
from tests.coordinator.cli.conftest import Cli

PAGE = Path(__file__).parents[3] / "docs" / "coordinator-cli.md"


def test_the_reference_is_what_the_command_says() -> None:
    assert PAGE.read_text() == reference.text(), (
        "docs/coordinator-cli.md is stale: "
        "python -m coordinator.cli.reference > docs/coordinator-cli.md"
    )


def test_help_at_80_columns_is_not_cut(cli: Cli) -> None:
    for group in ((), ("sled",), ("trust",), ("release",), ("generation",), ("coordinator",)):
        assert "..." not in cli.fine(*group, "--help").replace("[OPTIONS] COMMAND [ARGS]...", "")


def test_the_reference_has_every_verb_and_every_exit_status() -> None:
    text = reference.text()
    for verb in ("sled reset", "trust add", "release upload", "status", "wait", "history"):
        assert f"### `depot-coordinator {verb}`" in text
    for code, meaning in EXIT_CODES.items():
        assert f"| {code} | {meaning} |" in text
