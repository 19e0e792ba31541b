"""Both ways that a put may take, for the modules whose rules hold on each."""

from __future__ import annotations

from typing import Final

import pytest

from tests.http.sled import Ways

BOTH_WAYS: Final = frozenset({"test_agent_artifacts", "test_agent_bodies", "test_agent_client"})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what must hold both ways both ways."""
    if metafunc.module.__name__.rpartition(".")[2] in BOTH_WAYS:
        metafunc.fixturenames.insert(0, "put_way")  # before any server is made
        metafunc.parametrize("put_way", [True, False], ids=["fast", "plain"], indirect=True)


@pytest.fixture
def put_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether plain puts are answered past the HTTP library."""
    fast: bool = request.param
    monkeypatch.setattr(Ways, "fast", fast)
    return fast
