"""The endpoints of the background verification, its place in the status, and its figures."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from depot import ArtifactHash, ArtifactStore
from depot.scrub.copy_database import FILE_NAME
from tests.http.sled import (
    Sled,
    agent_api,
    dataset_paths,
    prepare_datasets,
    sled_with_store,
    take_away,
)
from tests.kept_rows import age_rows

CONTENT = b"an artifact's bytes"
NAME = ArtifactHash.of(CONTENT)
RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
WAIT_S = 20.0


@pytest.fixture
def root(tmp_path: Path) -> Path:
    prepare_datasets(tmp_path)
    return tmp_path


@pytest.fixture
async def sled(root: Path) -> AsyncIterator[Sled]:
    """A sled whose duties run, and whose events are those of its store."""
    sinks: list[Sled] = []
    opening = ArtifactStore.open(
        dataset_paths(root),
        state_dir=root / "state",
        on_event=lambda kind, fields: sinks[0].events.emit(kind, fields) if sinks else None,
    )
    async with await opening as store, agent_api(store, root) as sled:
        sinks.append(sled)
        await sled.put_config(1, NAME)
        await sled.put(CONTENT)
        duties = asyncio.ensure_future(store.run_duties())
        yield sled
        duties.cancel()
        with suppress(asyncio.CancelledError):
            await duties


async def events_of(sled: Sled, kind: str, count: int) -> list[dict[str, Any]]:
    """Wait for so many events of a kind."""
    found: list[dict[str, Any]] = []
    after = 0
    async with asyncio.timeout(WAIT_S):
        while len(found) < count:
            page = (await sled.call("GET", f"/events?after={after}&wait_s=5")).body
            after = page["latest"]
            found += [event for event in page["events"] if event["kind"] == kind]
    return found


async def scrape(sled: Sled) -> dict[str, float]:
    text = (await sled.call("GET", "/metrics")).content.decode()
    return {
        f"{sample.name}{{{','.join(sample.labels.values())}}}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_a_scrub_of_everything_is_started_followed_and_reported(sled: Sled) -> None:
    reply = await sled.call("POST", "/scrub")
    assert reply.code == "202"
    # One small copy may have been read before the reply was made.
    passes = [dataset["current"] or dataset["last"] for dataset in reply.body["datasets"]]
    assert [each["requested"] for each in passes] == [True, True]
    for event in await events_of(sled, "scrub_finished", 2):
        assert (event["copies"], event["bytes"], event["bad"]) == (1, len(CONTENT), 0)
        assert event["seconds"] >= 0
    found = (await sled.call("GET", "/scrub")).body
    assert (found["interval_s"], found["max_bytes_per_s"]) == (86400, 500 << 20)
    assert found["paused_until"] is None
    for dataset in found["datasets"]:
        assert (dataset["state"], dataset["current"]) == ("idle", None)
        assert (dataset["copies"], dataset["bytes"], dataset["never_verified"]) == (
            1,
            len(CONTENT),
            0,
        )
        assert dataset["verified_bytes"] == len(CONTENT)
        assert 0 <= dataset["oldest_unverified_s"] < 3600
        last = dataset["last"]
        assert (last["copies"], last["copies_total"], last["bad"]) == (1, 1, 0)
        assert (last["bytes_done"], last["bytes_total"]) == (len(CONTENT), len(CONTENT))
        assert RFC_3339.fullmatch(last["started_at"])
        assert RFC_3339.fullmatch(last["finished_at"])


async def test_the_status_has_the_scrub(sled: Sled) -> None:
    status = (await sled.call("GET", "/status")).body
    scrub = (await sled.call("GET", "/scrub")).body
    assert status["scrub"].keys() == scrub.keys()
    assert [d["dataset"] for d in status["scrub"]["datasets"]] == [
        d["path"] for d in status["datasets"]
    ]


async def test_a_rotten_copy_shows_in_the_figures_with_the_time_its_healing_took(
    sled: Sled, root: Path
) -> None:
    bad = dataset_paths(root)[1]

    def rot() -> None:
        path = bad / str(NAME)
        path.chmod(0o644)
        with path.open("r+b") as file:
            file.write(b"AN")

    await asyncio.to_thread(rot)
    await sled.call("POST", "/scrub")
    await events_of(sled, "healed", 1)
    await events_of(sled, "scrub_finished", 2)
    figures = await scrape(sled)
    good = dataset_paths(root)[0]
    assert figures[f"sled_depot_scrub_bad_copies_total{{{bad}}}"] == 1
    assert figures[f"sled_depot_scrub_bad_copies_total{{{good}}}"] == 0
    assert figures[f"sled_depot_scrub_heal_seconds_count{{{bad}}}"] == 1
    assert 0 <= figures[f"sled_depot_scrub_heal_seconds_sum{{{bad}}}"] < 3600
    assert figures[f"sled_depot_scrub_verified_bytes_total{{{good}}}"] == len(CONTENT)
    assert figures[f"sled_depot_scrub_never_verified_copies{{{good}}}"] == 0
    assert 0 <= figures[f"sled_depot_scrub_oldest_unverified_seconds{{{bad}}}"] < 3600
    assert figures["sled_depot_scrub_paused{}"] == 0


async def test_a_pause_is_shown_with_its_end_and_can_be_ended(sled: Sled) -> None:
    paused = await sled.call("POST", "/scrub/pause", {"seconds": 600})
    assert paused.code == "200"
    assert RFC_3339.fullmatch(paused.body["paused_until"])
    assert {dataset["state"] for dataset in paused.body["datasets"]} == {"paused"}
    assert (await scrape(sled))["sled_depot_scrub_paused{}"] == 1
    assert (await sled.call("POST", "/scrub/resume")).body["paused_until"] is None
    assert (await sled.call("POST", "/scrub/pause", {})).body["paused_until"]
    assert (await sled.call("POST", "/scrub")).body["paused_until"] is None


BAD_PAUSES = [{"seconds": n} for n in (0, -1, 604801, 1.5, "60", True, None, 10**30)]


@pytest.mark.parametrize("body", [*BAD_PAUSES, {"minutes": 1}, [], "600", 600])
async def test_a_pause_of_no_sensible_length_is_refused(sled: Sled, body: object) -> None:
    assert (await sled.call("POST", "/scrub/pause", body)).code == "400 InvalidRequest"
    assert (await sled.call("GET", "/scrub")).body["paused_until"] is None


async def test_a_dataset_that_is_away_is_skipped_and_no_dataset_is_a_refusal(root: Path) -> None:
    first, second = dataset_paths(root)
    await take_away(second)
    async with sled_with_store(root) as sled:
        found = (await sled.call("POST", "/scrub")).body
        assert [dataset["state"] for dataset in found["datasets"]] == ["running", "skipped"]
    await take_away(first)
    async with sled_with_store(root) as sled:
        assert (await sled.call("POST", "/scrub")).code == "503 NoDataset"
        assert (await sled.call("GET", "/scrub")).code == "200"
        assert (await sled.call("POST", "/scrub/pause", {})).code == "200"
        assert (await sled.call("POST", "/scrub/resume")).code == "200"


async def test_when_a_copy_was_verified_is_said_after_a_restart_too(root: Path) -> None:
    async with sled_with_store(root) as sled:
        await sled.put_config(1, NAME)
        await sled.put(CONTENT)
        before = (await sled.call("GET", f"/artifacts/{NAME}")).body
        assert all(RFC_3339.fullmatch(copy["verified_at"]) for copy in before["copies"])
    async with sled_with_store(root) as sled:
        assert (await sled.call("GET", f"/artifacts/{NAME}")).body == before


async def test_the_figures_tell_how_old_the_oldest_verification_is(root: Path) -> None:
    async with sled_with_store(root) as sled:
        await sled.put_config(1, NAME)
        await sled.put(CONTENT)

    await asyncio.to_thread(age_rows, root / "state" / FILE_NAME, 7200)
    async with sled_with_store(root) as sled:
        figures = await scrape(sled)
        for dataset in dataset_paths(root):
            told_s = figures[f"sled_depot_scrub_oldest_unverified_seconds{{{dataset}}}"]
            assert 7200 <= told_s < 10_800


async def test_the_figures_tell_how_long_it_took_from_found_to_healed(root: Path) -> None:
    bad = dataset_paths(root)[1]
    async with sled_with_store(root) as sled:
        await sled.put_config(1, NAME)
        await sled.put(CONTENT)
    opening = ArtifactStore.open(dataset_paths(root), state_dir=root / "state")
    async with await opening as store, agent_api(store, root) as sled:
        await asyncio.to_thread((bad / str(NAME)).chmod, 0o644)
        await asyncio.to_thread((bad / str(NAME)).write_bytes, CONTENT[::-1])
        await store.scrub()
        later_s = time.time() + 100
        store._parts.records._clock = lambda: later_s
        assert await store.remirror() == 1
        figures = await scrape(sled)
    assert 100 <= figures[f"sled_depot_scrub_heal_seconds_sum{{{bad}}}"] < 160


async def test_a_copy_that_is_gone_shows_in_the_pass_and_in_the_figures(
    sled: Sled, root: Path
) -> None:
    bad = dataset_paths(root)[1]
    await asyncio.to_thread((bad / str(NAME)).unlink)
    await sled.call("POST", "/scrub")
    await events_of(sled, "healed", 1)
    await events_of(sled, "scrub_finished", 2)
    (gone,) = await events_of(sled, "copy_gone", 1)
    assert (gone["sha256"], gone["dataset"]) == (str(NAME), str(bad))
    found = (await sled.call("GET", "/scrub")).body
    assert [dataset["last"]["bad"] for dataset in found["datasets"]] == [0, 1]
    figures = await scrape(sled)
    assert figures[f"sled_depot_scrub_bad_copies_total{{{bad}}}"] == 1
    assert figures[f"sled_depot_scrub_heal_seconds_count{{{bad}}}"] == 1


async def test_a_dataset_without_copies_has_no_oldest_verification(sled: Sled, root: Path) -> None:
    gone, here = dataset_paths(root)
    released = await sled.call("POST", "/datasets/release", {"path": str(gone)})
    assert released.code == "200", released.body
    figures = await scrape(sled)
    name = "sled_depot_scrub_oldest_unverified_seconds"
    assert f"{name}{{{gone}}}" not in figures
    assert f"{name}{{{here}}}" in figures
