from __future__ import annotations

from pathlib import Path

from agent.cli import reference
from agent.cli.failures import EXIT_CODES

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_reference_is_what_the_command_says() -> None:
    assert PAGE.read_text() == reference.text(), (
        "docs/cli.md is stale: python -m agent.cli.reference > docs/cli.md"
    )


def test_the_reference_has_every_verb_and_every_exit_status() -> None:
    text = reference.text()
    for verb in ("config get", "config set", "put", "get", "ls", "copy", "copies", "pin set"):
        assert f"### `depot {verb}`" in text
    for code, meaning in EXIT_CODES.items():
        assert f"| {int(code)} | {meaning} |" in text
