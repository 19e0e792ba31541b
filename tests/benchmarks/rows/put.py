"""PUT of one large artifact that is new each time: durable, verified, on two mirrors."""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Final

from tests.benchmarks import clients, peers, raw
from tests.benchmarks.body import Body
from tests.benchmarks.measure import (
    CPU_PER_GIB,
    Contender,
    Row,
    Sample,
    Target,
    alone,
    at_most,
    versus,
)
from tests.benchmarks.processes import cpu_of
from tests.benchmarks.programs import missing, not_found
from tests.benchmarks.rig import Rig

NO_DIRECT: Final = "this filesystem has no direct I/O"


def work(rig: Rig) -> str:
    return f"PUT {rig.size_text}, 2 mirrors"


def ours(rig: Rig) -> Contender:
    """The agent's side, warmed up."""
    node, body = rig.node("source"), rig.body

    def run() -> Sample:
        node.want(body.change())
        return node.put(body)

    run()
    return run


def direct(rig: Rig) -> list[Row]:
    """Beside the disk's limit; the processor time of the same runs is a row of its own."""
    run, targets = ours(rig), rig.beside(rig.node("source"))
    writes = partial(raw.write_twice_directly, rig.scale.size_bytes, targets)
    possible = _possible(writes)
    runs = rig.pairs(run, writes if possible else None)
    note = "" if possible else NO_DIRECT
    costs = [each.cpu_s * 1024 / each.amount for each in runs[0] if each.cpu_s is not None]
    cost = at_most(1.1, CPU_PER_GIB)
    return [
        versus(
            "put-direct", work(rig), runs, "2 raw O_DIRECT writes", target=Target(0.9), note=note
        ),
        alone("put-cpu", f"{work(rig)}: processor time", costs, CPU_PER_GIB, target=cost),
    ]


def limit(rig: Rig) -> list[Row]:
    """What a PUT cannot do without, side by side, as if no part had to wait for another."""
    targets = [rig.directory / f"limit-{index}" for index in range(2)]
    writes = partial(raw.write_twice_directly, rig.scale.size_bytes, targets)
    possible = _possible(writes)
    beside = partial(raw.write_twice_beside_the_rest, rig.body.path, targets)
    runs = rig.pairs(beside, writes) if possible else ([], [])
    return [
        versus(
            "limit-put",
            f"limit: 2 raw O_DIRECT writes of {rig.size_text} beside 1 hash and 1 receiver of it,"
            " none of which waits for another",
            runs,
            "the same writes alone",
            note="" if possible else NO_DIRECT,
        )
    ]


def script(rig: Rig) -> list[Row]:
    """Beside a straightforward script of the same work."""
    run, targets = ours(rig), rig.beside(rig.node("source"))
    runs = rig.pairs(run, lambda: raw.hash_then_write_twice(rig.body.path, targets))
    return [versus("put-script", work(rig), runs, "SHA-256 pass, then 2 writes + fsync")]


def nginx(rig: Rig) -> list[Row]:
    return [
        _beside(
            rig,
            "nginx",
            start=lambda home: peers.nginx(home, home / "files", peers.DAV),
            send=_to_nginx,
            against="nginx WebDAV PUT, then sync -f (1 copy, no hash)",
            target=Target(1.1),
        )
    ]


def registry(rig: Rig) -> list[Row]:
    return [
        _beside(
            rig,
            "docker-registry",
            start=peers.registry,
            send=_to_registry,
            against="docker-registry, blob upload (1 copy)",
            target=Target(3.0),
        )
    ]


def rclone(rig: Rig) -> list[Row]:
    return [
        _beside(
            rig,
            "rclone",
            start=peers.rclone,
            send=_to_rclone,
            against="rclone serve webdav, no sync (1 copy, no hash)",
            target=Target(3.0),
        )
    ]


Sends = Callable[[Body, peers.Server, Path], float]
"""Sends a body to a server that stores below a directory, and forgets it again: the seconds."""


def _beside(
    rig: Rig,
    program: str,
    *,
    start: Callable[[Path], AbstractContextManager[peers.Server]],
    send: Sends,
    against: str,
    target: Target,
) -> Row:
    key, run = f"put-{program.removeprefix('docker-')}", ours(rig)
    if lacking := missing(program):
        runs = rig.pairs(run, None)
        return versus(key, work(rig), runs, against, target=target, note=not_found(lacking))
    home = rig.home()
    with start(home) as server:
        rig.memory.watch(program, server.pid)

        def theirs() -> Sample:
            rig.body.change()
            with cpu_of(server.pid) as cpu:
                seconds = send(rig.body, server, home)
            raw.settle()
            return Sample.of_bytes(rig.body.size_bytes, seconds, cpu.seconds)

        theirs()
        runs = rig.pairs(run, theirs)
    return versus(key, work(rig), runs, against, target=target)


def _to_nginx(body: Body, server: peers.Server, home: Path) -> float:
    answer = clients.send("PUT", f"{server.url}/{body.sha256}", body.path, 201)
    file = home / "files" / body.sha256
    seconds = answer.seconds + clients.sync_filesystem(file)
    _forget(file, body)
    return seconds


def _to_rclone(body: Body, server: peers.Server, home: Path) -> float:
    answer = clients.send("PUT", f"{server.url}/{body.sha256}", body.path, 201)
    _forget(home / "files" / body.sha256, body)
    return answer.seconds


def _to_registry(body: Body, server: peers.Server, home: Path) -> float:
    begun = clients.send("POST", f"{server.url}/v2/bench/blobs/uploads/", None, 202)
    location = begun.location.removeprefix(server.url)
    url = f"{server.url}{location}&digest=sha256:{body.sha256}"
    answer = clients.send("PUT", url, body.path, 201)
    storage = home / "storage" / "docker" / "registry" / "v2" / "blobs" / "sha256"
    _forget(storage / body.sha256[:2] / body.sha256 / "data", body)
    return begun.seconds + answer.seconds


def _forget(file: Path, body: Body) -> None:
    if (found := file.stat().st_size) != body.size_bytes:
        raise RuntimeError(f"{file}: expected {body.size_bytes} bytes, found {found}")
    file.unlink()


def _possible(writes: Contender) -> bool:
    try:
        writes()
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True
