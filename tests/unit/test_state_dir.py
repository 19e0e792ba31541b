from __future__ import annotations

import os
from pathlib import Path

from depot.config.state_dir import StateDir
from tests import ondisk


def test_what_a_dead_writer_staged_is_gone_after_the_next_open(tmp_path: Path) -> None:
    StateDir.open(tmp_path).close()
    (tmp_path / ".sled-depot" / "staging" / "0123456789abcdef").write_bytes(b"half a witness")

    opened = StateDir.open(tmp_path)

    assert ondisk.staged_files(tmp_path) == []
    opened.close()


def test_a_pipe_in_the_place_of_the_witness_is_a_reason_and_hangs_nobody(tmp_path: Path) -> None:
    opened = StateDir.open(tmp_path)
    os.mkfifo(tmp_path / "witness.json")

    said, reason = opened.read_witness("sled")

    assert said is None
    assert "not a regular file" in str(reason)
    assert opened.known_sled_id() is None
    opened.close()
