from __future__ import annotations

from pathlib import Path

from depot.state_dir import StateDir
from tests import ondisk


def test_what_a_dead_writer_staged_is_gone_after_the_next_open(tmp_path: Path) -> None:
    StateDir.open(tmp_path).close()
    (tmp_path / ".sled-depot" / "staging" / "0123456789abcdef").write_bytes(b"half a witness")

    opened = StateDir.open(tmp_path)

    assert ondisk.staged_files(tmp_path) == []
    opened.close()
