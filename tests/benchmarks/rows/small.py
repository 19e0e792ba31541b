"""Many small artifacts: GET of 4 KiB over and over, and PUT of thousands of 1 KiB."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Final

from tests.benchmarks import clients, load, peers
from tests.benchmarks.body import Body
from tests.benchmarks.measure import KIB, REQUESTS_PER_S, Row, Sample, Target, versus
from tests.benchmarks.peers import Server
from tests.benchmarks.processes import cpu_of
from tests.benchmarks.programs import missing, not_found
from tests.benchmarks.raw import settle, write_small_twice
from tests.benchmarks.rig import Rig

SMALL_BYTES: Final = 4 * KIB
PUT_BYTES: Final = KIB
PUT_CONNECTIONS: Final = 64
NAIVELY: Final = "naively: one fsync for each file"
FILES: Final = Target(0.7)
CACHED: Final = Target(0.9)


def get(connections: int, *, cached: bool) -> Callable[[Rig], list[Row]]:
    """The measurement with so many connections, and the bytes from the file or from memory."""
    return partial(_get, connections=connections, cached=cached)


def _get(rig: Rig, *, connections: int, cached: bool) -> list[Row]:
    node = rig.node("small-cached") if cached else rig.node("small", {"depot.hot_cache": "0"})
    body = Body(rig.directory / f"small-{connections}", SMALL_BYTES)
    node.want(body.sha256)
    node.put(body)
    lacking = missing("wrk", "nginx")
    ours, theirs = None, None
    with ExitStack() as stack:
        if "wrk" not in lacking:
            ours = partial(_ask, rig, node.artifact_url(body.sha256), node.pid, connections)
        if not lacking:
            server = stack.enter_context(peers.nginx(rig.home(), node.agent.datasets[0]))
            rig.memory.watch("nginx", server.pid)
            theirs = partial(_ask, rig, f"{server.url}/{body.sha256}", server.pid, connections)
        runs = rig.pairs(ours, theirs)
    row = versus(
        f"small-get-{connections}{'-cached' if cached else ''}",
        f"GET 4 KiB, {connections} connections, {'cached' if cached else 'from the file'}",
        runs,
        "nginx, sendfile, 1 worker",
        unit=REQUESTS_PER_S,
        target=CACHED if cached else FILES,
        note=not_found(lacking),
    )
    return [row]


def _ask(rig: Rig, url: str, pid: int, connections: int) -> Sample:
    with cpu_of(pid) as cpu:
        found = clients.wrk(url, connections, rig.scale.load_s)
    return Sample(found.amount, found.seconds, cpu.seconds)


def put(rig: Rig) -> list[Row]:
    """PUT of artifacts of 1 KiB that are new each time, beside a naive store that is as durable.

    Each run has a server of its own: to delete so many takes longer than to start another one.
    """
    number = rig.scale.small_puts
    # By default, half of these connections are told to come back.
    settings = {"storage.max_concurrent_puts": str(PUT_CONNECTIONS)}

    def ours() -> Sample:
        bodies = _bodies(number)
        with rig.fresh_node(settings, keep=True) as node:
            node.send_config(bodies)
            requests = {node.put_url(each): body for each, body in bodies.items()}
            found = _put_all(requests, node.pid)
            _check_stored(node.agent.datasets, bodies)
        return found

    runs = rig.pairs(ours, partial(_put_to, rig, "naive", peers.naive))
    row = versus(
        "small-put",
        f"PUT {number:,} x 1 KiB, {PUT_CONNECTIONS} connections, 2 mirrors",
        runs,
        NAIVELY,
        unit=REQUESTS_PER_S,
        target=Target(5.0),
    )
    return [row]


def files_limit(rig: Rig) -> list[Row]:
    """The same files written by programs that do nothing else, beside the same naive store."""
    number = rig.scale.small_puts

    def written() -> Sample:
        home = rig.home()
        targets = [home / "a", home / "b"]
        for target in targets:
            target.mkdir(parents=True)
        settle()
        return write_small_twice(number, PUT_BYTES, PUT_CONNECTIONS, targets)

    work = f"limit: {number:,} x 1 KiB written by a process for each of 2 directories, 64 at a time"
    runs = rig.pairs(written, partial(_put_to, rig, "naive", peers.naive))
    return [versus("limit-small-put-files", work, runs, NAIVELY, unit=REQUESTS_PER_S)]


def server_limit(rig: Rig) -> list[Row]:
    """The same requests to a server that does nothing else with them, beside the naive store."""
    number = rig.scale.small_puts
    work = f"limit: PUT {number:,} x 1 KiB, hashed and written by a server with no other duty"
    ours = partial(_put_to, rig, "bare", peers.bare_put)
    runs = rig.pairs(ours, partial(_put_to, rig, "naive", peers.naive))
    return [versus("limit-small-put-server", work, runs, NAIVELY, unit=REQUESTS_PER_S)]


def _put_to(
    rig: Rig, name: str, serving: Callable[[Path], AbstractContextManager[Server]]
) -> Sample:
    bodies, home = _bodies(rig.scale.small_puts), rig.home()
    with serving(home) as server:
        rig.memory.watch(name, server.pid)
        requests = {f"{server.url}/{each}": body for each, body in bodies.items()}
        found = _put_all(requests, server.pid)
        _check_stored([home / "a", home / "b"], bodies)
    return found


def _put_all(bodies: Mapping[str, bytes], pid: int) -> Sample:
    requests = [load.put_request(url, body) for url, body in bodies.items()]
    settle()
    with cpu_of(pid) as cpu:
        seconds = load.run(next(iter(bodies)), requests, PUT_CONNECTIONS)
    return Sample(len(requests), seconds, cpu.seconds)


def _bodies(number: int) -> dict[str, bytes]:
    bodies = (os.urandom(PUT_BYTES) for _ in range(number))
    return {hashlib.sha256(body).hexdigest(): body for body in bodies}


def _check_stored(directories: Sequence[Path], bodies: dict[str, bytes]) -> None:
    for directory in directories:
        if absent := bodies.keys() - set(os.listdir(directory)):
            raise RuntimeError(f"{directory} lacks {len(absent)} of {len(bodies)} artifacts")
