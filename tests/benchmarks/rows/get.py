"""GET of one large artifact: beside the servers that do nothing else, and beside a hash."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import Final, Protocol

from tests.benchmarks import clients, peers, raw
from tests.benchmarks.measure import Contender, Row, Sample, Target, versus
from tests.benchmarks.node import Node
from tests.benchmarks.processes import cpu_of
from tests.benchmarks.programs import missing, not_found
from tests.benchmarks.rig import Rig

NGINX = "nginx, sendfile, 1 worker"
BARE: Final = {
    "mapped": "of a file that stays mapped whole",
    "spliced": "references by splice",
}


class StartsPeer(Protocol):
    """Starts a server of the files in a directory."""

    def __call__(self, home: Path, root: Path) -> AbstractContextManager[peers.Server]: ...


def one(rig: Rig) -> list[Row]:
    return [_beside(rig, "get-1", 1, "nginx", peers.nginx, NGINX, Target(1.3))]


def eight(rig: Rig) -> list[Row]:
    return [_beside(rig, "get-8", 8, "nginx", peers.nginx, NGINX, Target(1.4))]


def caddy(rig: Rig) -> list[Row]:
    return [_beside(rig, "get-1-caddy", 1, "caddy", peers.caddy, "Caddy file_server", None)]


def _beside(
    rig: Rig,
    key: str,
    connections: int,
    program: str,
    start: StartsPeer,
    against: str,
    target: Target | None,
) -> Row:
    """The agent, which does not verify here, and another server with the very same file."""
    node = stocked(rig, "unchecked", "never")
    lacking = missing("curl", program)
    ours, theirs = None, None
    with ExitStack() as stack:
        if "curl" not in lacking:
            url = node.artifact_url(rig.body.sha256)
            ours = partial(_fetch, rig, url, node.pid, connections)
            ours()
        if not lacking:
            server = stack.enter_context(start(rig.home(), node.agent.datasets[0]))
            rig.memory.watch(program, server.pid)
            url = f"{server.url}/{rig.body.sha256}"
            theirs = partial(_fetch, rig, url, server.pid, connections)
            theirs()
        runs = rig.pairs(ours, theirs)
    work = f"GET {rig.size_text}, {_count(connections)}, not verified"
    return versus(key, work, runs, against, target=target, note=not_found(lacking))


def bare(connections: int, how: str) -> Callable[[Rig], list[Row]]:
    """The limit: how fast the same file leaves a program that does nothing else."""
    return partial(_bare, connections=connections, how=how)


def _bare(rig: Rig, *, connections: int, how: str) -> list[Row]:
    lacking = missing("curl", "nginx")
    ours, theirs = None, None
    with ExitStack() as stack:
        if not lacking:
            bare = stack.enter_context(peers.bare(rig.home(), rig.body.path, how))
            nginx = stack.enter_context(peers.nginx(rig.home(), rig.body.path.parent))
            url = f"{nginx.url}/{rig.body.path.name}"
            ours = partial(_fetch, rig, bare.url, bare.pid, connections)
            theirs = partial(_fetch, rig, url, nginx.pid, connections)
            for warm_up in (ours, theirs):
                warm_up()
        runs = rig.pairs(ours, theirs)
    work = f"limit: GET {rig.size_text}, {_count(connections)}, {BARE[how]}"
    return [versus(f"limit-get-{how}-{connections}", work, runs, NGINX, note=not_found(lacking))]


def _count(connections: int) -> str:
    return f"{connections} connection{'' if connections == 1 else 's'}"


def verified(rig: Rig) -> list[Row]:
    node = stocked(rig, "checked", "always")
    file = node.agent.datasets[0] / rig.body.sha256
    lacking = missing("curl")
    fetch = partial(_fetch, rig, node.artifact_url(rig.body.sha256), node.pid, 1)
    runs = rig.pairs(
        None if lacking else partial(_cold, node, rig.body.sha256, fetch),
        partial(_cold, node, rig.body.sha256, lambda: raw.sha256_pass(file)),
    )
    row = versus(
        "get-verified",
        f"GET {rig.size_text}, every block verified, from the disk",
        runs,
        "one SHA-256 pass, from the disk",
        target=Target(0.8),
        note=not_found(lacking),
    )
    return [row]


def _cold(node: Node, sha256: str, run: Contender) -> Sample:
    for dataset in node.agent.datasets:
        raw.forget(dataset / sha256)
    return run()


def _fetch(rig: Rig, url: str, pid: int, connections: int) -> Sample:
    with cpu_of(pid) as cpu:
        seconds = clients.fetch(url, rig.body.size_bytes, connections)
    return Sample.of_bytes(rig.body.size_bytes * connections, seconds, cpu.seconds)


def stocked(rig: Rig, name: str, verify_reads: str = "auto") -> Node:
    """An agent, with the body as it is now."""
    node = rig.node(name, {"storage.verify_reads": verify_reads})
    node.want(rig.body.sha256)
    node.put(rig.body)
    return node
