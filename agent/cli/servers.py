"""The two servers a verb talks to, and how their errors become failures of the command.

The clients raise `DepotError` leaves; this is the one place that turns them into a `Failure` with
an exit code.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Final, TypeVar

from agent.cli.failures import ExitCode, Failure, refused, unreachable, usage
from agent.cli.options import Common
from agent.cli.resolving import all_whole, resolve
from agent.client import AgentClient
from depot.artifact import ArtifactConfig
from depot.client import Bounds, DepotClient
from depot.errors import (
    DepotError,
    HashMismatch,
    InvalidRequest,
    LengthMismatch,
    NoConfig,
    NotFound,
    Refused,
    TooLarge,
    Unreachable,
)

T = TypeVar("T")

# What a server of ours says of a path that it does not have: the other one was meant.
_NO_SUCH_PATH: Final = "no such path"
NOT_ITS_API: Final = "perhaps not the "
_NOT_ITS_API: Final = (
    NOT_ITS_API + "{what} listens there: by default the agent is on port 12345, the depot on 12348"
)
_DAMAGED_THERE: Final = (
    "it may be damaged at the depot: `sled-agent scrub start` there finds that and heals it; if it "
    "finds nothing, the bytes were damaged on the way: try again"
)
_LOST: Final = (
    "`depot status` names what is lost; put it again, or name a peer that has it in heal.peers"
)


@asynccontextmanager
async def agent(common: Common) -> AsyncIterator[AgentClient]:
    """Open a client of the sled agent API; its errors leave as failures."""
    try:
        async with AgentClient(common.agent_url) as client:
            yield client
    except DepotError as error:
        raise failure_of(error, "agent", common.agent_url) from error


@asynccontextmanager
async def depot(common: Common, bounds: Bounds | None = None) -> AsyncIterator[DepotClient]:
    """Open a client of the repo depot API; its errors leave as failures."""
    try:
        async with DepotClient(common.depot_url, bounds=bounds or Bounds()) as client:
            yield client
    except DepotError as error:
        raise failure_of(error, "depot", common.depot_url) from error


def failure_of(error: DepotError, what: str, url: str) -> Failure:
    """Say what an error of a client means for the command.

    Args:
        error: what the client raised.
        what: the option that names the server, `agent` or `depot`.
        url: where the server was asked.
    """
    match error:
        case Unreachable():
            return unreachable(what, str(error))
        case Refused():
            return refused(
                error.remote_code or f"HTTP {error.status}",
                f"the {what} at {url} refused: {error.remote_message or error}{_damaged(error)}",
                request_id=error.request_id,
                details=error.remote_details,
                hint=_hint(error, what),
            )
        case HashMismatch() | LengthMismatch():
            # Found by the client itself, in what it fetched: it read no file that could change.
            return Failure(
                str(error),
                ExitCode.WRONG_BYTES,
                code=error.code,
                hint=_DAMAGED_THERE,
                details=error.details(),
            )
        case InvalidRequest():
            return usage(str(error))
        case TooLarge():  # for this client; what a server finds too large is Refused
            return refused(error.code, str(error), hint="--max-size allows more")
        case _:
            return refused(error.code, str(error), details=error.details())


def _hint(error: Refused, what: str) -> str | None:
    """What helps more than what is said of every refusal with that code."""
    if _is_another_server(error):
        return _NOT_ITS_API.format(what=what)
    return _LOST if _damaged(error) else None


def _damaged(error: Refused) -> str:
    """Why an artifact that one knows to be there is not."""
    copies = error.remote_details.get("damaged")
    if error.remote_code != NotFound.code or not isinstance(copies, int) or copies < 1:
        return ""
    said = {1: "its only copy is", 2: "both copies are"}.get(copies, f"all {copies} copies are")
    return f": {said} damaged"


def _is_another_server(error: Refused) -> bool:
    """Whether what answered does not even know the path that was asked for."""
    if error.remote_code is None:
        return error.status == HTTPStatus.NOT_FOUND
    return error.remote_message.startswith(_NO_SUCH_PATH)


async def current_config(client: AgentClient) -> ArtifactConfig | None:
    """Read the sled's config; None when it has none yet."""
    try:
        return await client.config()
    except Refused as error:
        if error.remote_code != NoConfig.code:
            raise
        return None


async def whole_hashes(client: AgentClient, typed: Sequence[str]) -> list[str]:
    """Replace each prefix by the one hash of the sled's config that begins with it.

    The config also names what is missing or lost, which is what one looks for first.
    """
    known = () if all_whole(typed) else (await client.config()).artifacts
    return resolve(typed, map(str, known), "the sled's config")
