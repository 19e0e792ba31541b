"""`verify_reads = "auto"` on a filesystem that checks its data, but not that of every file.

A btrfs on a loop device, with directories that are told to make files without copy-on-write, and
so without checksums (`chattr +C`). Such a file is written to in place, which is what rot is to it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from depot.device.host import DeviceWorkers
from depot.http.depot_api import depot_app
from depot.reading.reader import VerifyReads
from tests.http.raw import RawClient
from tests.http.servers import serve
from tests.loop_mount import loop_disk
from tests.store.arrivals import found, putting, until
from tests.store.builders import (
    MIB,
    A,
    B,
    GatedSource,
    Node,
    config,
    hash_of,
    off_loop,
    put,
)
from tests.store.damage import flip, hurt

LARGE = bytes(range(256)) * (3 << 12) + b"tail"
SMALL = b"small, and read at once where its device is"


@pytest.fixture(params=list(DeviceWorkers))
def btrfs(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Node]:
    with loop_disk(tmp_path / "btrfs", size_mib=160, kind="btrfs") as disk:
        made = Node.make(disk.mount_point)
        made.workers = request.param
        yield made


def without_checksums(node: Node, index: int) -> None:
    staging = node.paths[index] / ".sled-depot/staging"
    subprocess.run(["chattr", "+C", staging], check=True)


@pytest.mark.parametrize("content", [LARGE, SMALL], ids=["large", "small"])
async def test_b2_auto_checks_a_file_of_which_the_filesystem_keeps_no_checksums(
    btrfs: Node, content: bytes
) -> None:
    await off_loop(without_checksums, btrfs, A)
    async with btrfs.open(verify_reads=VerifyReads.AUTO) as store:
        await store.put_config(config(1, content))
        await put(store, content)
        with await store.open_artifact(hash_of(content)) as opened:
            assert (opened.dataset, opened.read is not None) == (A, True)
        with await store.open_artifact(hash_of(content), exclude={A}) as opened:
            assert (opened.dataset, opened.read is not None) == (B, False)


@pytest.mark.parametrize("content", [LARGE, SMALL], ids=["large", "small"])
async def test_b2_rot_in_such_a_file_is_not_served(btrfs: Node, content: bytes) -> None:
    await off_loop(without_checksums, btrfs, A)
    async with btrfs.open(verify_reads=VerifyReads.AUTO) as store:
        await store.put_config(config(1, content))
        await put(store, content)
        await hurt(btrfs, A, content, flip(len(content) // 2))
        async with serve(depot_app(store)) as depot, RawClient.connect(depot.url) as client:
            await client.send(f"GET /artifact/sha256/{hash_of(content)} HTTP/1.1")
            assert (await client.answer()).body == content


async def test_b2_auto_checks_such_a_file_while_it_arrives(btrfs: Node) -> None:
    await off_loop(without_checksums, btrfs, A)
    async with btrfs.open(verify_reads=VerifyReads.AUTO) as store:
        await store.put_config(config(1, LARGE))
        source = GatedSource(LARGE, before_bytes=2 * MIB)
        async with putting(store, LARGE, source) as running:
            arrival = found(store, LARGE)
            await until(arrival, lambda: arrival.limit(A, len(LARGE)) == 2 * MIB)
            for index, checked in ((A, True), (B, False)):
                with await store.arrivals.open(arrival, index) as opened:
                    store.arrivals.check_reads(arrival, opened)
                    assert (opened.read is not None) is checked
            source.open_gate()
            await running
