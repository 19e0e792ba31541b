"""Copies that rot where they lie: flipped bits, zeroed sectors, lost ends, bytes of another file.

Each run harms copies of a quiet node without its store's knowledge, and leaves the modification
times as they were: one copy, both in different blocks, both in the same block; or removes one copy
or both, with block digests or without. Then the store finds
out, by reading for somebody, by a scrub, by being sent the artifact again, or after a restart; and
heals. No reader ever gets a wrong byte (B2); what can be whole again from the other mirror, from
blocks that are good between the copies, or from a peer, is whole on every dataset within one pass
(B5); what cannot is said to be lost; and no harmed copy is deleted: all are in quarantine (B6).
"""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import DepotCopy, NotFound
from depot.initialise import init_datasets
from depot.mirrors.open_artifact import OpenArtifact
from depot.options import StoreOptions
from depot.reading.reader import VerifyReads
from depot.store import ArtifactStore
from depot.writing.put import Stored
from tests import ondisk
from tests.store.builders import MIB, BytesSource, hash_of
from tests.store.damage import hurt_file
from tests.torture.campaign import Campaign, Outcome, Plan, images_dir, strike_each
from tests.torture.child import Child, Tell

ONE: Final = Generation(1)
OPTIONS: Final = StoreOptions(
    quota_bytes=64 * MIB, delete_grace_s=0.0, verify_reads=VerifyReads.ALWAYS
)
_NOISE: Final = random.Random(8).randbytes(8 * MIB)
SIZES: Final = (1, 5000, MIB - 1, MIB, 2 * MIB + 77, 3 * MIB)
CONTENTS: Final = tuple(bytes([n]) + _NOISE[n * 1000 :][: size - 1] for n, size in enumerate(SIZES))
BY_NAME: Final = {str(hash_of(content)): content for content in CONTENTS}
SECTORS: Final = (512, 4096, 65536)

Harm = Callable[[random.Random, bytearray, int, int], bytearray]
"""Does something to a copy between two offsets, where at least one byte has to change."""


def _flip(rng: random.Random, content: bytearray, start: int, end: int) -> bytearray:
    for at in rng.sample(range(start, end), min(end - start, rng.randint(1, 3))):
        content[at] ^= 1 << rng.randrange(8)
    return content


def _zero(rng: random.Random, content: bytearray, start: int, end: int) -> bytearray:
    return _overwrite(content, start, end, bytes(rng.choice(SECTORS)), rng)


def _misdirected(rng: random.Random, content: bytearray, start: int, end: int) -> bytearray:
    return _overwrite(content, start, end, _NOISE[-rng.choice(SECTORS) :], rng)


def _overwrite(
    content: bytearray, start: int, end: int, sector: bytes, rng: random.Random
) -> bytearray:
    at = rng.randrange(start, end) // 512 * 512
    before = bytes(content)
    at = max(at, start)
    content[at : min(end, at + len(sector))] = sector[: min(end, at + len(sector)) - at]
    return content if content != before else _flip(rng, content, start, end)


def _truncated(rng: random.Random, content: bytearray, start: int, _end: int) -> bytearray:
    return content[: rng.choice([0, start, max(0, len(content) - 1)])]


def _extended(_rng: random.Random, content: bytearray, _start: int, _end: int) -> bytearray:
    return content + b"more"


IN_PLACE: Final[dict[str, Harm]] = {"flip": _flip, "zero": _zero, "misdirected": _misdirected}
ANY: Final[dict[str, Harm]] = IN_PLACE | {"truncated": _truncated, "extended": _extended}


@dataclass
class Harmed:
    """What was done to the copies of one artifact; blocks that are bad, by dataset.

    Attributes:
        removed: the datasets on which the file was removed; nothing of it is left to be kept.
    """

    content: bytes
    bad_blocks: dict[int, set[int]] = field(default_factory=dict)
    digests_kept: bool = True
    removed: set[int] = field(default_factory=set)

    @property
    def can_be_healed(self) -> bool:
        """Some dataset has a good copy, or there is a good copy of each block and it is known."""
        if len(self.bad_blocks) + len(self.removed) < len("ab"):
            return True
        if self.removed:
            return False
        one_block = len(self.content) <= MIB
        return not set.intersection(*self.bad_blocks.values()) and (one_block or self.digests_kept)


