"""A client's socket that is lent to a worker process, and what is sent when that is lost (B2).

Worker processes are real where a test kills one; where it matters at which byte one stops, the test
plays the worker with descriptors of its own, as they would have been passed.
"""

from __future__ import annotations

import asyncio
import errno
import os
import pickle
import random
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import psutil
import pytest

from depot.device.host import DeviceWorkers, Lane
from depot.device.messages import INLINE_CALL_BYTES, Message, pack, unpack
from depot.device.resident import RemoteFile
from depot.errors import DatasetUnusable
from depot.http.carrier import ReadInto
from depot.http.depot_api import depot_app
from depot.http.lending import LentTurn
from depot.http.lent_turn import Done
from depot.http.outlet import Outlet
from depot.http.permit import PassedPermit
from depot.http.pump import Pump
from depot.http.turn import Outcome, State
from depot.http.way import Way
from depot.initialise import init_datasets
from depot.reading.reader import VerifyReads
from depot.streams.block_digests import BlockDigests
from depot.streams.sources import Pace
from depot.streams.verified_read import VerifiedRead
from tests.descriptors import open_descriptors
from tests.http.raw import RawClient
from tests.http.servers import serve
from tests.needs import Need, lack
from tests.store.arrivals import eventually
from tests.store.builders import MIB, SLED, A, Node, config, hash_of, off_loop, put
from tests.torture import fault_mount
from tests.torture.fault_fs import Fault
from tests.torture.fault_mount import FaultMount

T = TypeVar("T")
PACE: Final = Pace(idle_timeout_s=30, min_bytes_per_s=1)
LARGE: Final = random.Random(8).randbytes(48 * MIB + 321)
MEDIUM: Final = LARGE[: 12 * MIB + 77]
FILE: Final = RemoteFile("epoch", 7)


class PlayedWorker:
    """A host whose calls wait for the test: it gets the descriptors that a worker would get.

    Attributes:
        answer: the call's future; what happens to it is up to the test.
        call_bytes: how long the message is.
    """

    def __init__(self) -> None:
        self.answer: Future[Any] = Future()
        self.called = asyncio.Event()
        self._message = Message(0, b"")
        self.call_bytes = 0

    def submit_in(self, lane: Lane, _function: Callable[..., T], /, *args: object) -> Future[T]:
        assert lane is Lane.FEEDS
        # The file is no number in this process; the rest crosses as it would.
        self._message = pack(1, args[1:], 1 << 23)
        self.call_bytes = len(self._message.body)
        self.called.set()
        return self.answer

    def begin(self) -> PlayedTurn:
        """Take the call out of the queue, as a worker's thread would."""
        assert self.answer.set_running_or_notify_cancel()
        start, _end, _read, _manner, lent = unpack(self._message)  # type: ignore[misc]
        return PlayedTurn(start, lent)  # type: ignore[has-type]

    def drop(self) -> None:
        """Never begin."""
        self._message.drop()


class PlayedTurn:
    def __init__(self, start: int, lent: tuple[int, int, int]) -> None:
        self.start = start
        self._lent = lent
        self.permit = PassedPermit(*lent[1:])

    def send(self, content: bytes) -> None:
        assert os.write(self._lent[0], content) == len(content)

    def die(self) -> None:
        """Be gone, like a process that was killed."""
        for fd in self._lent:
            os.close(fd)


class Connection:
    """A connection over TCP, and the turn that is to send to it."""

    def __init__(self, ours: socket.socket, client: socket.socket) -> None:
        self.client = client
        self.outlet = Outlet(ours, PACE)
        self.worker = PlayedWorker()
        self.places = asyncio.Semaphore(1)

    def turn(
        self,
        timeout_s: float = 30.0,
        take_back_s: float = 30.0,
        read: ReadInto | None = None,
        end: int = 9000,
    ) -> LentTurn:
        return LentTurn(
            (FILE, self.worker),  # type: ignore[arg-type]
            self.outlet,
            1000,
            end,
            read,
            places=self.places,
            timeout_s=timeout_s,
            check_s=0.01,
            take_back_s=take_back_s,
        )


@pytest.fixture
def connection() -> Iterator[Connection]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with ours, client:
        ours.setblocking(False)
        client.setblocking(False)
        yield Connection(ours, client)


async def began(connection: Connection, turn: LentTurn) -> tuple[asyncio.Task[Outcome], PlayedTurn]:
    taking = asyncio.create_task(turn.take())
    await connection.worker.called.wait()
    return taking, connection.worker.begin()


