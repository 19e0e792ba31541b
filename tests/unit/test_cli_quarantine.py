"""`sled-agent quarantine`, and what a status says of healing, for people."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli.agent_quarantine import lines, short_id
from agent.cli.sled_agent import sled_agent
from agent.wire.quarantine import QuarantinedBody

NAME = "ab" * 32


def body(number: int, *, last_copy: bool = False) -> QuarantinedBody:
    return QuarantinedBody(
        id=f"{NAME}.{number}.mismatch.1",
        sha256=NAME,
        dataset="/m2/a",
        reason="mismatch",
        time=datetime(2026, 1, 2, tzinfo=UTC),
        size_bytes=1 << 20,
        path=f"/m2/a/.sled-depot/quarantine/{NAME}.{number}.mismatch",
        last_copy=last_copy,
    )


def shown(*found: QuarantinedBody) -> str:
    return "\n".join(str(line) for line in lines(found, None))


def test_an_empty_quarantine_says_so() -> None:
    assert shown() == "nothing is in quarantine"


def test_each_copy_is_shown_with_its_id_reason_and_file() -> None:
    text = shown(body(1), body(2))
    assert text.startswith("2 copies set aside, 2.0 MiB\n")
    for each in (body(1), body(2)):
        (line,) = (line for line in text.splitlines() if f" {short_id(each)} " in line)
        assert "mismatch" in line
        assert "1.0 MiB" in line
    assert "on /m2/a\n" in text
    assert ".sled-depot/quarantine" in text


def test_last_copies_are_marked_and_explained() -> None:
    text = shown(body(1, last_copy=True))
    assert "nobody has a verified copy" in text
    assert " last " in text


@pytest.mark.parametrize("verb", [["ls"], ["restore", NAME], ["purge", NAME]])
def test_an_agent_that_is_not_there_is_exit_status_4(verb: list[str], tmp_path: Path) -> None:
    ended = CliRunner().invoke(sled_agent, ["quarantine", *verb, "--agent", "http://127.0.0.1:1"])
    assert ended.exit_code == 4
