"""What a request held is free once its client is gone, and does not wait to be collected."""

from __future__ import annotations

import gc
import inspect
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.http.depot_api import depot_app
from depot.http.limits import MIB
from depot.mirrors.open_artifact import OpenArtifact
from depot.streams.blocks import Ring
from tests.http.raw import RawClient
from tests.http.servers import serve
from tests.http.sled import agent_api
from tests.store.builders import Node, config, off_loop, put

CONTENT = bytes(range(256)) * (16 * MIB // 256)
WAIT_S = 20.0


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path)


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
async def test_s1_a_get_that_is_broken_off_leaves_no_open_artifact(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, CONTENT))
        await put(store, CONTENT)
        async with serve(depot_app(store)) as service:
            async with RawClient.connect(service.url) as client:
                # Or all of it could be on its way, and nothing left to break off.
                connection = client.writer.get_extra_info("socket")
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MIB)
                await client.send(f"GET /artifact/sha256/{ArtifactHash.of(CONTENT)} HTTP/1.1")
                await client.reader.read(1)
                await off_loop(_wait, OpenArtifact, True)
                client.reset()
            await off_loop(_wait, OpenArtifact, False)


@pytest.mark.usefixtures("uncollected")
async def test_s1_a_put_that_is_broken_off_leaves_no_blocks(node: Node, tmp_path: Path) -> None:
    artifact = ArtifactHash.of(CONTENT)
    async with node.open() as store:
        await store.put_config(ArtifactConfig(Generation(1), frozenset([artifact])))
        async with agent_api(store, tmp_path) as sled:
            async with RawClient.connect(sled.url) as client:
                line = f"PUT /artifacts/{artifact}?generation=1 HTTP/1.1"
                await client.send(line, f"Content-Length: {len(CONTENT)}")
                await client.send_bytes(CONTENT[:MIB])
                await off_loop(_wait, Ring, True)
                client.reset()
            await off_loop(_wait, Ring, False)


def _wait(kind: type, held: bool) -> None:
    """Wait until there are objects of that kind, or none."""
    deadline_s = time.monotonic() + WAIT_S
    while bool(there := [each for each in gc.get_objects() if isinstance(each, kind)]) is not held:
        expected = f"{kind.__name__}: expected {held}"
        assert time.monotonic() < deadline_s, "\n".join([expected, *_holders(there)])
        del there  # or it would be what holds them
        time.sleep(0.01)


def _holders(objects: list[object], depth: int = 6) -> list[str]:
    """What refers to these, what to that, and so on: who has forgotten to let go."""
    said, seen, known = [], {id(objects)}, objects
    for distance in range(1, depth + 1):
        known = [each for each in gc.get_referrers(*known) if id(each) not in seen]
        known = [each for each in known if not inspect.isframe(each) or each.f_code not in _OURS]
        seen |= {id(known), *map(id, known)}
        said += [f"{distance}: {type(each).__name__} {each!r:.200}" for each in known[:20]]
    return said


_OURS = (_wait.__code__, _holders.__code__)