async def test_a_turn_got_as_far_as_its_worker_says(connection: Connection) -> None:
    turn = connection.turn()
    taking, played = await began(connection, turn)
    assert played.start == 1000
    played.send(b"x" * 500)
    played.die()
    connection.worker.answer.set_result(Done(1500, Outcome(State.SOCKET_FULL)))
    assert await taking == Outcome(State.SOCKET_FULL)
    assert turn.offset == 1500
    turn.abandon()
    connection.client.recv(10_000)
    with pytest.raises(BlockingIOError):  # the connection goes on
        connection.client.recv(1)


@pytest.mark.parametrize("holds", [False, True], ids=["between two blocks", "in a block"])
async def test_b2_after_a_worker_was_killed_the_offset_is_what_it_had_sent(
    connection: Connection, holds: bool
) -> None:
    turn = connection.turn()
    taking, played = await began(connection, turn)
    assert played.permit.hold()
    played.send(b"x" * 1234)
    connection.client.recv(77)
    if not holds:
        played.permit.let_go()
    connection.worker.answer.set_exception(DatasetUnusable("killed"))
    if holds:
        # Killed, and not gone yet: it may still be sending.
        played.send(b"y" * 11)
        done, _ = await asyncio.wait((taking,), timeout=0.05)
        assert not done
    played.die()
    outcome = await taking
    assert outcome.state is State.READ_FAILED
    assert outcome.error is not None
    assert outcome.error.errno == errno.ENODEV
    assert turn.offset == 1000 + 1234 + 11 * holds


async def test_a_worker_that_was_killed_after_its_last_byte_has_failed_nothing(
    connection: Connection,
) -> None:
    turn = connection.turn()
    taking, played = await began(connection, turn)
    played.send(b"x" * 8000)
    played.die()
    connection.worker.answer.set_exception(DatasetUnusable("killed"))
    assert await taking == Outcome(State.SENT)


async def test_b2_a_count_that_cannot_be_costs_the_connection(connection: Connection) -> None:
    turn = connection.turn()
    taking, played = await began(connection, turn)
    played.send(b"x" * 8001)
    played.die()
    connection.worker.answer.set_exception(DatasetUnusable("killed"))
    with pytest.raises(ConnectionResetError):
        await taking
    turn.abandon()
    assert len(connection.client.recv(10_000)) == 8001
    assert connection.client.recv(1) == b""


async def test_b2_a_worker_that_hangs_can_send_no_more_once_it_was_given_up(
    connection: Connection,
) -> None:
    turn = connection.turn(timeout_s=0.05)
    taking, played = await began(connection, turn)
    assert played.permit.hold()
    played.send(b"x" * 20)
    played.permit.let_go()
    # Far more than the turn takes by itself.
    async with asyncio.timeout(30):
        outcome = await taking
    assert outcome.state is State.READ_FAILED
    assert outcome.error is not None
    assert outcome.error.errno == errno.ETIMEDOUT
    assert turn.offset == 1020
    assert not played.permit.hold()
    assert connection.outlet.shared
    played.die()


async def test_a_permit_that_does_not_come_back_costs_the_connection(
    connection: Connection,
) -> None:
    turn = connection.turn(take_back_s=0.05)
    taking, played = await began(connection, turn)
    assert played.permit.hold()
    connection.worker.answer.set_exception(DatasetUnusable("killed"))
    with pytest.raises(ConnectionResetError):
        await taking
    turn.abandon()
    with pytest.raises(BrokenPipeError):
        played.send(b"x")
    played.die()


async def test_a_turn_that_no_worker_begins_in_time_blames_nobody(connection: Connection) -> None:
    turn = connection.turn(timeout_s=0.05)
    assert await turn.take() == Outcome(State.ABANDONED)
    assert turn.offset == 1000
    assert connection.worker.answer.cancelled()
    connection.worker.drop()


async def test_s1_a_turn_that_waits_for_its_place_holds_no_descriptor(
    connection: Connection,
) -> None:
    first, second = connection.turn(), connection.turn(timeout_s=0.05)
    taking, played = await began(connection, first)
    before = await open_descriptors()
    waiting = [asyncio.create_task(connection.turn().take()) for _ in range(20)]
    assert await second.take() == Outcome(State.ABANDONED)
    assert await open_descriptors() == before
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    played.die()
    connection.worker.answer.set_result(Done(1500, Outcome(State.SOCKET_FULL)))
    await taking
    assert not connection.places.locked()


