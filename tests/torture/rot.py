"""Copies that rot where they lie: flipped bits, zeroed sectors, lost ends, bytes of another file.

Each run harms copies of a quiet node without its store's knowledge, and leaves the modification
times as they were: one copy, both in different blocks, both in the same block; or removes one copy
or both, with block digests or without. Then the store finds
out, by reading for somebody, by a scrub, by being sent the artifact again, or after a restart; and
heals. Sometimes its duties run, and what a reader met is to be healed although nobody asks for it.
No reader ever gets a wrong byte (B2); what can be whole again from the other mirror, from
blocks that are good between the copies, or from a peer, is whole on every dataset within one pass
(B5); what cannot is said to be lost; and no harmed copy is deleted: all are in quarantine (B6).
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.device.feed import feed
from depot.device.host import DeviceWorkers, Lane
from depot.device.messages import Passed
from depot.errors import DepotCopy, NotFound
from depot.initialise import init_datasets
from depot.mirrors.open_artifact import OpenArtifact
from depot.options import StoreOptions
from depot.reading.reader import VerifyReads
from depot.store import ArtifactStore
from depot.streams.verified_read import VerifiedRead
from depot.writing.stored import Stored
from tests import ondisk
from tests.memory_dir import memory_dir
from tests.store.builders import MIB, BytesSource, hash_of
from tests.torture.campaign import Campaign, Outcome, Plan, strike_each
from tests.torture.child import Child, Tell
from tests.torture.harming import BY_NAME, CONTENTS, Harmed, harm_all

ONE: Final = Generation(1)
OPTIONS: Final = StoreOptions(
    quota_bytes=64 * MIB, delete_grace_s=0.0, verify_reads=VerifyReads.ALWAYS
)
_IN_PROCESSES: Final = 0.2
"""The share of nodes that have a process for each dataset: starting them costs several runs."""
_BY_ITSELF: Final = 0.5
_BY_ITSELF_WITHIN_S: Final = 30.0
"""It takes milliseconds; nothing else would happen for as long as an interval of the duties."""


@dataclass
class Peer:
    """Another node that has the artifacts `has`."""

    store: ArtifactStore
    has: Collection[str]

    async def fetch(self, artifact: ArtifactHash, generation: Generation) -> Stored | None:
        if str(artifact) not in self.has:
            raise DepotCopy("no peer has it")
        content = BY_NAME[str(artifact)]
        async with self.store.begin_put(artifact, generation, len(content), counted=False) as put:
            return put.held or await put.receive(BytesSource(content))


def _found(root: Path) -> None:
    asyncio.run(_found_node(root))
    for name in ("a", "b"):
        (root / name / ondisk.METADATA / "reserve").unlink()


async def _found_node(root: Path) -> None:
    paths = [root / "a", root / "b"]
    for path in paths:
        path.mkdir(parents=True)
    init_datasets(paths, sled_id="sled-under-torture")
    async with await ArtifactStore.open(paths, state_dir=root / "state", options=OPTIONS) as store:
        await store.put_config(ArtifactConfig.make(ONE, map(hash_of, CONTENTS)))
        for content in CONTENTS:
            async with store.begin_put(hash_of(content), ONE, len(content)) as put:
                await put.receive(BytesSource(content))


def _run(plan: Plan) -> Outcome:
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(dir=memory_dir()) as root:
        template = Path(root)
        _found(template)
        return strike_each(plan, lambda seed: _strike(template, seed, counts), counts)


def _strike(template: Path, seed: int, counts: Counter[str]) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=memory_dir()) as found:
        root = Path(found)
        for name in ("a", "b", "state"):
            shutil.copytree(template / name, root / name)
        paths = [root / "a", root / "b"]
        running = rng.random() < 0.5
        life = _Life(rng, root, paths)
        child = Child.fork(partial(life.live, running))
        try:
            for event in child.rest():
                counts.update(event["counts"])
            status = child.wait()
            assert status == 0, f"the process ended with {status}"
        finally:
            child.reap()


@dataclass
class _Life:
    """A store that finds out what was done to its datasets.

    Attributes:
        quarantined: names of the artifacts of which a copy was said to be set aside.
        gone: names of those of which a copy was said to be gone.
        healed: names of those that were said to be healed.
        scrubs: datasets that were said to be verified.
        happened: set whenever anything was said.
    """

    rng: random.Random
    root: Path
    paths: list[Path]
    quarantined: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)
    healed: set[str] = field(default_factory=set)
    scrubs: int = 0
    happened: asyncio.Event = field(default_factory=asyncio.Event)

    def live(self, running: bool, tell: Tell) -> None:
        asyncio.run(self._live(running, tell))

    async def _live(self, running: bool, tell: Tell) -> None:
        harm = partial(asyncio.to_thread, harm_all, self.rng, self.paths)
        done = None if running else await harm()
        in_processes = self.rng.random() < _IN_PROCESSES
        workers = DeviceWorkers.PROCESS if in_processes else DeviceWorkers.THREAD
        opening = ArtifactStore.open(
            self.paths,
            state_dir=self.root / "state",
            options=replace(OPTIONS, device_workers=workers),
            on_event=self._on_event,
        )
        async with await opening as store:
            has = {name for name in BY_NAME if self.rng.random() < 0.5}
            how = self.rng.choice(["read", "scrub", "sent again"])
            if running and self.rng.random() < _BY_ITSELF:
                how = "read, and nobody asks"
                async with self._duties(store, Peer(store, has)):
                    harmed, counts = await harm()
                    await self._heals_what_was_met(store, harmed)
                await store.reconcile()  # tells what the duties moved when they were cancelled
                await store.scrub()
            else:
                harmed, counts = done if done is not None else await harm()
                await self._find_out(store, how, harmed)
            counts[how] += 1
            counts["in processes"] += in_processes
            await store.remirror(Peer(store, has))
            await self._judge(store, harmed, has, running=running)
        tell({"what": "counts", "counts": counts})

    @asynccontextmanager
    async def _duties(self, store: ArtifactStore, peer: Peer) -> AsyncIterator[None]:
        """Have the duties run, which have done by then whatever a start makes them do."""
        duties = asyncio.ensure_future(store.run_duties(peer))
        try:
            for number in (1, 2):  # the second is of all copies, and not what the start began
                await store.start_scrub()
                await self._until(lambda: self.scrubs >= number * len(self.paths))  # noqa: B023
            yield
        finally:
            duties.cancel()
            with suppress(asyncio.CancelledError):
                await duties

    async def _heals_what_was_met(self, store: ArtifactStore, harmed: list[Harmed]) -> None:
        """What a reader found bad or gone comes back, or is said to be lost; not the rest."""
        met: list[str] = []
        for content in CONTENTS:
            found = await _read(store, content, [e for e in harmed if e.content is content])
            if found or str(hash_of(content)) in self.gone:
                met.append(str(hash_of(content)))

        def settled(name: str) -> bool:
            lost = map(str, store.status().healing.lost)
            return name in self.healed or name in lost

        try:
            await self._until(lambda: all(map(settled, met)))
        except TimeoutError:
            left = [name for name in met if not settled(name)]
            raise AssertionError(f"B5 a reader met it, and nobody healed it: {left}") from None

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_BY_ITSELF_WITHIN_S):
            while not condition():
                self.happened.clear()
                await self.happened.wait()

    def _on_event(self, kind: str, fields: object) -> None:
        self.happened.set()
        self.scrubs += kind == "scrub_finished"
        if isinstance(fields, dict):
            if kind == "healed":
                self.healed.add(str(fields["sha256"]))
            if kind == "quarantined":
                self.quarantined[str(fields["sha256"])] += 1
            elif kind == "copy_gone":
                self.gone[str(fields["sha256"])] += 1

    async def _find_out(self, store: ArtifactStore, how: str, harmed: list[Harmed]) -> None:
        if how == "read":
            for content in CONTENTS:
                await _read(store, content, [each for each in harmed if each.content is content])
        elif how == "sent again":
            for each in harmed:
                await _send(store, each.content)
                await _read(store, each.content, [])
        # A reader stops at the first good copy: who reads all of them is the scrub.
        await store.scrub()

    async def _judge(
        self, store: ArtifactStore, harmed: list[Harmed], has: set[str], *, running: bool
    ) -> None:
        status = store.status()
        lost = {str(artifact) for artifact in status.healing.lost}
        for path in self.paths:
            assert await asyncio.to_thread(ondisk.wrong_bytes, path) == [], f"B1 {path}"
        for content in CONTENTS:
            name = str(hash_of(content))
            there = [path for path in self.paths if (path / name).exists()]
            hurt = [each for each in harmed if each.content is content]
            sent = there == self.paths
            if name in has or all(each.can_be_healed for each in hurt):
                assert sent, f"B5 {name} of {len(content)} bytes is not healed: {hurt_said(hurt)}"
            elif not sent:
                assert name in lost, f"B5 {name} is not said to be lost: {hurt_said(hurt)}"
            await self._judge_kept(name, hurt)
            removed = sum(len(each.removed) for each in hurt)
            expected = removed if running else 0  # or nobody knew that it was ever here
            assert self.gone[name] == expected, f"S5 {name}: {self.gone[name]} events of {expected}"

    async def _judge_kept(self, name: str, hurt: list[Harmed]) -> None:
        bad = sum(len(each.bad_blocks) for each in hurt)
        kept = 0
        for path in self.paths:
            kept += len(await asyncio.to_thread(ondisk.quarantined_files, path, name))
        assert kept == bad, f"B6 {bad} copies of {name} were harmed, {kept} are in quarantine"
        assert self.quarantined[name] == bad, f"B6 {self.quarantined[name]} events for {bad}"


def hurt_said(hurt: list[Harmed]) -> str:
    said = ({"bad": each.bad_blocks, "digests": each.digests_kept} for each in hurt)
    return ", ".join(map(str, said))


async def _read(store: ArtifactStore, content: bytes, hurt: list[Harmed]) -> bool:
    """Read as the repo depot does, from the next copy on where one fails; whether any did."""
    found, missing = bytearray(), False
    failed: set[int] = set()
    while len(found) < len(content):
        try:
            with await store.open_artifact(hash_of(content), exclude=failed) as opened:
                try:
                    await asyncio.to_thread(_read_on, opened, found)
                except OSError as error:
                    store.read_failed(opened, error)
                    failed.add(opened.dataset)
        except NotFound:
            assert hurt != [], "B5 an artifact that nobody harmed is not found"
            missing = True
            break
    assert found == content[: len(found)], "B2 a reader got a wrong byte"
    return missing or bool(failed)


def _read_on(opened: OpenArtifact, found: bytearray) -> None:
    assert opened.read is not None
    if opened.fd < 0:
        _read_from_worker(opened, opened.read, found)
        return
    buffer = memoryview(bytearray(MIB))
    while count := opened.read(opened.fd, buffer, len(found)):
        found += buffer[:count]


def _read_from_worker(opened: OpenArtifact, read: VerifiedRead, found: bytearray) -> None:
    """As the responses of an agent do: the worker checks what it feeds into a pipe."""
    if opened.content is not None:
        read.check_whole(opened.content)
        found += opened.content
        return
    assert opened.remote is not None
    file, host = opened.remote
    outlet, inlet = os.pipe()
    with os.fdopen(outlet, "rb") as pipe:
        try:
            asked = file, len(found), opened.size_bytes, read, Passed(inlet)
            feeding = host.submit_in(Lane.FEEDS, feed, *asked)
        finally:
            os.close(inlet)
        found += pipe.read()
    feeding.result()


async def _send(store: ArtifactStore, content: bytes) -> None:
    async with store.begin_put(hash_of(content), ONE, len(content)) as put:
        stored = put.held or await put.receive(BytesSource(content))
    assert stored.copies == len("ab"), f"B5 sent again, it is on {stored.copies} datasets"


CAMPAIGN: Final = Campaign(
    "rot",
    "copies harmed on the disk or removed: one, both apart, both alike; with a good peer or not",
    runs=2000,
    slice_runs=25,
    run=_run,
)
