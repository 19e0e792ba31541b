"""Many connections at once: what they cost a normal GET, and what they and PUTs cost in memory."""

from __future__ import annotations

import socket
import threading
from contextlib import ExitStack
from typing import Final
from urllib.parse import urlsplit

from tests.benchmarks import clients
from tests.benchmarks.body import Body
from tests.benchmarks.crowd import Crowd, settled
from tests.benchmarks.load import put_head
from tests.benchmarks.measure import (
    KIB,
    KIBIBYTES,
    MEBIBYTES,
    MIB,
    Row,
    Sample,
    Target,
    alone,
    at_most,
    versus,
)
from tests.benchmarks.node import Node
from tests.benchmarks.processes import cpu_of, family, memory_of
from tests.benchmarks.programs import missing, not_found
from tests.benchmarks.rig import Rig

SMALL_BYTES: Final = 4 * KIB
# The first ones get the most blocks each, so these are the dearest.
PUTS: Final = 4
WARM_UP: Final = 10


def crowd(rig: Rig) -> list[Row]:
    """A normal GET beside many connections, and the same alone."""
    node, small = _stocked(rig, rig.node("crowded"))
    large_url, small_url = node.artifact_url(rig.body.sha256), node.artifact_url(small.sha256)
    lacking = missing("curl")

    def fetch() -> Sample:
        with cpu_of(node.pid) as cpu:
            seconds = clients.fetch(large_url, rig.body.size_bytes, 1)
        return Sample.of_bytes(rig.body.size_bytes, seconds, cpu.seconds)

    def beside() -> Sample:
        with Crowd(small_url, rig.scale.idle, large_url, rig.scale.slow):
            settled()
            found = fetch()
        settled()
        return found

    runs = rig.pairs(None if lacking else beside, None if lacking else fetch)
    row = versus(
        "crowd",
        f"GET {rig.size_text} beside {rig.scale.idle} idle and {rig.scale.slow} slow connections",
        runs,
        "the same alone",
        target=Target(0.8),
        note=not_found(lacking),
    )
    return [row]


def idle_memory(rig: Rig) -> list[Row]:
    """What each idle connection adds, in agents that had none before."""
    values = []
    for _ in range(rig.scale.rounds):
        with rig.fresh_node() as node:
            small = _small(rig, node)
            url = node.artifact_url(small.sha256)
            with Crowd(url, WARM_UP):
                settled()
            before_bytes = _memory(node)
            with Crowd(url, rig.scale.idle):
                settled()
                values.append((_memory(node) - before_bytes) / rig.scale.idle / KIB)
    work = "memory for each idle connection"
    target = at_most(12, KIBIBYTES)
    return [alone("memory-idle", work, values, KIBIBYTES, target=target)]


def put_memory(rig: Rig) -> list[Row]:
    """What each of some PUTs adds that stand still with a part of their body sent."""
    values = []
    part_bytes = max(rig.scale.size_bytes // PUTS, MIB)
    for _ in range(rig.scale.rounds):
        with rig.fresh_node() as node, ExitStack() as stack:
            small = _small(rig, node)
            node.want(small.sha256, *(f"{number:064x}" for number in range(PUTS)))
            before_bytes = _memory(node)
            rig.memory.phase()
            rig.watch(node)
            announced = part_bytes + MIB
            lines = [_begin_put(node, f"{number:064x}", announced) for number in range(PUTS)]
            for line in lines:
                stack.enter_context(line)
            senders = [
                threading.Thread(target=_send_part, args=(line, part_bytes)) for line in lines
            ]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()
            settled()
            peak, _ = rig.peaks()
            assert peak is not None
            values.append((peak.all_bytes - before_bytes) / PUTS / MIB)
    work, target = f"memory for each of {PUTS} running PUTs", at_most(10, MEBIBYTES)
    return [alone("memory-put", work, values, MEBIBYTES, target=target)]


def _stocked(rig: Rig, node: Node) -> tuple[Node, Body]:
    small = Body(rig.directory / "small-crowd", SMALL_BYTES)
    node.want(rig.body.sha256, small.sha256)
    for body in (rig.body, small):
        node.put(body)
    return node, small


def _small(rig: Rig, node: Node) -> Body:
    small = Body(rig.directory / "small-memory", SMALL_BYTES)
    node.want(small.sha256)
    node.put(small)
    return small


def _begin_put(node: Node, sha256: str, size_bytes: int) -> socket.socket:
    """A connection that has announced a body."""
    parts = urlsplit(node.agent.agent_url)
    connection = socket.create_connection((parts.hostname, parts.port), clients.PATIENCE_S)
    connection.sendall(put_head(node.put_url(sha256), size_bytes))
    return connection


def _send_part(connection: socket.socket, part_bytes: int) -> None:
    block = bytes(MIB)
    for _ in range(part_bytes // MIB):
        connection.sendall(block)


def _memory(node: Node) -> int:
    return memory_of(family(node.pid)).all_bytes
