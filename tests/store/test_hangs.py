"""A device that hangs, at every call that a put makes: the other one does not wait for it (B4)."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

import pytest

from tests.store.builders import MIB, A, B, Node, config, off_loop, put, threads_end
from tests.store.faulty import Hang

DEADLINE_S: Final = 2.0
"""`storage.device_timeout`: also how often a device that never answers is waited for, once."""
MOST_S: Final = 1.5 * DEADLINE_S
"""Less than two of them, with room for what else the machine does."""
TRIES: Final = 3
"""The machine may be busy with other things; a rule that is broken is broken every time."""
CONTENTS: Final = {"tiny": b"tiny", "large": os.urandom(2 * MIB + 77)}


@pytest.mark.parametrize("size", CONTENTS)
async def test_b4_wherever_a_device_hangs_a_put_on_the_other_waits_for_no_more_than_the_deadline(
    tmp_path: Path, size: str
) -> None:
    content = CONTENTS[size]
    calls, usual_s = await _undisturbed(tmp_path / "undisturbed", content)
    assert {"create", "write", "fsync", "rename", "fsync_directory"} <= set(calls)

    late = list(range(1, len(calls) + 1))
    for turn in range(TRIES):
        # Side by side, since all they do is wait; who was late then gets another try.
        delays_s = await asyncio.gather(
            *(_delay_s(tmp_path / f"{nth}-{turn}", content, nth) for nth in late)
        )
        await threads_end("ingest-")
        late = [nth for nth, s in zip(late, delays_s, strict=True) if s - usual_s > MOST_S]
    assert not late, [(nth, calls[nth - 1]) for nth in late]


async def _undisturbed(root: Path, content: bytes) -> tuple[list[str], float]:
    """The calls that a put makes on one dataset, and how long it takes."""
    node = await off_loop(_make, root)
    async with node.open(device_timeout_s=DEADLINE_S) as store:
        await store.put_config(config(1, content))
        node.disk(B).calls.clear()
        began_s = time.monotonic()
        await put(store, content)
        took_s = time.monotonic() - began_s
        return [call for call, _ in node.disk(B).calls], took_s


async def _delay_s(root: Path, content: bytes, nth: int) -> float:
    """How long a put takes when that call, and so every later one, never returns."""
    node = await off_loop(_make, root)
    async with node.open(device_timeout_s=DEADLINE_S) as store:
        await store.put_config(config(1, content))
        hang = Hang()
        node.disk(B).before("any", hang, nth=nth, times=None)
        began_s = time.monotonic()
        stored = await put(store, content)
        took_s = time.monotonic() - began_s
        assert stored.copies >= 1
        assert await node.read(A, content) == content
        hang.let_go()
    return took_s


def _make(root: Path) -> Node:
    root.mkdir(parents=True)
    return Node.make(root)
