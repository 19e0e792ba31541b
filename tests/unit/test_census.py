"""What is counted step by step against what counting anew would find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depot.artifact import ArtifactConfig, ArtifactHash
from depot.config.ledger import Ledger, Resolved, Standing
from depot.healing.census import Census, Lacks
from depot.mirrors.inventory import Copy, Inventory, differing, is_good, missing_bytes, take_stock
from depot.state.persistent import PersistentMap

NAMES = [ArtifactHash.of(b"%d" % number) for number in range(6)]
names = st.sampled_from(NAMES)
copies = st.none() | st.builds(
    Copy,
    st.integers(0, 3),
    st.none() | st.just(5.0),
    st.booleans(),
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("record"), st.integers(0, 1), names, copies),
        st.tuples(st.just("doubt"), st.integers(0, 1), names, st.none()),
        st.tuples(st.just("believe"), st.integers(0, 1), names, st.none()),
        st.tuples(st.just("missing"), st.integers(0, 1), names, st.none()),
        st.tuples(st.just("back"), st.integers(0, 1), names, st.none()),
        st.tuples(st.just("config"), st.integers(0, 63), names, st.none()),
        st.tuples(st.just("ask"), st.just(0), names, st.none()),
    ),
    max_size=40,
)


_Steps = tuple[tuple[str, int, ArtifactHash, Copy | None], ...]


class FakeMirror:
    """What a census asks of a mirror, changed as `depot.mirrors.records` does it."""

    def __init__(self) -> None:
        self.rows: dict[ArtifactHash, Copy] = {}
        self.in_doubt: dict[ArtifactHash, object] = {}
        self.inventory = Inventory()
        self.readable = True
        self.stock_revision = 0
        self.on_copy: Callable[[ArtifactHash], object] = str
        self.looks = 0

    @property
    def doubts(self) -> Doubts:
        return Doubts(self.in_doubt)

    def certain_copy(self, artifact: ArtifactHash) -> Copy | None:
        self.looks += 1
        return None if artifact in self.in_doubt else self.good(artifact)

    def good(self, artifact: ArtifactHash) -> Copy | None:
        copy = self.rows.get(artifact)
        here = self.readable and copy is not None and is_good(artifact, copy)
        return copy if here else None

    def record(self, artifact: ArtifactHash, copy: Copy | None) -> None:
        before = self.rows.pop(artifact, None)
        if copy is not None:
            self.rows[artifact] = copy
        self.inventory.changed(artifact, before, copy)
        self.on_copy(artifact)


class Doubts:
    def __init__(self, rows: dict[ArtifactHash, object]) -> None:
        self.rows = PersistentMap.of(rows)


class Sled:
    """Two mirrors and a config."""

    def __init__(self) -> None:
        self.all = (FakeMirror(), FakeMirror())
        self.resolve(63)

    def readable(self) -> list[FakeMirror]:
        return [mirror for mirror in self.all if mirror.readable]

    def resolve(self, mask: int) -> None:
        wanted = [name for place, name in enumerate(NAMES) if mask >> place & 1]
        ledger = Ledger(1, ArtifactConfig.make(1 + mask, wanted))
        self.resolved = Resolved(Standing.CLEAR, ledger, ledger.rank, certain=True)

    def anew(self) -> Lacks:
        assert self.resolved.config is not None
        some, none = [], []
        for artifact in sorted(self.resolved.config.artifacts):
            here = [mirror.good(artifact) for mirror in self.all]
            counted = [m.good(artifact) if artifact not in m.in_doubt else None for m in self.all]
            if not any(here):
                none.append(artifact)
            elif None in counted:
                some.append(artifact)
        return Lacks(tuple(some), tuple(none))


def take(sled: Sled, step: tuple[str, int, ArtifactHash, Copy | None]) -> None:
    kind, number, artifact, copy = step
    if kind == "config":
        sled.resolve(number)
        return
    mirror = sled.all[number]
    if kind == "record":
        mirror.record(artifact, copy)
    elif kind == "believe":
        mirror.in_doubt.pop(artifact, None)
        mirror.on_copy(artifact)
    elif kind == "doubt":
        mirror.in_doubt = dict.fromkeys(mirror.rows, True)
        mirror.stock_revision += 1
    elif kind in ("missing", "back"):
        mirror.readable = kind == "back"
        mirror.stock_revision += 1


@settings(max_examples=200, deadline=None)
@given(steps)
def test_what_was_counted_step_by_step_is_what_counting_anew_finds(
    taken: list[tuple[str, int, ArtifactHash, Copy | None]],
) -> None:
    sled = Sled()
    census = Census(sled, sled)  # type: ignore[arg-type]  # what it asks of mirrors and keeper
    for step in taken:
        take(sled, step)
        if step[0] == "ask":
            assert census.lacks() == sled.anew()
    assert census.lacks() == sled.anew()
    for mirror in sled.all:
        again = take_stock(mirror.rows).inventory
        for name in Inventory.__slots__:
            assert getattr(mirror.inventory, name) == getattr(again, name)


@settings(deadline=None)
@given(st.lists(st.one_of(steps.map(tuple), st.sampled_from(["recount", "wait"])), max_size=8))
def test_what_changes_while_it_is_counted_in_a_thread_is_not_missed(
    taken: list[_Steps | str],
) -> None:
    asyncio.run(_recounted(taken))


async def _recounted(
    taken: list[_Steps | str],
) -> None:
    sled = Sled()
    census = Census(sled, sled)  # type: ignore[arg-type]  # as above
    async with asyncio.TaskGroup() as counting:
        running: list[asyncio.Task[None]] = []
        for some in taken:
            if some == "recount":
                running.append(counting.create_task(census.recount()))
                await asyncio.sleep(0)
            elif some == "wait":
                await asyncio.gather(*running)
            for step in () if isinstance(some, str) else some:
                take(sled, step)
                if step[0] == "ask":
                    assert census.lacks() == sled.anew()
    assert census.lacks() == sled.anew()


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("lost", [False, True])
def test_a_copy_that_comes_while_it_is_counted_in_a_thread_counts(asked: bool, lost: bool) -> None:
    came: _Steps = (("record", 0, NAMES[0], Copy(1)), ("ask", 0, NAMES[0], None))
    missing: _Steps = (("missing", 1, NAMES[0], None),)
    asyncio.run(_recounted(["recount", came[: 1 + asked], missing[:lost], "wait"]))


def test_what_was_counted_in_a_thread_is_not_counted_again() -> None:
    sled = Sled()
    census = Census(sled, sled)  # type: ignore[arg-type]  # as above
    sled.all[0].record(NAMES[0], Copy(1))
    asyncio.run(census.recount())
    sled.all[0].inventory = Inventory()  # whoever counts now finds nothing
    assert census.lacks() == Lacks(some=(NAMES[0],), all=tuple(sorted(NAMES[1:])))


@settings(deadline=None)
@given(steps)
def test_the_bytes_that_are_missing_are_those_of_each_copy_that_is_not_there(
    taken: list[tuple[str, int, ArtifactHash, Copy | None]],
) -> None:
    sled = Sled()
    for step in taken:
        if step[0] == "record" and step[3] is not None:
            # Whole copies of an artifact have one size.
            size_bytes = 1 + NAMES.index(step[2])
            step = (*step[:3], Copy(size_bytes, None, step[3].damaged))
        take(sled, step)
    some = sled.anew().some
    expected = 0
    for artifact in some:
        sizes = [copy.size_bytes for m in sled.all if (copy := m.good(artifact)) is not None]
        expected += max(sizes) * (2 - len(sizes))
    readable = [mirror.inventory for mirror in sled.readable()]
    assert missing_bytes(some, readable, 2) == expected


@pytest.mark.parametrize("sizes", [(5, 900), (900, 5)])
def test_copies_that_differ_in_size_are_no_bytes_that_are_missing(sizes: tuple[int, int]) -> None:
    readable = [take_stock({NAMES[0]: Copy(size)}).inventory for size in sizes]
    assert missing_bytes(NAMES[:1], readable, 2) == 0


def test_what_differs_in_size_is_there_twice() -> None:
    here = dict(zip(NAMES[:4], (1, 2, 3, 4), strict=True))
    there = [{NAMES[0]: 1, NAMES[1]: 7, NAMES[4]: 5}, {NAMES[3]: 4, NAMES[2]: 0}]
    assert differing(here, there) == {NAMES[1], NAMES[2]}


@pytest.mark.parametrize("artifacts", [2_000, 20_000])
def test_one_copy_that_changes_has_one_artifact_looked_at(artifacts: int) -> None:
    sled = Sled()
    many = [ArtifactHash.of(b"%d" % number) for number in range(artifacts)]
    config = ArtifactConfig.make(1, many)
    sled.resolved = Resolved(Standing.CLEAR, Ledger(1, config), Ledger(1, config).rank, True)
    census = Census(sled, sled)  # type: ignore[arg-type]  # as above
    for mirror in sled.all:
        for artifact in many:
            mirror.record(artifact, Copy(1))
    assert census.lacks() == Lacks()
    for mirror in sled.all:
        mirror.looks = 0
    sled.all[1].record(many[7], None)
    assert census.lacks() == Lacks(some=(many[7],))
    assert sum(mirror.looks for mirror in sled.all) <= 2
