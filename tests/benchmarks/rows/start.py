"""An agent with very many artifacts: how soon it is ready, lists them, takes their config."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.benchmarks.measure import (
    KIB,
    KIBIBYTES,
    MILLISECONDS,
    SECONDS,
    Row,
    Unit,
    alone,
    at_most,
)
from tests.benchmarks.node import Node
from tests.benchmarks.ping import pinging
from tests.benchmarks.processes import family, memory_of
from tests.benchmarks.raw import settle
from tests.benchmarks.rig import Rig

ARTIFACT_MODE: Final = 0o444


def start(rig: Rig) -> list[Row]:
    """Every figure of an agent that is started with that many."""
    number = rig.scale.artifacts
    with rig.fresh_node() as node:
        empty_bytes = _memory(node)
        hashes = [_artifact(index)[0] for index in range(number)]
        first_s = node.send_config(hashes)
        node.agent.stop()
        for dataset in node.agent.datasets:
            _fill(dataset, number)
        settle()
        rounds = [_round(rig, node, hashes, empty_bytes) for _ in range(rig.scale.rounds)]
    columns = list(zip(*rounds, strict=True))
    ready, listing, config, lag, memory = columns
    many = f"{number:,} artifacts"
    return [
        _row("start-ready", f"{many}: start until ready", ready, SECONDS, 3),
        _row("start-list", f"{many}: GET /artifacts", listing, SECONDS, 0.3),
        _row("start-config", f"{many}: PUT of their config", (first_s, *config), SECONDS, 1),
        _row("start-lag", f"{many}: longest GET /health/live beside both", lag, MILLISECONDS, 50),
        _row("start-memory", f"{many}: memory for each", memory, KIBIBYTES, 1),
    ]


def _row(key: str, work: str, values: Sequence[float], unit: Unit, bound: float) -> Row:
    return alone(key, work, values, unit, target=at_most(bound, unit))


def _round(rig: Rig, node: Node, hashes: list[str], empty_bytes: int) -> tuple[float, ...]:
    began_s = time.perf_counter()
    node.agent.start()
    ready_s = time.perf_counter() - began_s
    rig.watch(node)
    memory_kib = (_memory(node) - empty_bytes) / len(hashes) / KIB
    with pinging(node.agent.agent_url) as longest:
        began_s = time.perf_counter()
        content = node.content("/artifacts")
        listing_s = time.perf_counter() - began_s
        if len(listed := json.loads(content)["list"]) != len(hashes):
            raise RuntimeError(f"expected {len(hashes)} artifacts listed, found {len(listed)}")
        config_s = node.send_config(hashes)
    node.agent.stop()
    return ready_s, listing_s, config_s, longest.wait_s * 1000, memory_kib


def _artifact(index: int) -> tuple[str, bytes]:
    content = index.to_bytes(8, "big")
    return hashlib.sha256(content).hexdigest(), content


def _fill(dataset: Path, number: int) -> None:
    """Lay artifacts into the dataset of an agent that is stopped, as if they had been put."""
    for index in range(number):
        name, content = _artifact(index)
        fd = os.open(dataset / name, os.O_WRONLY | os.O_CREAT, ARTIFACT_MODE)
        os.write(fd, content)
        os.close(fd)


def _memory(node: Node) -> int:
    return memory_of(family(node.pid)).all_bytes
