from __future__ import annotations

import asyncio
import errno
import json
import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest
from blockbuster import BlockBuster

from agent.assembly import (
    body_pump,
    compressor,
    copy_options,
    hot_artifacts,
    http_limits,
    own_names,
    peer_limits,
)
from agent.config.loading import check
from agent.config.settings import Settings
from agent.copies.manager import CopyOptions
from agent.copies.peers import PeerLimits
from agent.daemon import Ready, status_line, why_not
from agent.duties import UNATTENDED
from agent.event_relay import EventRelay
from agent.opening import opened, store_options
from depot.artifact import ArtifactHash
from depot.device.host import DeviceWorkers
from depot.errors import DatasetBusy, FormatTooNew
from depot.http.limits import HttpLimits
from depot.http.way import Way
from depot.options import StoreOptions
from depot.reading.reader import VerifyReads
from depot.store_status import DatasetStatus, StoreStatus

DATASETS = [{"path": "/m2/a"}, {"path": "/m2/b"}]


def settings(**tables: object) -> Settings:
    made, problems = check({"datasets": DATASETS, **tables})
    assert not problems
    return made


def dataset(
    path: str, state: Literal["healthy", "suspect", "missing"], error: str | None = None
) -> DatasetStatus:
    return DatasetStatus(
        path=path,
        dataset_id=None,
        device=None,
        mounted=True,
        state=state,
        full=False,
        last_error=error,
        quota_bytes=0,
        used_bytes=0,
        reserved_bytes=0,
        available_bytes=0,
        artifacts=0,
    )


def store_status(generation: int | None, *datasets: DatasetStatus) -> StoreStatus:
    return StoreStatus(
        sled_id=None,
        epoch=0,
        generation=generation,
        config_digest=None,
        ledger="clear",
        generation_certain=True,
        datasets=datasets,
        under_replicated=(),
        warnings=(),
        puts_running=0,
    )


def test_what_a_sled_is_told_of_its_names_reaches_its_servers() -> None:
    servers = {
        "agent": {"listen": "sled-7:1", "advertise_url": "http://bücher.example:12345"},
        "depot": {"listen": "0.0.0.0:2", "advertise_url": "http://[fd00::7]:12348"},
    }
    unnamed, named = settings(**servers), settings(**servers, allowed_hosts=["B.example"])
    for host in ("sled-7", "xn--bcher-kva.example:12345", "10.0.0.7", "localhost"):
        assert own_names(unnamed).include(host)
        assert own_names(named).include(host)
    assert own_names(unnamed).serve_programs_at("b.example")
    assert own_names(named).serve_programs_at("b.example:9")
    for host in ("c.example", "example"):
        assert own_names(unnamed).serve_programs_at(host)
        assert not own_names(named).serve_programs_at(host)


def test_every_storage_key_reaches_the_store() -> None:
    made = settings(
        sled_id="sled-1",
        storage={
            "quota": 1,
            "max_artifact_size": 2,
            "require_mountpoint": True,
            "min_copies": 2,
            "max_concurrent_puts": 5,
            "delete_grace": "6s",
            "reconcile_interval": "7s",
            "device_timeout": "8s",
            "mirror_lag": "3s",
            "group_commit": False,
            "device_workers": "thread",
            "verify_reads": "always",
            "direct_io": "never",
            "block_digests": "separate",
            "quarantine": 10,
        },
        copy={"max_concurrent": 9},
        scrub={"interval": "10s", "max_bytes_per_s": 11},
        heal={"max_bytes_per_s": 12},
        depot={"relay": False},
        debug={"checksum_state": True},
    )
    assert store_options(made) == StoreOptions(
        quota_bytes=1,
        max_artifact_size_bytes=2,
        require_mountpoint=True,
        min_copies=2,
        max_concurrent_puts=5,
        max_concurrent_copies=9,
        delete_grace_s=6.0,
        reconcile_interval_s=7.0,
        device_timeout_s=8.0,
        mirror_lag_s=3.0,
        group_commit=False,
        device_workers=DeviceWorkers.THREAD,
        verify_reads=VerifyReads.ALWAYS,
        direct_io=False,
        chained_digests=False,
        quarantine_bytes=10,
        scrub_interval_s=10.0,
        scrub_max_bytes_per_s=11,
        heal_max_bytes_per_s=12,
        sled_id="sled-1",
        checksum_state=True,
        relay=False,
    )


def test_every_http_key_reaches_the_servers() -> None:
    made = settings(
        http={
            "header_timeout_s": 1,
            "idle_timeout_s": 2,
            "min_body_bytes_per_s": 3,
            "max_connections": 5,
            "max_connections_per_client": 4,
            "json_memory": "17MiB",
        }
    )
    assert http_limits(made.http) == HttpLimits(
        header_timeout_s=1,
        idle_timeout_s=2,
        min_body_bytes_per_s=3,
        max_connections=5,
        max_connections_per_client=4,
        json_memory_bytes=17 * 2**20,
    )


def test_every_copy_key_reaches_the_copies() -> None:
    made = settings(
        storage={"max_artifact_size": "1KiB"},
        copy={
            "max_concurrent": 1,
            "max_sources": 7,
            "connect_timeout_s": 2,
            "idle_timeout_s": 3,
            "min_bytes_per_s": 4,
            "max_bytes_per_s": 5,
            "max_bytes_per_s_per_source": 6,
        },
    )
    assert copy_options(made) == CopyOptions(
        max_concurrent=1, max_sources=7, max_bytes_per_s=5, max_bytes_per_s_per_source=6
    )
    assert peer_limits(made) == PeerLimits(
        connect_timeout_s=2, idle_timeout_s=3, min_bytes_per_s=4, max_artifact_size_bytes=1024
    )


