"""Small artifacts that are not in memory: read for all who ask at the same time, or not at all."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Final, cast

import pytest

from depot.artifact import ArtifactHash
from depot.concurrency.foreground import Foreground
from depot.dataset.page_cache import CachedFile
from depot.device.host import DeviceWorkers
from depot.http.depot_api import depot_app
from depot.http.fast_path import FAST_PATH
from depot.http.hot_artifacts import HotArtifacts
from depot.http.limits import HttpLimits
from depot.http.service import ACTIVITY
from depot.mirrors.mirror_set import MirrorSet
from depot.reading.holdings import Holdings
from depot.reading.reader import VerifyReads
from depot.state.tables import StateStore
from depot.store import ArtifactStore
from tests.fakes import FakeStore
from tests.http.raw import RawClient
from tests.http.servers import serve
from tests.http.test_fast_path import OTHER, SMALL, Depot, ask, depot, get, request, round_trip
from tests.http.test_verified_reads import Harm, flip, hurt, truncate
from tests.memory_dir import memory_dir
from tests.needs import need_page_cache
from tests.seccomp import CACHESTAT, NONE, OPENAT2
from tests.store.builders import A, B, Node, config, hash_of, off_loop, put


@pytest.fixture
def empty(tmp_path: Path) -> FakeStore:
    return FakeStore(tmp_path)


@pytest.fixture
async def store(empty: FakeStore) -> FakeStore:
    for content in (SMALL, OTHER):
        await empty.add(content)
    empty.reads_together = asyncio.Event()
    return empty


@pytest.fixture
async def served(store: FakeStore) -> AsyncIterator[Depot]:
    app = depot_app(store, hot=HotArtifacts(0))
    async with serve(app) as service:
        yield Depot(service, app[FAST_PATH])


def let_read(store: FakeStore) -> None:
    assert store.reads_together is not None
    store.reads_together.set()


async def test_who_asks_at_the_same_time_is_given_what_is_read_once(
    store: FakeStore, served: Depot
) -> None:
    async with asyncio.TaskGroup() as group:

        async def fetch() -> None:
            async with RawClient.connect(served.url) as client:
                await client.send(get(SMALL))
                assert (await client.answer()).body == SMALL

        for _ in range(20):
            group.create_task(fetch())
        while served.service.connections < 20:
            await round_trip(served)
        let_read(store)
    assert served.fast.answers == 20
    assert store.reads < 20


async def test_what_is_sent_behind_a_request_that_is_read_for_comes_after_it(
    store: FakeStore, served: Depot
) -> None:
    async with RawClient.connect(served.url) as client:
        await client.send_bytes(request(SMALL))
        await round_trip(served)
        await client.send_bytes(request(OTHER)[:50])
        await round_trip(served)
        let_read(store)
        await client.send_bytes(request(OTHER)[50:])
        for content in (SMALL, OTHER):
            assert (await client.answer()).body == content
        assert served.fast.answers == 0
        assert await served.is_fast(client, SMALL)


async def test_who_ends_its_output_while_it_is_read_for_is_answered(
    store: FakeStore, served: Depot
) -> None:
    async with RawClient.connect(served.url) as client:
        await client.send_bytes(request(SMALL))
        await round_trip(served)
        client.writer.write_eof()
        await round_trip(served)
        let_read(store)
        assert (await client.answer()).body == SMALL
        assert await client.rest() == b""


async def test_who_leaves_while_it_is_read_for_leaves_nothing_behind(
    store: FakeStore, served: Depot
) -> None:
    async with RawClient.connect(served.url) as client:
        await client.send_bytes(request(SMALL))
        await round_trip(served)
        client.reset()
        while served.service.connections:
            await round_trip(served)
        let_read(store)
    async with RawClient.connect(served.url) as client:
        assert await served.is_fast(client, SMALL)
    assert served.fast.answers == 1


async def test_b4_a_read_that_hangs_is_left_to_the_plain_path(
    store: FakeStore, served: Depot
) -> None:
    async with RawClient.connect(served.url) as client:
        await client.send(get(SMALL))
        async with asyncio.timeout(20):
            assert (await client.answer()).body == SMALL
        assert not await served.is_fast(client, SMALL), "for a while it is not tried again"
    assert served.fast.answers == 0


async def test_a_request_that_is_read_for_is_neither_idle_nor_late(store: FakeStore) -> None:
    limits = HttpLimits(header_timeout_s=0.05, idle_timeout_s=0.05)
    app = depot_app(store, limits=limits, hot=HotArtifacts(0))
    async with serve(app, limits) as service, RawClient.connect(service.url) as client:
        await client.send(get(SMALL))
        async with RawClient.connect(service.url) as silent:
            assert await silent.rest() == b""
        let_read(store)
        assert (await client.answer()).body == SMALL
        async with asyncio.timeout(10):
            assert await client.rest() == b"", "now it is idle"


async def test_s3_what_is_read_for_a_client_is_work_that_a_drain_waits_for(
    store: FakeStore,
) -> None:
    app = depot_app(store, hot=HotArtifacts(0))
    async with serve(app) as service, RawClient.connect(service.url) as client:
        await client.send_bytes(request(SMALL))
        while not app[ACTIVITY].running:
            await round_trip(Depot(service, app[FAST_PATH]))
        draining = asyncio.create_task(service.drain(20))
        async with RawClient.connect(service.url) as other:
            await other.send("GET /health/live HTTP/1.1")
            assert (await other.answer()).code == "503 ShuttingDown"
        assert not draining.done()
        let_read(store)
        assert (await client.answer()).status == 200
        await draining


@pytest.mark.parametrize("verify_reads", ["always", "never"])
async def test_b2_rotten_bytes_never_take_the_fast_path(node: Node, verify_reads: str) -> None:
    async with node.open(verify_reads=VerifyReads(verify_reads)) as store:
        await store.put_config(config(1, SMALL))
        await put(store, SMALL)
        await hurt(node, A, SMALL, flip(3))
        async with depot(store) as served, RawClient.connect(served.url) as client:
            await client.send(get(SMALL))
            answer = await client.answer()
            assert served.fast.answers == 0
            assert (answer.body == SMALL) is (verify_reads == "always")
    assert await node.read(B, SMALL) == SMALL


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path)


async def test_what_the_page_cache_has_is_answered_at_once(node: Node) -> None:
    node.workers = DeviceWorkers.PROCESS
    contents = [bytes([number]) * size for number, size in enumerate([0, 1, 4096, 64 << 10])]
    async with stocked(node, *contents) as (store, served), served.warm() as client:
        pid = store.status().datasets[A].worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            for content in contents:
                assert await served.is_fast(client, content)
        finally:
            os.kill(pid, signal.SIGCONT)


async def fetch(served: Depot, content: bytes) -> None:
    async with RawClient.connect(served.url) as client:
        await client.send(get(content))
        assert (await client.answer()).body == content


async def test_b4_what_the_page_cache_has_not_is_read_by_the_worker(node: Node) -> None:
    node.workers = DeviceWorkers.PROCESS
    async with stocked(node, SMALL) as (store, served), served.warm() as client:
        for dataset in (A, B):
            await off_loop(forget, node.file(dataset, SMALL))
        assert cached(store) is None
        assert await served.is_fast(client, SMALL)
        assert cached(store) == SMALL


async def test_where_the_disk_is_in_this_process_it_is_asked_for_every_byte(node: Node) -> None:
    node.workers = DeviceWorkers.THREAD
    async with stocked(node, SMALL) as (store, _):
        assert cached(store) is None


_UNDER_A_FILTER = """
import asyncio, errno, sys
from pathlib import Path
from depot.device.host import DeviceWorkers
from tests.seccomp import refuse
from tests.store.builders import Node, config, hash_of, put

