"""What the state machine holds in its hands: a store on two real datasets, and its model.

The store's event loop runs only while a step waits for it; a put that streams stays where it is
between steps, at its source's gate. Nothing here decides what ought to happen: `tests.model.oracle`
does.
"""

from __future__ import annotations

import asyncio
import errno
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, TypeVar

from hypothesis import note

from depot import (
    ArtifactConfig,
    ArtifactHash,
    ArtifactStore,
    Generation,
    Put,
    Stored,
    StoreOptions,
    init_datasets,
)
from depot.dataset.disk import Disk as SystemDisk
from depot.dataset.disk import system_disk
from depot.device.host import DeviceWorkers
from depot.errors import DepotError, Io, LengthMismatch, NoDataset, QuotaExceeded
from tests import ondisk
from tests.memory_dir import memory_dir
from tests.model import oracle
from tests.model.gated import WAIT_S, GatedSource
from tests.model.oracle import Refusal, Sled
from tests.model.state import Disk, OpenPut, Slot
from tests.store.faulty import FaultyDisk, Hang

T = TypeVar("T")

SLED: Final = "sled-under-test"
FOREIGN_HASH: Final = "f" * 64
SIZES_BYTES: Final = (1, 100, 4096, 9000, 12000, 16384, 20000, oracle.MAX_ARTIFACT_BYTES, 30000)
POOL: Final = {
    ondisk.sha256(content): content
    for content in (b"", *(bytes([65 + i]) * size for i, size in enumerate(SIZES_BYTES)))
}
NAMES: Final = sorted(POOL)


def hashes(names: frozenset[str]) -> frozenset[ArtifactHash]:
    return frozenset(map(ArtifactHash.parse, names))


@dataclass(eq=False)
class LivePut:
    """An open put of the store, beside its model; `staged` once it streams."""

    model: OpenPut
    context: AbstractAsyncContextManager[Put]
    put: Put
    source: GatedSource
    receiving: asyncio.Task[Stored] | None = None
    staged: list[int] = field(default_factory=list)