def _harm_all(rng: random.Random, paths: list[Path]) -> tuple[list[Harmed], Counter[str]]:
    counts: Counter[str] = Counter()
    harmed: list[Harmed] = []
    if rng.random() < 0.1:
        counts["swapped"] += 1
        return _swap(rng, paths), counts
    for content in rng.sample(CONTENTS, rng.randint(1, 3)):
        which = rng.choice(["one", "one", "both apart", "both alike", "removed", "one removed"])
        each = Harmed(content)
        if "removed" in which:
            harmed.append(_remove(rng, paths, each, which))
            counts[which] += 1
            continue
        blocks = range(-(-len(content) // MIB))
        if which == "both apart" and len(blocks) < len(paths):
            which = "both alike"
        chosen = rng.sample(blocks, min(len(blocks), len(paths)))
        victims = [rng.choice([0, 1])] if which == "one" else [0, 1]
        for index in victims:
            block = chosen[index] if which == "both apart" else chosen[0]
            kinds = ANY if which == "one" else IN_PLACE
            kind = rng.choice([*kinds])
            start, end = block * MIB, min(len(content), (block + 1) * MIB)
            path = paths[index] / str(hash_of(content))
            hurt_file(path, partial(_do, rng, kinds[kind], (start, end)))
            each.bad_blocks[index] = {block}
            counts[kind] += 1
        counts[which] += 1
        if rng.random() < 0.2:
            each.digests_kept = _hurt_digests(rng, paths, content)
        harmed.append(each)
    return harmed, counts


def _remove(rng: random.Random, paths: list[Path], each: Harmed, which: str) -> Harmed:
    """Remove one copy, or both; the other of one that was removed may have rotted, too."""
    each.removed = {0, 1} if which == "removed" else {rng.choice([0, 1])}
    for index in each.removed:
        (paths[index] / str(hash_of(each.content))).unlink()
    for index in {0, 1} - each.removed:
        if rng.random() < 0.3:
            path = paths[index] / str(hash_of(each.content))
            hurt_file(path, partial(_do, rng, _flip, (0, min(MIB, len(each.content)))))
            each.bad_blocks[index] = {0}
    if rng.random() < 0.3:
        each.digests_kept = _hurt_digests(rng, paths, each.content)
    return each


def _do(rng: random.Random, harm: Harm, bounds: tuple[int, int], content: bytearray) -> bytearray:
    return harm(rng, content, *bounds)


def _swap(rng: random.Random, paths: list[Path]) -> list[Harmed]:
    """Two files under each other's name."""
    index = rng.choice([0, 1])
    pair = rng.sample(CONTENTS, 2)
    one, other = (paths[index] / str(hash_of(content)) for content in pair)
    aside = paths[index] / "aside"
    for source, target in ((one, aside), (other, one), (aside, other)):
        source.rename(target)
    return [Harmed(content, {index: {0}}) for content in pair]


def _hurt_digests(rng: random.Random, paths: list[Path], content: bytes) -> bool:
    """Harm what is kept of the blocks; tell whether it is still intact somewhere."""
    files = [path / ondisk.METADATA / "blocks" / str(hash_of(content)) for path in paths]
    victims = [file for file in files if file.exists() and rng.random() < 0.7]
    for file in victims:
        if rng.random() < 0.5:
            file.unlink()
        else:
            hurt_file(file, lambda old: _flip(rng, old, 0, len(old)))
    return len(victims) < len(files)


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
    with tempfile.TemporaryDirectory(dir=images_dir()) as root:
        template = Path(root)
        _found(template)
        return strike_each(plan, lambda seed: _strike(template, seed, counts), counts)


def _strike(template: Path, seed: int, counts: Counter[str]) -> None:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory(dir=images_dir()) as found:
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
    """

    rng: random.Random
    root: Path
    paths: list[Path]
    quarantined: Counter[str] = field(default_factory=Counter)
    gone: Counter[str] = field(default_factory=Counter)

    def live(self, running: bool, tell: Tell) -> None:
        asyncio.run(self._live(running, tell))

    async def _live(self, running: bool, tell: Tell) -> None:
        harm = partial(asyncio.to_thread, _harm_all, self.rng, self.paths)
        done = None if running else await harm()
        opening = ArtifactStore.open(
            self.paths, state_dir=self.root / "state", options=OPTIONS, on_event=self._on_event
        )
        async with await opening as store:
            harmed, counts = done if done is not None else await harm()
            has = {name for name in BY_NAME if self.rng.random() < 0.5}
            how = self.rng.choice(["read", "scrub", "sent again"])
            counts[how] += 1
            await self._find_out(store, how, harmed)
            await store.remirror(Peer(store, has))
            await self._judge(store, harmed, has)
        tell({"what": "counts", "counts": counts})

    def _on_event(self, kind: str, fields: object) -> None:
        if isinstance(fields, dict):
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

    async def _judge(self, store: ArtifactStore, harmed: list[Harmed], has: set[str]) -> None:
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

    async def _judge_kept(self, name: str, hurt: list[Harmed]) -> None:
        bad = sum(len(each.bad_blocks) for each in hurt)
        kept = 0
        for path in self.paths:
            kept += len(await asyncio.to_thread(ondisk.quarantined_files, path, name))
        assert kept == bad, f"B6 {bad} copies of {name} were harmed, {kept} are in quarantine"
        assert self.quarantined[name] == bad, f"B6 {self.quarantined[name]} events for {bad}"
        assert self.gone[name] <= sum(len(each.removed) for each in hurt), f"{name} is here"


def hurt_said(hurt: list[Harmed]) -> str:
    said = ({"bad": each.bad_blocks, "digests": each.digests_kept} for each in hurt)
    return ", ".join(map(str, said))


async def _read(store: ArtifactStore, content: bytes, hurt: list[Harmed]) -> None:
    """Read as the repo depot does: from the next copy on where one fails."""
    found = bytearray()
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
            break
    assert found == content[: len(found)], "B2 a reader got a wrong byte"


def _read_on(opened: OpenArtifact, found: bytearray) -> None:
    assert opened.read is not None
    buffer = memoryview(bytearray(MIB))
    while count := opened.read(opened.fd, buffer, len(found)):
        found += buffer[:count]


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