async def main():
    node = Node.make(Path(sys.argv[1]))
    node.workers = DeviceWorkers.PROCESS
    refuse(int(sys.argv[2]), errno.EPERM)
    async with node.open() as store:
        await store.put_config(config(1, b"small"))
        await put(store, b"small")
        file = store.holdings().cached_file(hash_of(b"small"), 5)
        print("nothing" if file is None else file.read())
        print(await store.holdings().read([hash_of(b"small")], 5))

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("number", "at_once"), [(CACHESTAT, "nothing"), (OPENAT2, "nothing"), (NONE, "b'small'")]
)
def test_where_a_call_is_refused_the_worker_is_asked_for_every_byte(
    tmp_path: Path, number: int, at_once: str
) -> None:
    need_page_cache(tmp_path)
    command = [sys.executable, "-c", _UNDER_A_FILTER, str(tmp_path), str(number)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-2:] == [at_once, "[b'small']"]


@pytest.fixture
def node_in_memory() -> Iterator[Node]:
    if memory_dir() is None:
        pytest.skip("there is no filesystem in memory")
    with TemporaryDirectory(dir=memory_dir()) as root:
        yield Node.make(Path(root))


async def test_b4_where_the_filesystem_is_not_known_to_tell_the_worker_is_asked_for_every_byte(
    node_in_memory: Node,
) -> None:
    node = node_in_memory
    node.workers = DeviceWorkers.PROCESS
    async with node.open() as store:
        await store.put_config(config(1, SMALL))
        await put(store, SMALL)
        assert store.holdings().cached_file(hash_of(SMALL), len(SMALL)) is None


