"""Two datasets, one of them behind the fault mount, with the same history every time.

The history is made once, on plain directories; a scene is a copy of it, so it takes milliseconds to
begin from the same state for each fault.
"""

from __future__ import annotations

import asyncio
import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from depot.artifact import ArtifactConfig, Generation
from depot.initialise import init_datasets
from depot.options import StoreOptions
from depot.store import ArtifactStore
from tests.store.builders import BytesSource
from tests.torture.fault_mount import FaultMount
from tests.torture.history import Accepted, Event, History, content_of, name_of
from tests.torture.judge import QUOTA_BYTES, Places
from tests.torture.workload import hash_of

DATASETS: Final = (0, 1)
_MIB: Final = 1 << 20


@cache
def _sized(about: str, least: int, most: int) -> str:
    """A key whose content has such a size."""
    keys = (f"{about}/{number}" for number in range(10_000))
    return next(key for key in keys if least <= len(content_of(key)) < most)


KEPT: Final = _sized("kept", 40, 20_000)
KEPT_BLOCKS: Final = _sized("kept", _MIB + 1, 2 * _MIB)
PINNED: Final = _sized("pinned", 40, 20_000)
DROPPED: Final = _sized("dropped", 40, 20_000)
SMALL: Final = _sized("new", 40, 20_000)
BLOCKS: Final = _sized("new", _MIB + 1, 2 * _MIB)
DIRECT: Final = _sized("new", 4 * _MIB, 5 * _MIB)
LATER: Final = _sized("later", 40, 20_000)

STORED: Final = (KEPT, KEPT_BLOCKS, PINNED, DROPPED)
FIRST: Final = Accepted(0, 1, frozenset({*STORED, SMALL, BLOCKS, DIRECT}))
SECOND: Final = Accepted(0, 2, (FIRST.keys or frozenset()) - {DROPPED} | {LATER})


def config_of(accepted: Accepted) -> ArtifactConfig:
    assert accepted.generation is not None
    return ArtifactConfig.make(accepted.generation, map(hash_of, accepted.keys or ()))


def begun(accepted: Accepted, number: int) -> Event:
    """The event that tells that a config is about to be sent."""
    fields = {"epoch": accepted.epoch, "generation": accepted.generation}
    keys = None if accepted.keys is None else sorted(accepted.keys)
    return {"what": "begun", "op": "config", "id": number, "keys": keys} | fields


def open_store(
    datasets: tuple[Path, ...], state_dir: Path, device_timeout_s: float
) -> asyncio.Future[ArtifactStore]:
    options = StoreOptions(
        quota_bytes=QUOTA_BYTES,
        delete_grace_s=0.0,
        device_timeout_s=device_timeout_s,
    )
    return asyncio.ensure_future(ArtifactStore.open(datasets, state_dir=state_dir, options=options))


@dataclass(frozen=True)
class Template:
    """A state to begin from, and how it came about."""

    root: Path
    history: History


@dataclass
class Scene:
    """One copy of a template.

    Attributes:
        places: as a judge looks at them, past the mount.
        paths: the datasets as the store sees them.
        hurt: which of them is behind the mount.
    """

    places: Places
    paths: tuple[Path, ...]
    hurt: int
    history: History

    @property
    def hurt_path(self) -> Path:
        return self.paths[self.hurt]

    @property
    def hurt_dataset(self) -> Path:
        return self.places.datasets[self.hurt]

    @property
    def other_dataset(self) -> Path:
        return self.places.datasets[1 - self.hurt]


class Stage:
    """Where scenes are set: the mount, a directory beside it, and the templates."""

    def __init__(self, mount: FaultMount, root: Path) -> None:
        self.mount = mount
        self._root = root
        self._count = 0
        self.fresh = self._template("fresh")
        self.used = self._template("used")
        asyncio.run(_use(self.used))

    @contextmanager
    def scene(self, template: Template, hurt: int) -> Iterator[Scene]:
        """Copy a template for the block; dataset number `hurt` behind the mount."""
        self._count += 1
        name = f"scene-{self._count}"
        outside = self._root / name
        datasets = tuple(
            (self.mount.backing if i == hurt else outside) / f"{name}-{i}" for i in DATASETS
        )
        paths = tuple(self.mount.path / d.name if i == hurt else d for i, d in enumerate(datasets))
        state_dir = outside / "state"
        try:
            for i in DATASETS:
                # Taking the reserve is among what may fail, and costs too much where it may not.
                left_out = ["reserve"] if i == hurt else []
                _copy(template.root / str(i), datasets[i], *left_out)
            _copy(template.root / "state", state_dir)
            yield Scene(Places(datasets, state_dir), paths, hurt, copy.deepcopy(template.history))
        finally:
            for path in (outside, *datasets):
                shutil.rmtree(path, ignore_errors=True)

    def _template(self, name: str) -> Template:
        root = self._root / name
        datasets = [root / str(i) for i in DATASETS]
        for path in datasets:
            path.mkdir(parents=True)
        init_datasets(datasets)
        (root / "state").mkdir()
        return Template(root, History())


def _copy(source: Path, target: Path, *left_out: str) -> None:
    """Link what is in `source`: nothing there is ever changed in place."""
    # A lock is of the file, whatever its name.
    ignored = shutil.ignore_patterns("lock", *left_out)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(source, target, ignore=ignored, copy_function=os.link)


async def _use(template: Template) -> None:
    datasets = tuple(template.root / str(i) for i in DATASETS)
    history = template.history
    async with await open_store(datasets, template.root / "state", 30.0) as store:
        history.note(begun(FIRST, 1))
        await store.put_config(config_of(FIRST))
        history.note({"what": "done", "id": 1})
        for key in STORED:
            await put(store, key, generation=1)
            history.note({"what": "copied", "key": key, "copies": len(DATASETS)})
        history.note({"what": "begun", "op": "pin", "id": 2, "pins": {"one": [PINNED]}})
        await store.put_pin("one", [hash_of(PINNED)])
        history.note({"what": "done", "id": 2})


async def put(store: ArtifactStore, key: str, *, generation: int, announced: bool = True) -> int:
    """Store an artifact; the number of copies."""
    content = content_of(key)
    length = len(content) if announced else None
    async with store.begin_put(hash_of(key), Generation(generation), length) as admitted:
        stored = admitted.held or await admitted.receive(BytesSource(content))
    return stored.copies


def rot(dataset: Path, key: str) -> None:
    """Flip a bit of a copy where it lies; its modification time stays."""
    path = dataset / name_of(key)
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.unlink()  # its bytes are those of other scenes too
    path.write_bytes(content)
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
