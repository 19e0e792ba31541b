"""The hash beside other work, when it fails."""

from __future__ import annotations

import hashlib
from threading import Event

import pytest

from agent.snapshots.hashing import HashLane


def test_a_block_that_cannot_be_hashed_is_given_back_all_the_same() -> None:
    given_back = Event()
    with HashLane() as lane:
        lane.update(hashlib.sha256(), "no bytes", given_back.set)  # type: ignore[arg-type]
        with pytest.raises(TypeError):
            lane.finish()
    assert given_back.is_set()
