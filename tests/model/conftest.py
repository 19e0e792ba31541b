"""A node of two datasets for every test of the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.builders import Node


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node.make(tmp_path)
