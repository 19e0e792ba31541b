"""One life of a store: it is opened and judged, does random things, and dies or closes in peace.

What is drawn comes from one `random.Random`, so a life is drawn again by its seed; how its threads
take turns is not. A *doomed* life may meet errors of its disks; a *calm* one may not: in it every
operation has to succeed, what is due is healed, and at its end every dataset is whole.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.dataset.disk import DiskOf, system_disk
from depot.device.host import DeviceWorkers
from depot.errors import (
    ArtifactGeneration,
    ArtifactInUse,
    ConfigGeneration,
    ConfigNotFound,
    DepotError,
    NoConfig,
    NotFound,
    NotInConfig,
)
from depot.options import StoreOptions
from depot.store import ArtifactStore
from depot.streams.sources import Pace, StreamSource
from depot.writing.stored import Stored
from tests import ondisk
from tests.store.builders import BytesSource, put_short, read_opened
from tests.torture.child import Tell
from tests.torture.history import History, Pins, content_of, name_of
from tests.torture.judge import QUOTA_BYTES, Places

MOST_WANTED: Final = 8
_LOOKS: Final = 4
_MOST_AT_ONCE: Final = 5
_ROT: Final = 0.08
PIN_NAMES: Final = ("one", "two")
# An answer that says for sure that nothing was changed.
_REFUSED: Final = (ArtifactInUse, ConfigGeneration, NotInConfig)
# What two operations at once may answer each other.
_CROSSED: Final = (ArtifactGeneration, NoConfig, NotInConfig, NotFound)

Step = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Script:
    """What happens in one life.

    Attributes:
        seed: what is done is drawn from it, and new artifacts are named after it.
        steps: how many times one to three operations are done.
        calm: nothing may fail, and the life ends in peace.
        goes_on: asked with the number of each step, which is not done if it says no.
        recovers: after its steps, whatever came of them, every dataset is used again and the life
            goes on calmly.
    """

    seed: str
    steps: int
    calm: bool = False
    goes_on: Callable[[int], bool] = lambda _: True
    disk_of: DiskOf = system_disk
    recovers: bool = False
    device_timeout_s: float = 30.0
    workers: DeviceWorkers = DeviceWorkers.THREAD


def live(places: Places, history: History, script: Script, tell: Tell) -> None:
    """Live one life; in a process of its own.

    Raises:
        AssertionError: a rule was broken.
    """
    asyncio.run(_Life(places, history, script, tell).run())


def glimpse(places: Places, history: History, _tell: Tell) -> None:
    """Open the store while a dataset is away: it may know less, but not go back (G1, D1).

    Raises:
        AssertionError: it did.
    """

    async def look() -> None:
        opening = ArtifactStore.open(places.datasets, state_dir=places.state_dir)
        async with await opening as store:
            status = store.status()
            if status.ledger in ("clear", "empty"):
                found = (status.epoch, -1 if status.generation is None else status.generation)
                accepted = history.accepted.position
                assert found >= accepted, f"G1 with a dataset away: {found}, expected {accepted}"
            await store.reconcile()

    asyncio.run(look())


class _Life:
    def __init__(self, places: Places, history: History, script: Script, tell: Tell) -> None:
        self.places = places
        self.history = history
        self.script = script
        self.rng = random.Random(script.seed)
        self.ids = 0
        self.key_of: dict[str, str] = {}
        self._tell = tell
        for config in history.possible():
            self.learn(config.keys or ())
        self.learn(history.copies)
        for book in history.possible_pins():  # of what a reset took out of the config
            self.learn(set[str]().union(*book.values()))

    def learn(self, keys: Iterable[str]) -> None:
        self.key_of |= {name_of(key): key for key in keys}

    def tell(self, event: dict[str, Any]) -> None:
        self._tell(event)
        self.history.note(event)

    async def run(self) -> None:
        options = StoreOptions(
            quota_bytes=QUOTA_BYTES,
            delete_grace_s=0.0,
            device_timeout_s=self.script.device_timeout_s,
            device_workers=self.script.workers,
        )
        opening = ArtifactStore.open(
            self.places.datasets,
            state_dir=self.places.state_dir,
            options=options,
            on_event=self.on_event,
            disk_of=self.script.disk_of,
        )
        try:
            store = await opening
        except (DepotError, OSError):
            if self.script.calm:
                raise
            return
        async with store:
            self.store = store
            await self.judge_opened()
            for step in range(self.script.steps):
                if not self.script.goes_on(step):
                    break
                await self.step()
            if self.script.recovers:
                await self.recover()
            if self.script.calm:
                await self.settle()

    def on_event(self, kind: str, fields: Mapping[str, object]) -> None:
        if kind == "healed":
            key = self.key_of[str(fields["sha256"])]
            self.tell({"what": "copied", "key": key, "copies": fields["copies"]})

    # ---- judging

    async def judge_opened(self) -> None:
        """What is in force was acknowledged, or was about to be; nothing is left half done."""
        # One that failed in the last life is looked through before it counts again.
        await self.store.check_datasets()
        status = self.store.status()
        usable = all(dataset.state == "healthy" for dataset in status.datasets)
        if not usable or status.ledger not in ("clear", "empty"):
            assert not self.script.calm, f"{status.ledger} {status.datasets}"
            # With a dataset that is already dead there is nothing to learn from this life.
            self.script = replace(self.script, steps=0)
            return
        self.find()
        for path in self.places.datasets:
            assert await self.staged(path) == [], f"Q3 {path}"

    def find(self) -> None:
        """Judge what is in force, and go on from there."""
        pins, status = self.judge_config(), self.store.status()
        position = [status.epoch, -1 if status.generation is None else status.generation]
        self.tell({"what": "found", "position": position, "pins": pins})

    async def recover(self) -> None:
        """Whatever a deadline has done is undone within a few looks at the datasets."""
        for _ in range(_LOOKS):
            await self.store.check_datasets()
        status = self.store.status()
        assert all(dataset.state == "healthy" for dataset in status.datasets), f"B4 {status}"
        assert status.ledger in ("clear", "empty"), f"G4 {status}"
        self.find()
        self.script = replace(self.script, calm=True)

    async def staged(self, path: Path) -> list[str]:
        try:
            return [file.name for file in await asyncio.to_thread(ondisk.staged_files, path)]
        except OSError:
            if self.script.calm:
                raise
            return []

    def judge_config(self) -> dict[str, list[str]]:
        status = self.store.status()
        position = (status.epoch, -1 if status.generation is None else status.generation)
        known = {config.position: config for config in self.history.possible()}
        assert position in known, f"G1 found {position}, expected one of {sorted(known)}"
        try:
            found: frozenset[str] | None = frozenset(map(str, self.store.config().artifacts))
        except ConfigNotFound:
            found = None
        keys = known[position].keys
        assert found == (None if keys is None else frozenset(map(name_of, keys))), "G1 contents"
        pins = {
            name: sorted(self.key_of[str(artifact)] for artifact in held)
            for name, held in self.store.pins().items()
        }
        possible = [_listed(book) for book in self.history.possible_pins()]
        assert pins in possible, f"pins: found {pins}, expected one of {possible}"
        return pins

    async def settle(self) -> None:
        """Heal and delete what is due; then everything is where it has to be, and goes on."""
        await self.config()
        await self.put(self.fresh())
        await self.scrub()
        await self.heal()
        await self.reconcile()
        status = self.store.status()
        assert status.ledger == "clear", status.ledger
        assert status.under_replicated == (), f"B5 {status.under_replicated}"
        counts = {str(a): count for a, count in self.store.list_artifacts().copies.items()}
        for key in self.history.promised(self.history.accepted):
            found = counts.get(name_of(key), 0)
            assert found == len(self.places.datasets), f"B5 {key} {found} {status}"
            await self.read(key)
        for key in sorted(
            self.history.rotten.keys() & self.history.wanted()
        ):  # what hurt it may have been lost in a cut
            await self.put(key)
        datasets = self.store.status().datasets
        for dataset, path in zip(datasets, self.places.datasets, strict=True):
            on_disk = await asyncio.to_thread(ondisk.stored_bytes, path)
            counted = (dataset.used_bytes, dataset.reserved_bytes)
            assert counted == (on_disk, 0), f"Q1 {path}: {counted}, on disk {on_disk}"

    # ---- operations

    async def step(self) -> None:
        """One operation, or up to three at once; at most one of them changes config or pins."""
        changes: list[Step] = [self.config, self.config, self.pin, self.unpin]
        others: list[Step] = [self.put_any, self.put_any, self.put_many, self.heal, self.reconcile]
        others += [self.read_any, self.check, self.scrub, self.copy_any]
        if self.rng.random() < 0.02:
            changes = [self.reset]
        if self.history.accepted.keys is None:
            await self.attempt(self.config, alone=True)
            return
        if self.rng.random() < _ROT:
            await self.rot()
        chosen = [self.rng.choice([*changes, *others, *others])]
        if self.rng.random() < 0.3:
            chosen += self.rng.choices(others, k=self.rng.randint(1, 2))
        alone = len(chosen) == 1
        await asyncio.gather(*(self.attempt(step, alone=alone) for step in chosen))

    async def attempt(self, step: Step, *, alone: bool) -> None:
        try:
            await step()
        except _CROSSED:
            if alone and self.script.calm:
                raise
        except (DepotError, OSError):
            if self.script.calm:
                raise

    async def telling(self, begun: dict[str, Any], call: Awaitable[Stored | None]) -> None:
        self.ids += 1
        number = self.ids
        self.tell({"what": "begun", "id": number, **begun})
        try:
            stored = await call
        except _REFUSED:
            self.tell({"what": "refused", "id": number})
            raise
        except (DepotError, OSError):
            self.tell({"what": "failed", "id": number})
            raise
        copies = {} if stored is None else {"copies": stored.copies}
        if stored is not None and self.script.calm:
            assert stored.copies == len(self.places.datasets), f"B3 {stored}"
        self.tell({"what": "done", "id": number, **copies})

    async def config(self) -> None:
        """The next config: some artifacts more, some fewer; sometimes the same once more."""
        now = self.history.accepted
        pinned = frozenset[str]().union(*self.history.pins.values())
        # A reset forgets the config, not the pins; what is pinned need not be here yet.
        held = set(now.keys if now.keys is not None else self.history.copies) | pinned
        keys, generation = set(held), self.history.generation + 1
        if now.keys is not None and self.rng.random() < 0.1:
            assert now.generation is not None
            generation = now.generation
        else:
            free = sorted(held - pinned)
            surplus = max(0, len(held) - MOST_WANTED + 2)
            keys -= set(self.rng.sample(free, min(len(free), surplus + self.rng.randint(0, 1))))
            keys |= {self.new_key() for _ in range(self.rng.choice((1, 1, 2, 2, 4)))}
        self.learn(keys)
        begun = {"op": "config", "epoch": now.epoch, "generation": generation}
        begun |= {"keys": sorted(keys), "serial": self.history.serial}
        wanted = ArtifactConfig.make(generation, (hash_of(key) for key in keys))
        await self.telling(begun, self.store.put_config(wanted))

    async def reset(self) -> None:
        generation = self.history.accepted.generation
        assert generation is not None
        epoch = self.history.accepted.epoch + 1
        begun = {"op": "reset", "epoch": epoch, "generation": None, "keys": None}
        await self.telling(begun, self.store.reset(Generation(generation)))

    async def put_any(self) -> None:
        await self.put(self.rng.choice(self.due() or sorted(self.history.wanted())))

    async def put_many(self) -> None:
        """Several artifacts at once, so that the short ones of them are made durable together."""
        due = self.due() or sorted(self.history.wanted())
        chosen = self.rng.sample(due, min(len(due), _MOST_AT_ONCE))
        ended = await asyncio.gather(*map(self.put, chosen), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error

    def due(self) -> list[str]:
        """What is wanted and not here, or not as it should be."""
        wanted = sorted(self.history.wanted())
        missing = [key for key in wanted if key not in self.history.copies]
        return missing + sorted(self.history.rotten.keys() & set(wanted))

    async def put(self, key: str) -> None:
        """Store an artifact, of a known or of an unknown length."""
        generation = self.history.accepted.generation
        assert generation is not None
        length_known = self.rng.random() < 0.7
        begun = {"op": "put", "key": key, "generation": generation}
        await self.telling(begun, self.send(key, Generation(generation), length_known=length_known))

    async def send(self, key: str, generation: Generation, *, length_known: bool) -> Stored:
        content = content_of(key)
        length = len(content) if length_known else None
        at_once = self.rng.random() < 0.7
        if at_once and length_known and self.rng.random() < 0.5:
            stored = await put_short(self.store, hash_of(key), generation, content)
            if stored is not None:
                return stored
        async with self.store.begin_put(hash_of(key), generation, length) as put:
            if put.held is None and put.wants_whole and at_once:
                return await put.store(content)
            return put.held or await put.receive(BytesSource(content))

    async def copy_any(self) -> None:
        """Store an artifact as a copy from another depot does: from a stream, and not counted."""
        key = self.rng.choice(self.due() or sorted(self.history.wanted()))
        generation = self.history.accepted.generation
        assert generation is not None
        begun = {"op": "copy", "key": key, "generation": generation}
        await self.telling(begun, self.receive(key, Generation(generation)))

    async def receive(self, key: str, generation: Generation) -> Stored:
        left = memoryview(content_of(key))

        async def read(size_bytes: int) -> bytes:
            nonlocal left
            part, left = left[:size_bytes], left[size_bytes:]
            return bytes(part)

        length = len(left) if self.rng.random() < 0.7 else None
        async with self.store.begin_put(hash_of(key), generation, length, counted=False) as put:
            source = StreamSource(asyncio.get_running_loop(), read, Pace(), length)
            return put.held or await put.receive(source)

    async def pin(self) -> None:
        wanted = sorted(self.history.wanted())
        held = self.rng.sample(wanted, min(len(wanted), 2))
        name = self.rng.choice(PIN_NAMES)
        begun = {"op": "pin", "pins": {**_listed(self.history.pins), name: held}}
        await self.telling(begun, self.store.put_pin(name, [hash_of(key) for key in held]))

    async def unpin(self) -> None:
        pins = _listed(self.history.pins)
        if pins:
            name = self.rng.choice(sorted(pins))
            del pins[name]
            await self.telling({"op": "pin", "pins": pins}, self.store.delete_pin(name))

    async def heal(self) -> None:
        await self.telling({"op": "heal"}, self.without_result(self.store.remirror()))

    async def scrub(self) -> None:
        await self.telling({"op": "scrub"}, self.without_result(self.store.scrub()))

    async def reconcile(self) -> None:
        await self.telling({"op": "reconcile"}, self.without_result(self.store.reconcile()))

    async def without_result(self, call: Awaitable[object]) -> None:
        await call

    async def check(self) -> None:
        await self.store.check_datasets()

    async def rot(self) -> None:
        """Change a byte of one of two copies behind the store's back."""
        whole = [key for key, count in sorted(self.history.copies.items()) if count == 2]
        if whole:
            key, dataset = self.rng.choice(whole), self.rng.randrange(2)
            self.tell({"what": "rotten", "key": key, "dataset": dataset})
            path = self.places.datasets[dataset] / name_of(key)
            try:
                await asyncio.to_thread(_flip, path, self.rng)
            except OSError:
                if self.script.calm:
                    raise

    async def read_any(self) -> None:
        # What was hurt is checked where bytes leave the depot, not here.
        there = sorted(self.history.copies.keys() - self.history.rotten.keys())
        if there:
            await self.read(self.rng.choice(there))

    async def read(self, key: str) -> None:
        with await self.store.open_artifact(hash_of(key)) as opened:
            content = await read_opened(opened)
        assert content == content_of(key), f"B2 {key}"

    def fresh(self) -> str:
        """A wanted artifact that was never stored, or any."""
        wanted = sorted(self.history.wanted())
        return next((key for key in wanted if key not in self.history.copies), wanted[0])

    def new_key(self) -> str:
        self.history.serial += 1
        return f"{self.script.seed}/{self.history.serial}"


def _flip(path: Path, rng: random.Random) -> None:
    with path.open("r+b") as file:
        file.seek(rng.randrange(path.stat().st_size))
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def hash_of(key: str) -> ArtifactHash:
    return ArtifactHash.parse(name_of(key))


def _listed(pins: Pins) -> dict[str, list[str]]:
    return {name: sorted(keys) for name, keys in pins.items()}