async def test_of_the_digests_of_a_long_artifact_a_turn_takes_its_own_only(
    connection: Connection,
) -> None:
    blocks = 100_000
    digests = BlockDigests(hash_of(LARGE), blocks * MIB, random.Random(5).randbytes(32 * blocks))
    turn = connection.turn(read=VerifiedRead(digests), end=blocks * MIB)
    taking, played = await began(connection, turn)
    assert connection.worker.call_bytes <= INLINE_CALL_BYTES
    played.die()
    connection.worker.answer.set_result(Done(blocks * MIB, Outcome(State.SENT)))
    await taking


async def test_a_cancelled_turn_sends_nothing_more(connection: Connection) -> None:
    turn = connection.turn()
    taking, played = await began(connection, turn)
    assert played.permit.hold()
    taking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await taking
    turn.abandon()
    with pytest.raises(BrokenPipeError):
        played.send(b"x")
    played.die()


SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


@pytest.mark.parametrize("number", SHORTAGES)
async def test_a_worker_without_a_descriptor_or_memory_left_blames_nobody(
    connection: Connection, number: int
) -> None:
    turn = connection.turn()
    taking, played = await began(connection, turn)
    played.die()
    connection.worker.answer.set_exception(OSError(number, "injected"))
    assert (await taking).state is State.SHORT
    assert turn.offset == 1000


async def test_a_turn_for_which_no_pipe_is_left_sends_nothing_and_blames_nobody(
    connection: Connection,
) -> None:
    turn = connection.turn()
    with no_descriptor_left():
        outcome = await turn.take()
    assert outcome.state is State.SHORT
    assert turn.offset == 1000
    assert not connection.worker.called.is_set()
    turn.abandon()
    with pytest.raises(BlockingIOError):  # the connection goes on
        connection.client.recv(1)


@contextmanager
def no_descriptor_left(*pids: int) -> Iterator[None]:
    """Let processes, or this one, open nothing more: all low numbers are taken already."""
    before = [resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids or (0,)]
    for pid, (_, hard) in zip(pids or (0,), before, strict=True):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        for pid, limits in zip(pids or (0,), before, strict=True):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def test_what_a_worker_says_crosses_to_the_agent() -> None:
    done = Done(5, Outcome(State.READ_FAILED, OSError(errno.EIO, "injected")))
    crossed = pickle.loads(pickle.dumps(done))
    assert (crossed.offset, crossed.outcome.state) == (5, State.READ_FAILED)
    assert crossed.outcome.error.errno == errno.EIO


# With real worker processes


@pytest.fixture
def node(tmp_path: Path) -> Node:
    made = Node.make(tmp_path)
    made.workers = DeviceWorkers.PROCESS
    return made


@asynccontextmanager
async def depot(node: Node, way: Way, verify_reads: VerifyReads) -> AsyncIterator[tuple[str, int]]:
    """A depot that has LARGE: its address, and the process that the first dataset is in."""
    async with node.open(verify_reads=verify_reads) as store:
        await store.put_config(config(1, LARGE))
        await put(store, LARGE)
        async with serve(depot_app(store, pump=Pump(way=way))) as service:
            pid = store.status().datasets[A].worker_pid
            assert pid is not None
            yield service.url, pid


ways = pytest.mark.parametrize("way", list(Way))
checks = pytest.mark.parametrize("verify_reads", [VerifyReads.NEVER, VerifyReads.ALWAYS])
REQUEST: Final = f"GET /artifact/sha256/{hash_of(LARGE)} HTTP/1.1"


@ways
@checks
async def test_an_artifact_leaves_whole_on_every_way(
    node: Node, way: Way, verify_reads: VerifyReads
) -> None:
    async with depot(node, way, verify_reads) as (url, _), RawClient.connect(url) as client:
        for start in (0, 5 * MIB + 3):
            await client.send(REQUEST, f"Range: bytes={start}-")
            assert (await client.answer()).body == LARGE[start:]


async def lose_worker(url: str, pid: int, how: signal.Signals) -> None:
    """Fetch an artifact, and lose the worker that sends it on the way."""
    async with RawClient.connect(url) as client:
        await client.send(REQUEST)
        assert (await client.head())[0] == 200
        received = await client.reader.readexactly(9 * MIB + random.randrange(MIB))
        await off_loop(os.kill, pid, how)
        received += await client.reader.readexactly(len(LARGE) - len(received))
        assert received == LARGE