def test_the_defaults_of_the_configuration_are_those_of_the_libraries() -> None:
    # But for one: a library does not start processes unless it is asked to.
    library = replace(StoreOptions(), device_workers=DeviceWorkers.PROCESS)
    assert store_options(settings()) == library
    assert http_limits(settings().http) == HttpLimits()
    assert copy_options(settings()) == CopyOptions()


def test_large_bodies_leave_as_the_settings_say() -> None:
    assert body_pump(settings()).way is Way.AUTO
    for way in Way:
        assert body_pump(settings(depot={"send": str(way)})).way is way


def test_the_depot_compresses_as_the_settings_say() -> None:
    async def read(start: int, length_bytes: int) -> bytes:
        return bytes(length_bytes)

    assert compressor(settings(depot={"zstd_level": 0})) is None
    made = compressor(settings(depot={"zstd_level": 12, "zstd_min_size": 1000}))
    assert made is not None
    for size_bytes, pays in ((999, False), (1000, True)):
        assert asyncio.run(made.pays(ArtifactHash.of(b""), size_bytes, read)) is pays
    # Levels that take much memory have one place.
    with made.place() as first, made.place() as second:
        assert (first, second) == (True, False)
    made.close()


def test_small_artifacts_are_kept_as_the_settings_say() -> None:
    content = b"a small artifact"
    for depot, kept in (({}, True), ({"hot_cache": "0"}, False), ({"hot_cache": 1000}, False)):
        hot = hot_artifacts(settings(depot=depot))
        assert hot is not None
        hot.keep(ArtifactHash.of(content), b"", content)
        assert bool(hot.used_bytes) is kept
    assert hot_artifacts(settings(depot={"fast_path": False})) is None


def test_events_from_before_the_log_is_open_are_kept_in_order() -> None:
    relay, heard = EventRelay(), list[str]()

    def listen(kind: str, _fields: Mapping[str, object]) -> None:
        heard.append(kind)

    relay("first", {})
    relay("second", {})
    relay.connect(listen)
    relay("third", {})

    assert heard == ["first", "second", "third"]


async def test_s5_an_agent_shows_the_errors_that_nothing_in_it_waits_for(
    tmp_path: Path, blocking_calls_fail: BlockBuster
) -> None:
    blocking_calls_fail.deactivate()  # before it serves anyone, an agent may look up its version
    made = settings(datasets=[{"path": str(tmp_path / "a")}, {"path": str(tmp_path / "b")}])
    loop = asyncio.get_running_loop()
    async with opened(made, tmp_path / "state") as agent:
        loop.call_soon({}.popitem)
        await asyncio.sleep(0)
        (duty,) = agent.duties.snapshot()
        assert (duty.name, duty.failing) == (UNATTENDED, True)
    assert loop.get_exception_handler() is None


def test_the_status_line_names_what_is_wrong_first() -> None:
    bad = dataset("/m2/b", "missing", "no marker")
    assert status_line(store_status(7, dataset("/m2/a", "healthy"), bad)) == (
        "/m2/b is missing: no marker; 1 of 2 datasets healthy; generation 7"
    )
    assert status_line(store_status(None, dataset("/m2/a", "healthy"))) == (
        "1 of 1 datasets healthy; no config"
    )


def test_a_second_agent_is_told_the_datasets_and_the_process_that_holds_them(
    tmp_path: Path,
) -> None:
    (tmp_path / ".sled-depot").mkdir()
    (tmp_path / ".sled-depot" / "lock").write_text("4711\n")
    busy = DatasetBusy("the state directory is in use")

    known = why_not(busy, settings(datasets=[{"path": str(tmp_path)}]), tmp_path)
    unknown = why_not(busy, settings(), tmp_path)

    assert known == f"another agent (pid 4711) is running on {tmp_path}: {busy}"
    assert unknown == f"another agent is running on /m2/a and /m2/b: {busy}"


def test_a_state_directory_that_cannot_be_used_is_named() -> None:
    error = OSError(errno.EACCES, "Permission denied", "/s/x")
    assert why_not(error, settings(), Path("/s")) == (
        "the state directory /s cannot be used: Permission denied"
    )


def test_any_other_refusal_speaks_for_itself() -> None:
    assert why_not(FormatTooNew("format 9"), settings(), Path("/s")) == "format 9"


class TestReadyFile:
    READY = Ready("http://127.0.0.1:1", "http://127.0.0.1:2", 3)

    def test_it_is_json_that_everyone_may_read(self, tmp_path: Path) -> None:
        path = tmp_path / "ready.json"
        self.READY.write(path)
        assert json.loads(path.read_text()) == {
            "agent_url": "http://127.0.0.1:1",
            "depot_url": "http://127.0.0.1:2",
            "pid": 3,
        }
        assert stat.S_IMODE(path.stat().st_mode) == 0o644

    def test_it_replaces_an_old_one_and_leaves_nothing_else(self, tmp_path: Path) -> None:
        path = tmp_path / "ready.json"
        path.write_text("x" * 10_000)
        self.READY.write(path)
        self.READY.write(path)
        assert list(tmp_path.iterdir()) == [path]

    def test_a_failed_write_leaves_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "ready.json").mkdir()
        with pytest.raises(OSError, match="directory"):
            self.READY.write(tmp_path / "ready.json")
        assert [path.name for path in tmp_path.iterdir()] == ["ready.json"]
