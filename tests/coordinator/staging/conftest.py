"""A staging directory for every test."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.coordinator.staging.bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "staging")