@ways
@checks
async def test_b4_a_worker_is_killed_in_the_middle_of_a_body_and_the_other_goes_on(
    node: Node, way: Way, verify_reads: VerifyReads
) -> None:
    async with depot(node, way, verify_reads) as (url, pid):
        await lose_worker(url, pid, signal.SIGKILL)


async def test_whoever_waits_for_busy_datasets_is_not_cut_off(node: Node) -> None:
    def read_slowly(fd: int, buffer: memoryview, offset: int) -> int:
        time.sleep(0.05)
        return os.preadv(fd, [buffer], offset)

    node.workers = DeviceWorkers.THREAD
    async with node.open(verify_reads=VerifyReads.NEVER) as store:
        await store.put_config(config(1, MEDIUM))
        await put(store, MEDIUM)
        pump = Pump(threads_per_dataset=1, read_timeout_s=0.2, read=read_slowly)
        async with serve(depot_app(store, pump=pump)) as service:

            async def fetch() -> bytes:
                async with RawClient.connect(service.url) as client:
                    await client.send(f"GET /artifact/sha256/{hash_of(MEDIUM)} HTTP/1.1")
                    return (await client.answer()).body

            # Each takes longer alone than any of them may wait for one dataset.
            answers = await asyncio.gather(*(fetch() for _ in range(5)))
    assert all(answer == MEDIUM for answer in answers)


async def test_a_short_read_that_finds_datasets_busy_blames_nobody_and_waits_again(
    node: Node,
) -> None:
    def read_slowly(fd: int, buffer: memoryview, offset: int) -> int:
        time.sleep(0.05)
        return os.preadv(fd, [buffer], offset)

    node.workers = DeviceWorkers.THREAD
    async with node.open(verify_reads=VerifyReads.NEVER) as store:
        await store.put_config(config(1, MEDIUM))
        await put(store, MEDIUM)
        pump = Pump(threads_per_dataset=1, read_timeout_s=0.2, read=read_slowly)
        async with serve(depot_app(store, pump=pump)) as service:

            async def fetch(start: int) -> bool:
                async with RawClient.connect(service.url) as client:
                    wanted = f"Range: bytes={start}-{start + 999}"
                    await client.send(f"GET /artifact/sha256/{hash_of(MEDIUM)} HTTP/1.1", wanted)
                    return (await client.answer()).body == MEDIUM[start : start + 1000]

            # Together they take longer than any of them may wait for one dataset.
            assert all(await asyncio.gather(*(fetch(1000 * number) for number in range(20))))
        for found in store.status().datasets:
            assert (found.state, found.artifacts, found.last_error) == ("healthy", 1, None)


async def test_a_worker_that_cannot_be_replaced_for_want_of_descriptors_is_replaced_later(
    node: Node,
) -> None:
    async with node.open() as store:
        await store.put_config(config(1, LARGE))
        await put(store, LARGE)
        pid = store.status().datasets[A].worker_pid
        assert pid is not None
        await off_loop(os.kill, pid, signal.SIGKILL)
        await eventually(lambda: store.status().datasets[A].state == "missing")
        with no_descriptor_left():
            await store.check_datasets()
            assert store.status().datasets[A].state == "missing"
        await store.check_datasets()
        found = store.status().datasets[A]
        assert (found.state, found.artifacts) == ("healthy", 1)


@ways
async def test_the_end_of_a_worker_casts_no_doubt_on_what_its_device_holds(
    node: Node, way: Way
) -> None:
    async with node.open(verify_reads=VerifyReads.NEVER) as store:
        await store.put_config(config(1, LARGE))
        await put(store, LARGE)
        async with serve(depot_app(store, pump=Pump(way=way))) as service:
            pid = store.status().datasets[A].worker_pid
            assert pid is not None
            await lose_worker(service.url, pid, signal.SIGKILL)
            assert store.status().datasets[A].last_error == "the worker process ended"
            await store.check_datasets()
            found = store.status().datasets[A]
            assert (found.state, found.artifacts, found.in_doubt) == ("healthy", 1, 0)


