"""A node of two datasets for every test of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from depot.device.host import DeviceWorkers
from tests.store.builders import Node

BOTH_WAYS: Final = frozenset(
    {
        "test_arriving",
        "test_config",
        "test_datasets",
        "test_put",
        "test_quota",
        "test_reconcile",
        "test_remirror",
        "test_sizes_that_differ",
        "test_scrub_digests",
    }
)
"""Modules whose rules must hold whatever works on a dataset, as far as no fault is planted."""
ALSO_ALONE: Final = frozenset({"test_doubt", "test_ingest", "test_put", "test_quota"})
"""Modules whose rules must hold also when no put is made durable together with others."""

BOTH_DIGESTS: Final = frozenset(
    {"test_arriving", "test_heal", "test_scrub_digests", "test_verified_reads"}
)
"""Modules whose rules must hold whatever kind of block digests a put takes."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what must hold both ways both ways."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if "node" in metafunc.fixturenames:
        # Those would begin with two processes, and end where the first fault is to be planted.
        in_threads = metafunc.definition.get_closest_marker("in_threads") is not None
        both = module in BOTH_WAYS and not in_threads
        workers = list(DeviceWorkers) if both else [DeviceWorkers.THREAD]
        ways = {str(worker): (worker, True) for worker in workers}
        if module in ALSO_ALONE:
            ways["alone"] = (DeviceWorkers.THREAD, False)
        if len(ways) > 1:
            metafunc.parametrize("node", ways.values(), ids=ways, indirect=True)
    if "chained_digests" in metafunc.fixturenames and module in BOTH_DIGESTS:
        kinds = {"chained": True, "separate": False}
        metafunc.parametrize("chained_digests", kinds.values(), ids=kinds.keys(), indirect=True)


@pytest.fixture
def chained_digests(request: pytest.FixtureRequest) -> bool:
    """Of which kind the block digests are that a put takes."""
    return bool(getattr(request, "param", True))


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest, chained_digests: bool) -> Node:
    """A node whose datasets are worked on by threads, or by what the test's module asks for."""
    made = Node.make(tmp_path)
    made.chained_digests = chained_digests
    made.workers, made.group_commit = getattr(request, "param", (DeviceWorkers.THREAD, True))
    return made
