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
    }
)
"""Modules whose rules must hold whatever works on a dataset, as far as no fault is planted."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what must hold both ways both ways."""
    module = metafunc.module.__name__.rpartition(".")[2]
    if "node" in metafunc.fixturenames and module in BOTH_WAYS:
        metafunc.parametrize("node", list(DeviceWorkers), ids=str, indirect=True)


@pytest.fixture
def node(tmp_path: Path, request: pytest.FixtureRequest) -> Node:
    """A node whose datasets are worked on by threads, or by what the test's module asks for."""
    made = Node.make(tmp_path)
    made.workers = getattr(request, "param", DeviceWorkers.THREAD)
    return made