@dataclass(frozen=True)
class FakeMirror:
    file: CachedFile

    def good_copy(self, artifact: ArtifactHash) -> ArtifactHash:
        return artifact

    def cached_file(self, _artifact: ArtifactHash, _size_bytes: int) -> CachedFile:
        return self.file


def test_b4_of_two_copies_the_one_that_would_be_read_first_is_asked_for() -> None:
    suspect, healthy = (FakeMirror(CachedFile(name, 1, 0)) for name in ("suspect", "healthy"))
    readable = [healthy, suspect]
    mirrors = SimpleNamespace(all=(suspect, healthy), readable=lambda: readable)
    holdings = Holdings(cast(MirrorSet, mirrors), cast(StateStore, None), Foreground())
    assert holdings.cached_file(hash_of(SMALL), 1) is healthy.file
    readable.clear()
    assert holdings.cached_file(hash_of(SMALL), 1) is None


HARMS: Final[dict[str, Harm]] = {
    "flipped": flip(3),
    "truncated": truncate(2),
    "longer": lambda content: content + b"more",
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
async def test_b5_what_is_found_wrong_on_the_first_dataset_is_not_passed_over(
    node: Node, harm: Harm
) -> None:
    node.workers = DeviceWorkers.PROCESS
    async with stocked(node, SMALL) as (store, served), served.warm() as client:
        await hurt(node, A, SMALL, harm)
        assert cached(store) != SMALL
        assert not await served.is_fast(client, SMALL)
        assert cached(store) == SMALL, "the other dataset's, or a new one"


@asynccontextmanager
async def stocked(node: Node, *contents: bytes) -> AsyncIterator[tuple[ArtifactStore, Depot]]:
    """A store with these artifacts, and its depot, which keeps none of them."""
    await off_loop(need_page_cache, node.root)
    async with node.open() as store:
        await store.put_config(config(1, *contents))
        for content in contents:
            await put(store, content)
        app = depot_app(store, hot=HotArtifacts(0))
        async with serve(app) as service:
            yield store, Depot(service, app[FAST_PATH])


def cached(store: ArtifactStore) -> bytes | None:
    """What the page cache has of the copy that is read first."""
    file = store.holdings().cached_file(hash_of(SMALL), len(SMALL))
    return None if file is None else file.read()


def forget(path: Path) -> None:
    """Have a file in no memory but the disk's."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(fd)


@pytest.mark.parametrize("workers", DeviceWorkers)
async def test_small_artifacts_of_all_sizes_are_read_together_wherever_they_are(
    node: Node, workers: DeviceWorkers
) -> None:
    node.workers = workers
    contents = [bytes([number]) * size for number, size in enumerate([0, 1, 4096, *[64 << 10] * 5])]
    async with node.open() as store:
        await store.put_config(config(1, *contents))
        for content in contents:
            await put(store, content)
        found = await store.holdings().read([*map(hash_of, contents), hash_of(b"none")], 64 << 10)
        assert found == [*contents, None]
        async with depot(store) as served:
            for content in contents:
                for dataset in (A, B):
                    await off_loop(forget, node.file(dataset, content))
            async with asyncio.TaskGroup() as group:
                for content in contents * 3:
                    group.create_task(fetch(served, content))
            assert served.fast.answers == len(contents) * 3


async def test_b4_a_worker_that_was_killed_leaves_the_request_to_the_plain_path(
    node: Node,
) -> None:
    node.workers = DeviceWorkers.PROCESS
    async with node.open() as store:
        await store.put_config(config(1, SMALL))
        await put(store, SMALL)
        async with depot(store) as served, RawClient.connect(served.url) as client:
            pid = store.status().datasets[A].worker_pid
            assert pid is not None
            for dataset in (A, B):
                await off_loop(forget, node.file(dataset, SMALL))
            os.kill(pid, signal.SIGSTOP)
            await off_loop(os.waitid, os.P_PID, pid, os.WSTOPPED)  # which takes it a moment
            await client.send_bytes(request(SMALL))
            await round_trip(served)
            os.kill(pid, signal.SIGKILL)
            assert (await client.answer()).body == SMALL
        assert served.fast.answers == 0


async def test_what_is_stored_after_somebody_asked_in_vain_is_found(node: Node) -> None:
    async with node.open() as store, depot(store) as served, served.warm() as client:
        await store.put_config(config(1, SMALL))
        assert (await ask(client, SMALL)).code == "404 NotFound"
        await put(store, SMALL)
        assert await served.is_fast(client, SMALL)


async def test_b4_what_only_the_second_dataset_has_is_read_there(node: Node) -> None:
    async with node.open() as store:
        await store.put_config(config(1, SMALL))
        await put(store, SMALL)
    await off_loop(node.file(A, SMALL).unlink)
    async with node.open() as store, depot(store) as served, served.warm() as client:
        assert await served.is_fast(client, SMALL)