@ways
@checks
@pytest.mark.parametrize("whose", ["its workers", "the agent"])
async def test_a_want_of_descriptors_is_nobodys_fault_and_the_answer_goes_on(
    node: Node, way: Way, verify_reads: VerifyReads, whose: str
) -> None:
    async with node.open(verify_reads=verify_reads) as store:
        await store.put_config(config(1, LARGE))
        await put(store, LARGE)
        workers = [dataset.worker_pid or 0 for dataset in store.status().datasets]
        async with (
            serve(depot_app(store, pump=Pump(way=way))) as service,
            RawClient.connect(service.url) as client,
        ):
            # A worker that reads for the first time loads what it reads with.
            await client.send(REQUEST, "Range: bytes=0-9")
            assert (await client.answer()).body == LARGE[:10]
            await client.send(REQUEST)
            assert (await client.head())[0] == 200
            received = await client.reader.readexactly(9 * MIB)
            with no_descriptor_left(*(workers if whose == "its workers" else ())):
                received += await client.reader.readexactly(20 * MIB)
            received += await client.reader.readexactly(len(LARGE) - len(received))
            assert received == LARGE
        for found in store.status().datasets:
            assert (found.state, found.artifacts, found.in_doubt) == ("healthy", 1, 0)
            assert found.last_error is None


async def test_b4_a_worker_is_stopped_in_the_middle_of_a_body_and_the_other_goes_on(
    node: Node,
) -> None:
    async with depot(node, Way.COPY, VerifyReads.NEVER) as (url, pid):
        await lose_worker(url, pid, signal.SIGSTOP)


@checks
async def test_s2_readers_that_take_nothing_hold_up_nobody(
    node: Node, verify_reads: VerifyReads
) -> None:
    async with depot(node, Way.SPLICE, verify_reads) as (url, pid), AsyncExitStack() as connections:
        stalled = []
        for _ in range(40):
            client = await connections.enter_async_context(RawClient.connect(url))
            await client.send(REQUEST)
            stalled.append(client)
        for client in stalled:
            await client.head()
        async with RawClient.connect(url) as quick:
            await quick.send(REQUEST)
            assert (await quick.answer()).body == LARGE
        # Four send at once, and each has at most one that reads ahead.
        threads = await off_loop(lambda: psutil.Process(pid).num_threads())
        assert threads < 40
        assert (await stalled[7].reader.readexactly(1000)) == LARGE[:1000]


# With a device that fails or hangs in the middle of a file


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[FaultMount]:
    if (reason := fault_mount.unusable()) is not None:
        lack(Need.MOUNTS, reason)
    with fault_mount.fault_mount(tmp_path) as mounted:
        yield mounted


@pytest.mark.parametrize("way", [Way.AUTO, Way.COPY, Way.SPLICE])
@checks
@pytest.mark.parametrize("effect", ["error", "hang"])
async def test_b4_a_read_fails_or_hangs_in_the_middle_of_a_body_and_the_other_goes_on(
    tmp_path: Path, mount: FaultMount, way: Way, verify_reads: VerifyReads, effect: str
) -> None:
    node = await off_loop(on_mount, tmp_path, mount)
    async with node.open(verify_reads=verify_reads, mirror_lag_s=60.0) as store:
        await store.put_config(config(1, MEDIUM))
        assert (await put(store, MEDIUM)).copies == 2
        await off_loop(forget, node.paths[A] / str(hash_of(MEDIUM)))
        # Reads of 128 KiB at most: some MiB are sent before, and some would be after.
        under = f"/m2-a/{hash_of(MEDIUM)}"
        fault = Fault(call="read", effect=effect, error=errno.EIO, nth=60, times=None, under=under)
        await off_loop(mount.arm, fault)
        pump = Pump(way=way, read_timeout_s=1.0)
        async with (
            serve(depot_app(store, pump=pump)) as service,
            RawClient.connect(service.url) as client,
        ):
            await client.send(f"GET /artifact/sha256/{hash_of(MEDIUM)} HTTP/1.1")
            assert (await client.answer()).body == MEDIUM
            met = await off_loop(mount.lift)
            assert met.struck, "or this shows nothing"
            if effect == "hang":
                # What hung may still have the connection: it was ended all the same.
                assert await client.rest() == b""


def on_mount(root: Path, mount: FaultMount) -> Node:
    """A node whose first dataset is on the mount."""
    paths = [mount.path / "m2-a", root / "m2-b"]
    for path in paths:
        path.mkdir()
    init_datasets(paths, sled_id=SLED)
    return Node(root, paths, {}, workers=DeviceWorkers.PROCESS)


def forget(file: Path) -> None:
    """Have a file read from its filesystem again."""
    fd = os.open(file, os.O_RDONLY)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)
