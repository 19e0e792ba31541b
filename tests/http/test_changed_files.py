"""A file that is changed while it is sent unverified costs the answer, and no wrong byte (B2)."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import pytest

from depot.device.host import DeviceWorkers
from depot.http.way import Way
from tests.http.raw import RawClient
from tests.http.test_verified_reads import depot, line
from tests.store.builders import MIB, A, Node, off_loop

CONTENT: Final = random.Random(6).randbytes(48 * MIB + 321)
TAKEN_BYTES: Final = 2 * MIB
AHEAD_BYTES: Final = 300 << 10
"""On its way, and not with the client yet."""

Change = Callable[[Path], None]


def cut_short(path: Path) -> None:
    os.truncate(path, TAKEN_BYTES + AHEAD_BYTES)


def write_over(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(TAKEN_BYTES + AHEAD_BYTES)
        file.write(bytes(4 * MIB))


CHANGES: Final = [cut_short, write_over]


@pytest.fixture(params=list(DeviceWorkers), ids=str)
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Node:
    made = Node.make(tmp_path)
    made.workers = request.param
    return made


async def take(url: str, node: Node, change: Change) -> bytes:
    """Take some of the artifact, change its file a little ahead of that, and take the rest."""
    async with RawClient.connect(url) as client:
        await client.send(line(CONTENT))
        status, headers = await client.head()
        assert (status, int(headers["content-length"])) == (200, len(CONTENT))
        taken = await client.reader.readexactly(TAKEN_BYTES)
        await asyncio.sleep(0.5)  # until no more fits on the way
        path = node.file(A, CONTENT)
        await off_loop(path.chmod, 0o644)
        await off_loop(change, path)
        return taken + await up_to(client, len(CONTENT) - TAKEN_BYTES)


async def up_to(client: RawClient, most_bytes: int) -> bytes:
    """What comes until that is all, or the connection has ended."""
    taken = bytearray()
    with suppress(ConnectionResetError):
        while len(taken) < most_bytes and (part := await client.reader.read(MIB)):
            taken += part
    return bytes(taken)


@pytest.mark.parametrize("way", [Way.AUTO, Way.SPLICE, Way.PIPE])
@pytest.mark.parametrize("change", CHANGES)
async def test_b2_what_was_sent_by_reference_is_not_completed_once_the_file_has_changed(
    node: Node, way: Way, change: Change, logged: list[MutableMapping[str, Any]]
) -> None:
    async with depot(node, CONTENT, verify_reads="never", way=way) as (_, url):
        got = await take(url, node, change)
    assert len(got) < len(CONTENT), "the answer was completed"
    (told,) = [each for each in logged if each["event"] == "artifact copy failed while it was sent"]
    assert told["dataset"] == str(node.paths[A])
    assert "while it was" in told["reason"], "what happened, and no error of the device"


@pytest.mark.parametrize("change", CHANGES)
async def test_b2_what_was_copied_before_goes_on_from_the_other_mirror(
    node: Node, change: Change
) -> None:
    async with depot(node, CONTENT, verify_reads="never", way=Way.COPY) as (_, url):
        assert await take(url, node, change) == CONTENT


@pytest.mark.parametrize("way", list(Way))
@pytest.mark.parametrize("change", CHANGES)
async def test_b2_what_is_verified_goes_on_from_the_other_mirror(
    node: Node, way: Way, change: Change
) -> None:
    async with depot(node, CONTENT, verify_reads="always", way=way) as (_, url):
        assert await take(url, node, change) == CONTENT
