"""What a store does while one of its datasets fails, and what has to come of it (B4).

Each operation is made ready while everything works (`prepare` on the files, `ready` on the open
store), and is then done once with a fault armed on one dataset. The other one works, so unless
`may_fail` says otherwise it has to succeed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from depot.artifact import Generation
from depot.errors import DepotError, Io, LedgerUnknown, NoDataset
from depot.http.depot_api import depot_app
from depot.http.pump import Pump
from depot.store import ArtifactStore
from tests import ondisk
from tests.http.raw import RawClient
from tests.http.servers import forget_ended, serve
from tests.torture import scene
from tests.torture.history import Accepted, Event, content_of, name_of
from tests.torture.scene import (
    BLOCKS,
    DIRECT,
    FIRST,
    KEPT,
    KEPT_BLOCKS,
    PINNED,
    SECOND,
    SMALL,
    Scene,
    begun,
    config_of,
    open_store,
)
from tests.torture.workload import hash_of


@dataclass
class Act:
    """An operation under way: where, and on what store.

    Attributes:
        copies: by artifact, how many a put has said there are.
        failed: it ended with an error that is expected of it.
    """

    scene: Scene
    device_timeout_s: float
    opened: ArtifactStore | None = None
    copies: dict[str, int] = field(default_factory=dict)
    failed: DepotError | None = None
    ids: int = 100

    @property
    def store(self) -> ArtifactStore:
        assert self.opened is not None
        return self.opened

    async def open(self) -> None:
        state_dir = self.scene.places.state_dir
        self.opened = await open_store(self.scene.paths, state_dir, self.device_timeout_s)

    async def close(self) -> None:
        opened, self.opened = self.opened, None
        if opened is not None:
            await opened.close()

    async def telling(self, event: Event, call: Awaitable[object]) -> None:
        """Do what the history has to know of."""
        self.ids += 1
        history = self.scene.history
        history.note({**event, "what": "begun", "id": self.ids})
        try:
            await call
        except DepotError:
            history.note({"what": "failed", "id": self.ids})
            raise
        history.note({"what": "done", "id": self.ids})

    async def put(self, key: str, *, announced: bool = True) -> None:
        generation = self.scene.history.accepted.generation
        assert generation is not None
        copies = await scene.put(self.store, key, generation=generation, announced=announced)
        assert copies >= 1, f"B3 acknowledged with {copies} copies"
        self.copies[key] = copies
        self.scene.history.note({"what": "copied", "key": key, "copies": copies})

    async def accept(self, config: Accepted) -> None:
        await self.telling(begun(config, 0), self.store.put_config(config_of(config)))


Step = Callable[[Act], Awaitable[None]]


async def _nothing(_: Act) -> None: ...


@dataclass(frozen=True)
class Operation:
    """One thing a store does.

    Attributes:
        prepare: changes files before the store is opened.
        ready: done with the open store before the fault is armed.
        from_closed: the fault is armed before the store is opened.
        fresh: begins with datasets that never had a config.
        may_fail: errors it may end with.
        deadlines: how many it may wait for the dataset, all in all.
        rotten: (artifact, it is the copy on the failing dataset) whose bytes are wrong at first.
    """

    name: str
    act: Step
    prepare: Callable[[Scene], None] = lambda _: None
    ready: Step = _nothing
    from_closed: bool = False
    fresh: bool = False
    may_fail: tuple[type[DepotError], ...] = ()
    deadlines: int = 1
    rotten: tuple[tuple[str, bool], ...] = ()


def _lose(key: str, *, hurt: bool) -> Callable[[Scene], None]:
    def lose(where: Scene) -> None:
        where.history.take_away(where.hurt_dataset if hurt else where.other_dataset, key)

    return lose


def _rot(key: str, *, hurt: bool) -> Callable[[Scene], None]:
    def rot(where: Scene) -> None:
        scene.rot(where.hurt_dataset if hurt else where.other_dataset, key)
        where.history.copies[key] -= 1

    return rot


async def _open(act: Act) -> None:
    await act.open()
    assert act.store.config() == config_of(FIRST), "G1"


async def _open_and_configure(act: Act) -> None:
    await act.open()
    await act.accept(FIRST)


async def _configure(act: Act) -> None:
    await act.accept(SECOND)


async def _reset(act: Act) -> None:
    event = {"op": "reset", "epoch": 1, "generation": None, "keys": None}
    await act.telling(event, act.store.reset(Generation(1)))


async def _pin(act: Act) -> None:
    event = {"op": "pin", "pins": {"one": [PINNED], "two": [KEPT]}}
    await act.telling(event, act.store.put_pin("two", [hash_of(KEPT)]))


async def _unpin(act: Act) -> None:
    await act.telling({"op": "pin", "pins": {}}, act.store.delete_pin("one"))


async def _reconcile(act: Act) -> None:
    await act.store.reconcile()


async def _remirror(act: Act) -> None:
    await act.store.remirror()


async def _scrub(act: Act) -> None:
    await act.store.scrub()


async def _look(act: Act) -> None:
    await act.store.check_datasets()


async def _look_twice(act: Act) -> None:
    for _ in range(2):
        await act.store.check_datasets()


async def _go_and_change(act: Act) -> None:
    """The dataset goes, a config comes, and the dataset is there again, unseen as yet."""
    path = act.scene.hurt_path
    away = path.with_name(f"{path.name}-away")
    await asyncio.to_thread(path.rename, away)
    await act.store.check_datasets()
    await act.accept(SECOND)
    await asyncio.to_thread(away.rename, path)


def _get(key: str) -> Step:
    async def get(act: Act) -> None:
        pump = Pump(read_timeout_s=act.device_timeout_s)
        async with (
            serve(depot_app(act.store, pump=pump)) as service,
            RawClient.connect(service.url) as client,
        ):
            await client.send(f"GET /artifact/sha256/{name_of(key)} HTTP/1.1")
            answer = await client.answer()
            assert answer.status == 200, f"B4 {answer.status} {answer.body[:200]!r}"
            assert answer.body == content_of(key), "B2"
        forget_ended()

    return get


def _put(key: str, *, announced: bool = True) -> Step:
    async def put(act: Act) -> None:
        await act.put(key, announced=announced)

    return put


async def _close(act: Act) -> None:
    with suppress(OSError):
        await act.close()


async def _put_beside_config(act: Act) -> None:
    """A config comes when all of the put is written, and it is about to get its name."""

    def is_written() -> bool:
        staged = ondisk.staged_files(act.scene.hurt_dataset)
        return any(path.stat().st_size == len(content_of(BLOCKS)) for path in staged)

    async with asyncio.TaskGroup() as group:
        putting = group.create_task(act.put(BLOCKS))
        with suppress(FileNotFoundError):  # it has its name by now
            while not (is_written() or putting.done()):  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.001)
        group.create_task(act.accept(SECOND))


PUT_BESIDE_CONFIG: Final = Operation("put-beside-config", _put_beside_config)
"""Two who give names in one directory: who is told of a sync that failed need not be both."""
OPERATIONS: Final = (
    Operation("open", _open, from_closed=True, deadlines=4),
    Operation(
        "open-first",
        _open_and_configure,
        from_closed=True,
        fresh=True,
        may_fail=(LedgerUnknown,),
        deadlines=5,
    ),
    Operation("put-small", _put(SMALL)),
    Operation("put-blocks", _put(BLOCKS)),
    Operation("put-direct", _put(DIRECT)),
    Operation("put-unannounced", _put(BLOCKS, announced=False)),
    Operation("put-again", _put(KEPT)),
    Operation("put-rotten", _put(KEPT), _rot(KEPT, hurt=True), rotten=((KEPT, True),)),
    Operation(
        "put-rotten-beside",
        _put(KEPT_BLOCKS),
        _rot(KEPT_BLOCKS, hurt=False),
        rotten=((KEPT_BLOCKS, False),),
    ),
    Operation("config", _configure),
    Operation("reconcile", _reconcile, ready=_configure, deadlines=2),
    Operation("reset", _reset, may_fail=(NoDataset, Io)),
    Operation("pin", _pin),
    Operation("unpin", _unpin),
    Operation("heal-onto", _remirror, deadlines=3, prepare=_lose(KEPT_BLOCKS, hurt=True)),
    Operation("heal-from", _remirror, deadlines=3, prepare=_lose(KEPT_BLOCKS, hurt=False)),
    Operation("scrub", _scrub, deadlines=2, prepare=_rot(KEPT, hurt=True), rotten=((KEPT, True),)),
    Operation(
        "heal-rotten",
        _remirror,
        deadlines=3,
        prepare=_rot(KEPT_BLOCKS, hurt=True),
        ready=_scrub,
        rotten=((KEPT_BLOCKS, True),),
    ),
    Operation("get-small", _get(KEPT), deadlines=2),
    Operation("get-blocks", _get(KEPT_BLOCKS), deadlines=2),
    Operation("watch", _look, deadlines=2),
    Operation("return", _look_twice, ready=_go_and_change, deadlines=6),
    Operation("close", _close, deadlines=2),
)
