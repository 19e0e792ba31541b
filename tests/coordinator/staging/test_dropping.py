"""What may be dropped, and what may not be whatever was decided."""

from __future__ import annotations

import io

import pytest

from coordinator.staging.depot import StagingDepot
from depot.errors import NoDataset, QuotaExceeded
from tests import ondisk
from tests.coordinator.staging.bench import ONE, THREE, TWO, Bench, hash_of, hold
from tests.store.builders import off_loop
from tests.store.faulty import FaultyDisk


async def test_what_is_dropped_is_gone_and_its_room_is_free(bench: Bench) -> None:
    bench.quota_bytes = len(TWO)
    async with bench.depot() as depot:
        await hold(depot, ONE)
        dropped = await depot.drop([hash_of(ONE)], since=depot.moment())

        assert dropped == [hash_of(ONE)]
        assert not depot.held()
        await hold(depot, TWO)
        assert depot.held() == {hash_of(TWO)}
    assert await bench.files() == [str(hash_of(TWO))]


async def test_dropping_all_but_one_waits_for_no_grace(bench: Bench) -> None:
    async with bench.depot() as depot:
        artifacts = await hold(depot, ONE, TWO, THREE)
        await depot.drop(artifacts[1:], since=depot.moment())
        assert await bench.files() == [str(hash_of(ONE))]


async def test_dropping_what_is_not_held_is_no_error(bench: Bench) -> None:
    async with bench.depot() as depot:
        assert await depot.drop([hash_of(ONE)], since=depot.moment()) == []


async def test_f2_what_a_running_upload_claims_is_not_dropped(bench: Bench) -> None:
    async with bench.depot() as depot:
        await hold(depot, ONE, TWO)
        async with depot.claim({hash_of(ONE): len(ONE)}):
            dropped = await depot.drop([hash_of(ONE), hash_of(TWO)], since=depot.moment())
        assert dropped == [hash_of(TWO)]
        assert depot.held() == {hash_of(ONE)}


async def test_f2_two_uploads_may_claim_the_same_and_the_last_one_lets_go(bench: Bench) -> None:
    async with bench.depot() as depot:
        async with depot.claim({hash_of(ONE): len(ONE)}) as claim:
            await hold(depot, ONE)
            await depot.drop([hash_of(ONE)], since=depot.moment())
            assert not await claim.hold(hash_of(ONE), io.BytesIO(ONE))
        assert await depot.drop([hash_of(ONE)], since=depot.moment()) == [hash_of(ONE)]


async def test_f2_a_decision_from_before_a_claim_drops_nothing(bench: Bench) -> None:
    async with bench.depot() as depot:
        await hold(depot, ONE, TWO)
        moment = depot.moment()
        await hold(depot, ONE)

        assert await depot.drop([hash_of(ONE), hash_of(TWO)], since=moment) == [hash_of(TWO)]
        assert depot.held() == {hash_of(ONE)}
        assert await depot.drop([hash_of(ONE)], since=depot.moment()) == [hash_of(ONE)]


async def test_f2_an_upload_that_fails_drops_nothing(bench: Bench) -> None:
    async with bench.depot() as depot:
        with pytest.raises(RuntimeError, match="commit"):
            await _hold_and_fail(depot)
        assert depot.held() == {hash_of(ONE)}


async def test_what_was_claimed_and_never_came_is_forgotten(bench: Bench) -> None:
    async with bench.depot() as depot:
        async with depot.claim({hash_of(ONE): len(ONE)}):
            pass
        await hold(depot, TWO)
    ledger = await off_loop((bench.dataset / ondisk.LEDGER).read_text)
    assert str(hash_of(ONE)) not in ledger
    assert str(hash_of(TWO)) in ledger


async def test_b6_what_is_only_damaged_is_not_forgotten(bench: Bench) -> None:
    async with bench.depot() as depot:
        await hold(depot, ONE)
        await bench.damage(hash_of(ONE))
        assert not await depot.verify(hash_of(ONE))
        await hold(depot, TWO)
    assert str(hash_of(ONE)) in await off_loop((bench.dataset / ondisk.LEDGER).read_text)
    assert await off_loop(ondisk.quarantined_files, bench.dataset)


async def test_b4_a_disk_that_is_away_is_said_to_be_unknown_not_empty(bench: Bench) -> None:
    async with bench.depot() as depot:
        await hold(depot, ONE)
        away = await off_loop(bench.dataset.rename, bench.path / "away")
        with pytest.raises(NoDataset):
            await hold(depot, TWO)
        with pytest.raises(NoDataset):
            depot.held()
        with pytest.raises(NoDataset):
            await depot.drop([hash_of(ONE)], since=depot.moment())
        await off_loop(away.rename, bench.dataset)
    async with bench.depot() as depot:
        assert depot.held() == {hash_of(ONE)}


async def test_q2_a_full_disk_refuses_what_is_new_and_keeps_what_is_here(bench: Bench) -> None:
    bench.disk = disk = FaultyDisk()
    async with bench.depot() as depot:
        await hold(depot, ONE)
        async with depot.claim({hash_of(TWO): len(TWO)}) as claim:
            disk.fill_up()
            with pytest.raises(QuotaExceeded):
                await claim.hold(hash_of(TWO), io.BytesIO(TWO))
            assert depot.held() == {hash_of(ONE)}
            disk.heal()
        assert await depot.drop([hash_of(ONE)], since=depot.moment()) == [hash_of(ONE)]
        await hold(depot, TWO)


async def _hold_and_fail(depot: StagingDepot) -> None:
    async with depot.claim({hash_of(ONE): len(ONE)}) as claim:
        await claim.hold(hash_of(ONE), io.BytesIO(ONE))
        raise RuntimeError("the outcome of the commit is unknown")
