"""The databases that the tests of the coordinator run on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.coordinator.postgres import NoPostgres, PostgresServer, running
from tests.needs import Need, lack


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """One server for the whole run; each test makes databases of its own on it."""
    try:
        with running() as server:
            yield server
    except NoPostgres as error:
        lack(Need.POSTGRESQL, str(error))