class Rig:
    """A sled under test.

    Attributes:
        disks: every dataset directory there ever was, wherever it is now.
        lives: the puts that are open.
        may_go: artifacts that the last step was allowed to delete.
        group_commit: announced bodies, all of them short here, are read whole before any is staged.
        hardware: the disk behind each path, at which calls can be made to hang; not in processes.
    """

    def __init__(self, *, group_commit: bool, workers: DeviceWorkers) -> None:
        self.group_commit = group_commit
        self.workers = workers
        self.root = Path(tempfile.mkdtemp(dir=memory_dir()))
        self.runner = asyncio.Runner()
        self.sled = Sled((Slot(0, self.root / "m2-a"), Slot(1, self.root / "m2-b")))
        self.disks: list[Disk] = []
        self.lives: list[LivePut] = []
        self.may_go: set[str] = set()
        self.hardware = {slot.path: FaultyDisk() for slot in self.sled.slots}
        self.grace = False
        self._store: ArtifactStore | None = None

    @property
    def store(self) -> ArtifactStore:
        assert self._store is not None
        return self._store

    @property
    def state_dir(self) -> Path:
        return self.root / "state"

    def open(self, *, grace: bool) -> None:
        self.grace = self.sled.grace = grace
        options = StoreOptions(
            quota_bytes=oracle.QUOTA_BYTES,
            max_artifact_size_bytes=oracle.MAX_ARTIFACT_BYTES,
            max_concurrent_puts=oracle.MAX_PUTS,
            max_concurrent_copies=oracle.MAX_PUTS,
            delete_grace_s=3600.0 if grace else 0.0,
            group_commit=self.group_commit,
            device_workers=self.workers,
        )
        paths = [slot.path for slot in self.sled.slots]
        opening = ArtifactStore.open(
            paths, state_dir=self.state_dir, options=options, disk_of=self._disk_of
        )
        self._store = self.runner.run(opening)
        self.sled.restart()
        self._take_the_marks_that_were_kept()

    def _disk_of(self, path: Path) -> SystemDisk:
        return self.hardware[path] if self.can_hang else system_disk(path)

    @property
    def can_hang(self) -> bool:
        """Calls can be made to hang: not where they are another process's."""
        return self.workers is DeviceWorkers.THREAD

    def close(self) -> None:
        for live in list(self.lives):
            self.cancel(live)
        self.runner.run(self.store.close())
        self._store = None

    def demolish(self) -> None:
        """Leave nothing behind, whatever state a failed step has left."""
        try:
            for live in self.lives:
                live.source.send(b"")
                if live.receiving:
                    self.runner.run(_gather(live.receiving))
                self.runner.run(_leave(live.context))
            if self._store is not None:
                self.runner.run(self._store.close())
        finally:
            self.runner.close()
            shutil.rmtree(self.root)

    # Asking the store

    def attempt(self, outcome: Awaitable[T]) -> T | DepotError:
        async def run() -> T | DepotError:
            try:
                return await outcome
            except DepotError as error:
                note(f"    {type(error).__name__}: {error}")
                return error

        return self.runner.run(run())

    def expect(self, refusal: Refusal | None, outcome: Awaitable[T]) -> T | None:
        value = self.attempt(outcome)
        if isinstance(value, DepotError):
            assert type(value) is refusal, (value, refusal)
            return None
        assert refusal is None, f"expected {refusal}"
        return value

    def put_config(self, generation: int, artifacts: frozenset[str]) -> None:
        config = ArtifactConfig.make(generation, hashes(artifacts))
        before = self.sled.standing
        expected = self.sled.put_config(generation, artifacts, grace=self.grace)
        self.expect(expected, self.store.put_config(config))
        if before in ("behind", "conflicted"):
            self._take_the_grace()

    def put_config_during_a_delete(self, generation: int, artifacts: frozenset[str]) -> int | None:
        """A config that arrives when a file has lost its name and is not yet gone.

        Returns the number of artifacts deleted; None when there was nothing to delete.
        """
        doomed = [slot for slot in self.sled.attached if self.sled.unwanted(slot)]
        all_there = all(slot.truthful for slot in self.sled.attached)
        if not (doomed and all_there and self.can_hang):
            return None
        hang = self.hardware[doomed[0].path].hang("rename", name="leaving-")

        async def overtake() -> int:
            deleting = asyncio.create_task(self.store.reconcile())
            await asyncio.to_thread(hang.wait_begun)
            config = ArtifactConfig.make(generation, hashes(artifacts))
            await self.store.put_config(config)
            hang.let_go()
            async with asyncio.timeout(WAIT_S):
                return await deleting

        self.sled.put_config(generation, artifacts, grace=self.grace)
        return self.runner.run(overtake())

    def pins(self) -> dict[str, frozenset[str]]:
        try:
            pins = self.store.pins()
        except NoDataset:
            return {}
        return {name: frozenset(map(str, held)) for name, held in pins.items()}

    def observe(self) -> None:
        """A dataset that went away may have been noticed by anything that touched it."""
        for slot, dataset in zip(self.sled.slots, self.store.status().datasets, strict=True):
            if slot.attached and not dataset.mounted:
                assert not slot.truthful, f"{slot.path} is there: {dataset.last_error}"
                slot.detach()
            assert dataset.mounted == (slot.attached is not None)
            assert dataset.state == ("healthy" if slot.attached else "missing")

    # Puts

    def begin_put(
        self, name: str, generation: int, length_bytes: int | None, *, counted: bool
    ) -> LivePut | None:
        self.observe()  # of a step that puts twice, the first may have touched what is gone
        expected = self.sled.admit(name, generation, length_bytes, counted=counted)
        context = self.store.begin_put(
            ArtifactHash.parse(name), Generation(generation), length_bytes, counted=counted
        )
        refusal = expected if isinstance(expected, type) else None
        put = self.expect(refusal, context.__aenter__())
        if put is None:
            return None
        if isinstance(expected, int):
            assert put.held is not None
            assert put.held.copies == expected
            self.runner.run(_leave(context))
            return None
        assert put.held is None
        assert isinstance(expected, OpenPut)
        self.sled.puts.append(expected)
        live = LivePut(expected, context, put, GatedSource(self.runner.get_loop()))
        self.lives.append(live)
        return live

    def stream(self, live: LivePut) -> None:
        """Let the store read the body up to the gate before its first byte."""
        self.sled.stream(live.model)
        if not self._read_whole(live):
            live.staged = self.sled.stage(live.model)
        staged = len(self._staged_files())

        async def begin() -> None:
            live.receiving = asyncio.create_task(live.put.receive(live.source))
            async with asyncio.timeout(WAIT_S):
                await live.source.reading.wait()

        self.runner.run(begin())
        self.until(lambda: len(self._staged_files()) == staged + len(live.staged))

    def send(self, live: LivePut, content: bytes) -> None:
        self._send(live, content)
        self._judge(live, content)

    def send_up_to_its_name(self, live: LivePut) -> list[Hang]:
        """Send it whole, and stop where its file is about to get the artifact's name.

        By then the fence has let it pass once; `land` goes on. Its length was announced, and it
        streams to every dataset in a slot: no quota and no missing dataset ends it before that.
        """
        name = live.model.name
        if not live.receiving:
            self.stream(live)
        assert live.model.streams_to
        paths = [self.sled.slots[index].path for index in live.model.streams_to]
        # On all of them, or the one that is through would not wait for long for the other.
        hangs = [self.hardware[path].hang("rename", name=f"-> {name}") for path in paths]
        self._send(live, POOL[name])

        async def wait() -> None:
            for hang in hangs:
                await asyncio.to_thread(hang.wait_begun)

        self.runner.run(wait())
        return hangs

    def land(self, live: LivePut, hangs: list[Hang]) -> None:
        """Let its file have its name, and see how it ends."""
        for hang in hangs:
            hang.let_go()
        name = live.model.name
        self._judge(live, POOL[name])
        for slot in self.sled.attached:  # also when it was refused: then it has no name any more
            assert (slot.path / name).exists() == (name in slot.copies), f"G5 {name}"

    def _send(self, live: LivePut, content: bytes) -> None:
        if not live.receiving:
            self.stream(live)
        live.source.send(content)
        if self._read_whole(live):
            live.staged = self.sled.stage(live.model)

    def _judge(self, live: LivePut, content: bytes) -> None:
        whole = self._read_whole(live)
        expected = self.sled.finish(live.model, content, live.staged, whole=whole)
        stored = self.attempt(self.join(live))
        if isinstance(stored, Stored):
            assert (stored.datasets, stored.copies) == (live.model.healthy, expected), expected
        elif expected is Io and live.model.length_bytes is None:
            assert type(stored) in (Io, QuotaExceeded)  # either is true of a mixed failure
        elif expected is LengthMismatch and not live.staged and not (whole and self.sled.attached):
            assert type(stored) in (Io, LengthMismatch)  # no dataset is left: which is seen first?
        else:
            assert type(stored) is expected, (stored, expected)
        self.leave(live)

    def lose(self, live: LivePut, content: bytes) -> None:
        """The connection breaks after the last byte, before the end."""
        if not live.receiving:
            self.stream(live)
        assert live.receiving is not None
        self.sled.puts.remove(live.model)
        live.source.fail(content, ConnectionResetError(errno.ECONNRESET, "gone"))
        assert isinstance(self.runner.run(_gather(live.receiving)), ConnectionResetError)
        self.leave(live)

    def cancel(self, live: LivePut) -> None:
        """Cancel it in mid-stream, and see that nothing of it stays."""
        if not live.receiving:
            self.stream(live)
        assert live.receiving is not None
        self.sled.puts.remove(live.model)
        live.receiving.cancel()
        outcome = self.runner.run(_gather(live.receiving))
        assert isinstance(outcome, asyncio.CancelledError)
        assert live.source.aborted
        self.leave(live)
        live.source.send(POOL[live.model.name])  # the read that was under way
        self.until(self._nothing_is_left_behind)

    def _read_whole(self, live: LivePut) -> bool:
        return self.group_commit and live.model.length_bytes is not None

    async def join(self, live: LivePut) -> Stored:
        assert live.receiving is not None
        async with asyncio.timeout(WAIT_S):
            return await live.receiving

    def leave(self, live: LivePut) -> None:
        self.lives.remove(live)
        if live.model in self.sled.puts:
            self.sled.puts.remove(live.model)
        self.runner.run(_leave(live.context))

    def _nothing_is_left_behind(self) -> bool:
        for slot, dataset in zip(self.sled.slots, self.store.status().datasets, strict=True):
            writers = [live for live in self.lives if slot.index in live.staged]
            if slot.truthful and len(ondisk.staged_files(slot.path)) > len(writers):
                return False
            if dataset.reserved_bytes != self.sled.reserved_bytes(slot):
                return False
        return True

    def _staged_files(self) -> list[Path]:
        return [path for disk in self.disks for path in ondisk.staged_files(disk.path)]

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for what threads or processes do that nobody awaits."""
        deadline = time.monotonic() + WAIT_S
        while not condition():
            assert time.monotonic() < deadline, "it never happened"
            if self.can_hang:
                time.sleep(0.0005)
            else:  # what another process answers is read by the event loop
                self.runner.run(asyncio.sleep(0.0005))

    # Datasets

    def install(self, slot: Slot) -> None:
        """A new disk, with other people's files on it."""
        slot.path.mkdir()
        init_datasets([slot.path], sled_id=SLED)
        (slot.path / "lost+found").mkdir()
        (slot.path / "notes.txt").write_text("somebody's")
        (slot.path / f"{FOREIGN_HASH}.part").write_text("somebody's")
        (slot.path / FOREIGN_HASH.upper()).write_text("somebody's")
        (slot.path / FOREIGN_HASH).symlink_to("notes.txt")
        slot.present = Disk(slot.path)
        self.disks.append(slot.present)

    def take_away(self, slot: Slot) -> None:
        disk, slot.present = slot.present, None
        if disk is None:
            return
        away = self.root / f"away-{self.disks.index(disk)}"
        disk.path.rename(away)
        disk.path = away
        slot.shelf.append(disk)

    def bring_back(self, slot: Slot, disk: Disk) -> None:
        self.take_away(slot)
        slot.shelf.remove(disk)
        disk.path.rename(slot.path)
        disk.path, slot.present = slot.path, disk

    def check_datasets(self) -> None:
        # Once to notice what went, once more to take what stands in its place.
        self.runner.run(self.store.check_datasets())
        self.runner.run(self.store.check_datasets())
        states = [dataset.mounted for dataset in self.store.status().datasets]
        assert states == [slot.present is not None for slot in self.sled.slots]
        self._take_the_order_in_which_they_came()
        floor, came = self.sled.floor, self.sled.coming()
        ambiguous = self.sled.standing == "conflicted" or len(came) > 1
        self.sled.notice()
        if len(came) > 1 and self.sled.standing == "conflicted":
            self._take_the_one_that_was_in_force(came)
        if ambiguous and self.sled.floor != floor:
            self._take_the_grace()
        self._take_the_marks_that_were_kept()
        if self.sled.witness is None and self.sled.standing in ("empty", "unknown"):
            # With no config ever, what went while nothing was asked may or may not have been seen.
            self.sled.standing = self.store.status().ledger

    def _take_the_grace(self) -> None:
        """More than half of what? Which of several configs was looked at is not laid down."""
        if self.sled.standing == "clear":
            ledgers = [ondisk.read_ledger(x.path) for x in self.sled.slots if x.truthful]
            self.sled.take_grace(ledgers)

    def _take_the_marks_that_were_kept(self) -> None:
        """What was said to be damaged may be said so again, or have to be found out again.

        So may what has not as many bytes as were verified: that is known if it was written down.
        """
        for slot in self.sled.attached:
            assert slot.attached is not None
            short = {n for n, copy in slot.copies.items() if copy.size_bytes != len(POOL[n])}
            asked = (slot.attached.marked | short) & slot.copies.keys()
            slot.attached.marked -= asked
            for name in asked:
                detail = self.runner.run(self.store.describe(ArtifactHash.parse(name)))
                slot.copies[name].damaged = detail.copies[slot.index].damaged
        self._take_what_is_in_doubt()

    def _take_what_is_in_doubt(self) -> None:
        """Of copies that differ in size those are in doubt that were never verified."""
        attached = self.sled.attached
        for name in sorted(self.sled.stored):
            holders = [slot for slot in attached if slot.good(name)]
            if len({slot.copies[name].size_bytes for slot in holders}) > 1:
                detail = self.runner.run(self.store.describe(ArtifactHash.parse(name)))
                for slot in holders:
                    said = detail.copies[slot.index]
                    assert said.present == (said.verified_at is not None), "B6"
                    slot.copies[name].doubted = not said.present

    def _take_the_order_in_which_they_came(self) -> None:
        """Two that come at once may be read one after the other, either one first."""
        came, remembered = self.sled.coming(), self.sled.remembered()
        for slot in came if len(came) > 1 else []:
            assert slot.present is not None
            if remembered and not slot.present.torn:
                found = ondisk.read_ledger(slot.path)
                believed = (remembered.position, remembered.artifacts, remembered.graced)
                if found and (found.position, found.artifacts, found.graced) == believed:
                    slot.present.ledger = remembered
            if slot.present.pins.held == self.pins():
                self.sled.pins = max(slot.present.pins, self.sled.pins, key=lambda x: x.version)

    def _take_the_one_that_was_in_force(self, came: list[Slot]) -> None:
        """Of two that contradict each other, one was in force if it was read alone, before."""
        said = ondisk.read_witness(self.state_dir)
        for disk in (slot.attached for slot in came):
            if disk is None or disk.ledger is None or disk.torn:
                continue
            config = ArtifactConfig.make(disk.ledger.generation, hashes(disk.ledger.artifacts))
            if said == (*disk.ledger.position, str(config.digest)):
                before, found = self.sled.witness, ondisk.read_ledger(disk.path)
                assert before is None or before.position <= disk.ledger.position, "G1"
                assert found is not None
                disk.ledger = self.sled.witness = replace(disk.ledger, graced=found.graced)


async def _leave(context: AbstractAsyncContextManager[Put]) -> None:
    await context.__aexit__(None, None, None)


async def _gather(task: asyncio.Task[Stored]) -> Stored | BaseException:
    async with asyncio.timeout(WAIT_S):
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
    return outcome
