"""`sled-agent status`: how this node's agent is, for the person who was woken by it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import click

from agent.cli.asking import asking, exchange, show, url_of
from agent.cli.failures import Failure
from agent.cli.options import Common
from agent.cli.output import Output
from agent.cli.verbs.status import lines, problems
from agent.client import AgentClient

SOMETHING_WRONG: Final = 1


@click.command(short_help="Show how the agent is, what is wrong first.")
@asking
@click.pass_context
def status(ctx: click.Context, config: Path | None, agent_url: str | None, as_json: bool) -> None:
    """Show how the agent is, what is wrong first; exit status 1 when something is."""
    output = Output(Common(json=as_json))
    try:
        found = asyncio.run(exchange(url_of(config, agent_url), AgentClient.status))
        wrong = list(problems(found))
        output.document(
            {**found.model_dump(mode="json"), "problems": wrong}, lines(found, output.width)
        )
        output.finish()
    except Failure as failure:
        show(failure, as_json=as_json)
        ctx.exit(failure.exit_code)
    ctx.exit(SOMETHING_WRONG if wrong else 0)
