"""What is held is there, whole and to be found, until it is dropped."""

from __future__ import annotations

import asyncio
import io

import pytest

from coordinator.staging.depot import StagingDepot
from depot.errors import (
    DatasetBusy,
    DatasetUnusable,
    HashMismatch,
    LengthMismatch,
    NotFound,
    QuotaExceeded,
)
from tests import ondisk
from tests.coordinator.staging.bench import MIB, ONE, THREE, TWO, Bench, hash_of, hold
from tests.store.builders import off_loop


class Broken(io.BytesIO):
    """A member of a release that turns out to be wrong while it is read."""

    def readinto(self, buffer: object, /) -> int:
        raise ValueError("target 'os.img': expected 7 bytes")


async def test_what_is_held_is_found_with_its_size(bench: Bench) -> None:
    async with bench.depot() as depot:
        await hold(depot, ONE, TWO)
        staged = await depot.locate(hash_of(ONE))

        assert depot.held() == {hash_of(ONE), hash_of(TWO)}
        assert staged.size_bytes == len(ONE)
        assert await off_loop(staged.path.read_bytes) == ONE
        assert depot.status().used_bytes == len(ONE) + len(TWO)


async def test_what_is_not_held_is_not_found(bench: Bench) -> None:
    async with bench.depot() as depot:
        with pytest.raises(NotFound):
            await depot.locate(hash_of(ONE))


async def test_several_holds_of_one_claim_run_side_by_side(bench: Bench) -> None:
    contents = [bytes([number]) * (MIB // 4) for number in range(24)]
    async with bench.depot() as depot, asyncio.timeout(60):
        async with depot.claim({hash_of(c): len(c) for c in contents}) as claim:
            holds = (claim.hold(hash_of(c), io.BytesIO(c)) for c in contents)
            assert all(await asyncio.gather(*holds))
        assert depot.held() == set(map(hash_of, contents))


async def test_what_is_here_is_verified_and_not_read_again(bench: Bench) -> None:
    async with bench.depot() as depot:
        await hold(depot, ONE)
        async with depot.claim({hash_of(ONE): len(ONE)}) as claim:
            assert await claim.hold(hash_of(ONE), Broken()) is False


async def test_b5_a_damaged_copy_is_replaced_by_the_next_hold(bench: Bench) -> None:
    async with bench.depot() as depot:
        await hold(depot, ONE)
        await bench.damage(hash_of(ONE))
        await hold(depot, ONE)

        staged = await depot.locate(hash_of(ONE))
        assert await off_loop(staged.path.read_bytes) == ONE


async def test_b6_what_a_sled_found_to_be_wrong_is_verified_and_not_held_any_more(
    bench: Bench,
) -> None:
    async with bench.depot() as depot:
        await hold(depot, ONE, TWO)
        await bench.damage(hash_of(ONE))

        assert not await depot.verify(hash_of(ONE))
        assert await depot.verify(hash_of(TWO))
        assert depot.held() == {hash_of(TWO)}
        assert await off_loop(ondisk.quarantined_files, bench.dataset, str(hash_of(ONE)))
        with pytest.raises(NotFound):
            await depot.locate(hash_of(ONE))


async def test_a_hold_with_other_bytes_leaves_nothing(bench: Bench) -> None:
    async with bench.depot() as depot:
        async with depot.claim({hash_of(ONE): len(ONE), hash_of(TWO): len(TWO)}) as claim:
            with pytest.raises(HashMismatch):
                await claim.hold(hash_of(ONE), io.BytesIO(b"x" * len(ONE)))
            with pytest.raises(LengthMismatch):
                await claim.hold(hash_of(TWO), io.BytesIO(TWO[:-1]))
        assert not depot.held()
    assert not await bench.files()


async def test_what_reading_raises_is_raised_by_the_hold(bench: Bench) -> None:
    async with bench.depot() as depot:
        async with depot.claim({hash_of(ONE): len(ONE), hash_of(THREE): len(THREE)}) as claim:
            for artifact in (hash_of(ONE), hash_of(THREE)):
                with pytest.raises(ValueError, match=r"os\.img"):
                    await claim.hold(artifact, Broken())
        assert not depot.held()


async def test_q2_beyond_the_quota_an_upload_is_refused_before_its_first_byte(
    bench: Bench,
) -> None:
    bench.quota_bytes = len(ONE) + len(TWO) - 1
    async with bench.depot() as depot:
        await hold(depot, ONE)
        with pytest.raises(QuotaExceeded):
            await hold(depot, ONE, TWO)
        assert depot.held() == {hash_of(ONE)}


async def test_what_is_held_takes_no_more_room_when_it_is_claimed_again(bench: Bench) -> None:
    bench.quota_bytes = len(ONE) + len(THREE)
    async with bench.depot() as depot:
        await hold(depot, ONE)
        await hold(depot, ONE, THREE)
        assert depot.held() == {hash_of(ONE), hash_of(THREE)}


async def test_f5_what_is_held_is_there_after_a_restart_under_the_same_id(bench: Bench) -> None:
    async with bench.depot() as depot:
        await hold(depot, ONE, TWO)
        name = depot.id
    async with bench.depot() as depot:
        assert depot.held() == {hash_of(ONE), hash_of(TWO)}
        assert depot.id == name


async def test_q3_uploads_that_nobody_finished_are_gone_after_a_restart(bench: Bench) -> None:
    async with bench.depot() as depot:
        await off_loop((depot.incoming / "release.zip").write_bytes, b"half of it")
        await off_loop((depot.incoming / "unpacked").mkdir)
    async with bench.depot() as depot:
        assert not await off_loop(lambda: list(depot.incoming.iterdir()))


async def test_one_directory_is_for_one_coordinator(bench: Bench) -> None:
    async with bench.depot() as depot:
        await hold(depot, ONE)
        with pytest.raises(DatasetBusy):
            await StagingDepot.open(bench.path, quota_bytes=MIB)
        assert depot.held() == {hash_of(ONE)}


async def test_a_depot_whose_artifacts_are_gone_is_not_begun_anew(bench: Bench) -> None:
    async with bench.depot() as depot:
        await hold(depot, ONE)
    away = bench.path / "elsewhere"
    await off_loop(bench.dataset.rename, away)
    with pytest.raises(DatasetUnusable, match="not the staging depot"):
        await StagingDepot.open(bench.path, quota_bytes=MIB)
    await off_loop(bench.dataset.rmdir)
    await off_loop(away.rename, bench.dataset)
    async with bench.depot() as depot:
        assert depot.held() == {hash_of(ONE)}


async def test_a_directory_with_other_files_is_left_alone(bench: Bench) -> None:
    await off_loop(bench.dataset.mkdir, parents=True)
    await off_loop((bench.dataset / "letter.txt").write_text, "dear reader")
    with pytest.raises(DatasetUnusable):
        await StagingDepot.open(bench.path, quota_bytes=MIB)
    assert await off_loop((bench.dataset / "letter.txt").read_text) == "dear reader"
