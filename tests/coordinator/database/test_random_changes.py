"""F3 over random changes of a fleet: what a sled is to hold is a function of the generation."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.database import (
    counters,
    generation,
    history,
    pins,
    releases,
    sleds,
    snapshot,
    staged,
    target,
)
from coordinator.database.database import Database
from coordinator.database.known_releases import KnownReleases
from coordinator.database.transaction import Transaction
from coordinator.values import RequestRecord, SledPolicy, SledSighting, SledState
from depot.artifact import ArtifactHash, Generation
from depot.errors import DepotError
from tests.coordinator.database.making import add_sled, artifact, config_of, opened, release, sha

Change = Callable[[Transaction], Awaitable[object]]
SLEDS = ("s1", "s2")
CONTENTS = ("a", "b", "c")


class Aborted(Exception):
    """What a transaction ends with that is not to be."""


def some(names: tuple[str, ...]) -> st.SearchStrategy[frozenset[str]]:
    return st.frozensets(st.sampled_from(names))


def hashes(names: frozenset[str]) -> list[ArtifactHash]:
    return [sha(name) for name in sorted(names)]


VERSIONS = st.sampled_from(("1", "2", "3"))
IDS = st.sampled_from(SLEDS)
# Each name is one content in one release and another in the next, at times: a conflict.
ARTIFACTS = st.frozensets(
    st.builds(artifact, st.sampled_from(("n1", "n2", "n3")), st.sampled_from(CONTENTS)),
    max_size=3,
).map(tuple)


def recorded(version: str, artifacts: tuple[object, ...]) -> Change:
    return lambda tx: releases.record(tx, release(version, *artifacts))  # type: ignore[arg-type]


CHANGE: st.SearchStrategy[Change] = st.one_of(
    st.builds(recorded, VERSIONS, ARTIFACTS),
    st.builds(recorded, VERSIONS, ARTIFACTS),
    VERSIONS.map(lambda version: lambda tx: releases.remove(tx, version)),
    st.tuples(IDS, some((*CONTENTS, "x", "y"))).map(
        lambda given: lambda tx: pins.keep(tx, given[0], hashes(given[1]))
    ),
    IDS.map(lambda sled_id: lambda tx: add_sled(tx, sled_id)),
    st.tuples(IDS, st.sampled_from(SledPolicy)).map(
        lambda given: lambda tx: sleds.set_policy(tx, *given)
    ),
    VERSIONS.map(lambda version: lambda tx: target.choose(tx, version, 1.0)),
    VERSIONS.map(lambda version: lambda tx: releases.mark(tx, incomplete={version})),
    some(CONTENTS).map(lambda names: lambda tx: staged.replace(tx, "c1", hashes(names))),
    IDS.map(
        lambda sled_id: lambda tx: sleds.note(tx, [SledSighting(sled_id, SledState.BEHIND, "?")])
    ),
    st.just(lambda tx: history.append(tx, [RequestRecord(1.0, "s1", "list")])),
    st.just(lambda tx: counters.add(tx, {"list_ok": 1})),
    st.integers(1, 40).map(lambda to: lambda tx: generation.advance(tx, Generation(to))),
)
TRANSACTIONS = st.lists(
    st.tuples(st.lists(CHANGE, min_size=1, max_size=3), st.sampled_from([False] * 4 + [True])),
    max_size=14,
)


async def change(tx: Transaction, changes: list[Change], abort: bool) -> None:
    for each in changes:
        await each(tx)
    if abort:
        raise Aborted


Configs = dict[str, frozenset[ArtifactHash]]


async def configs(database: Database, known: KnownReleases) -> tuple[Generation, Configs]:
    found = await database.run(snapshot.read)
    # Whoever remembers what releases name reads the same.
    assert await database.run(snapshot.read, known.every) == found
    return found.generation, {sled_id: config_of(found, sled_id).artifacts for sled_id in SLEDS}


async def run(path: Path, transactions: list[tuple[list[Change], bool]]) -> None:
    async with await opened(f"sqlite:///{path}") as database:
        known = KnownReleases()
        last, last_configs = await configs(database, known)
        for changes, abort in transactions:
            with suppress(DepotError, Aborted):
                await database.run(change, changes, abort)
            now, now_configs = await configs(database, known)
            assert now >= last
            assert now > last or now_configs == last_configs
            last, last_configs = now, now_configs


@given(transactions=TRANSACTIONS)
@settings(max_examples=25)
def test_f3_a_generation_is_of_one_set_for_each_sled_and_never_comes_again(
    sqlite_template: bytes, transactions: list[tuple[list[Change], bool]]
) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / "fleet.sqlite3"
        path.write_bytes(sqlite_template)
        asyncio.run(run(path, transactions))
