"""What every test gets: a blocking call on the event loop fails the test that makes it."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from blockbuster import BlockBuster, blockbuster_ctx
from structlog.testing import capture_logs


@pytest.fixture(autouse=True)
def blocking_calls_fail() -> Iterator[BlockBuster]:
    with blockbuster_ctx() as blockbuster:
        yield blockbuster


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """The log of the test, as a list of entries instead of lines on the terminal."""
    with capture_logs() as entries:
        yield entries
