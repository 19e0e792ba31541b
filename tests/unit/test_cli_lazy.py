from __future__ import annotations

import subprocess
import sys

import click
import pytest

from agent.cli.depot import depot
from agent.cli.sled_agent import sled_agent


@pytest.mark.parametrize("group", [depot, sled_agent])
def test_every_command_is_where_its_group_says(group: click.Group) -> None:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        assert found.name == name


def test_a_command_that_is_none_is_a_usage_error() -> None:
    with pytest.raises(click.UsageError, match="No such command"):
        sled_agent.main(["nothing"], standalone_mode=False)


@pytest.mark.parametrize(
    ("module", "spared"),
    [
        ("agent.cli.sled_agent", ["aiohttp", "pydantic", "agent.daemon"]),
        ("agent.cli.agent_status", ["agent.daemon", "agent.api", "prometheus_client"]),
        # Imported while the disks are looked at, see `agent.opening`.
        ("agent.cli.sled_agent, agent.cli.running", ["agent.assembly", "aiohttp"]),
        ("agent.cli.sled_agent, agent.cli.running, agent.assembly", ["pygments", "rich"]),
        ("agent.cli.preparing", ["aiohttp", "agent.daemon", "agent.client"]),
        ("agent.cli.verbs.status", ["agent.daemon", "agent.api", "tree_sitter"]),
        ("depot.device.__main__", ["asyncio", "aiohttp", "pydantic", "structlog", "depot.store"]),
        ("depot.dataset.attaching", ["asyncio", "aiohttp", "pydantic", "structlog", "depot.store"]),
    ],
)
def test_nobody_waits_for_the_import_of_what_is_not_needed(module: str, spared: list[str]) -> None:
    code = f"import {module}, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(spared).isdisjoint(done.stdout.split())
