"""`put --add`: the config change before the files are sent, and taking back what came to nothing.

Rules kept here:

- Files are added in one change, before the first byte is sent; once more if somebody else changed
  the config meanwhile.
- What the command added and no dataset has a copy of when it ends is taken out by the next
  generation. Only what this command added, and only while nobody else changed the config: a config
  of the same or of a higher generation than ours is never replaced, because the sled refuses that.
- A sled that registers with a coordinator may be ahead of its fleet by this, which is told.
- What cannot be taken out is told, with the way to do it. After Ctrl-C nothing is taken out, so
  that the same command goes on where it was; what stays is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from agent.cli.changes import Change, adding, dropping
from agent.cli.failures import refused
from agent.cli.formats import plural
from agent.cli.hashing import LocalFile
from agent.cli.output import Output
from agent.cli.servers import current_config
from agent.client import AgentClient
from agent.wire.status import REGISTRATION_DUTY
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import ConfigGeneration, DepotError, LedgerUnknown, Refused

_SHOWN: Final = 3
_AHEAD: Final = (
    "this sled registers with a coordinator, which says what it is to hold: by what --add changed "
    "it may be ahead of the fleet now, and is set aside then, until `depot-coordinator sled reset` "
    "has it forget that, or the fleet's generation rises above it"
)
_SEND_WHOLE: Final = (
    "where `depot status` says that the ledger is behind or conflicted, `depot config set "
    "--generation N SHA256...` with a higher generation names all that the sled is to hold; then "
    "`depot put` without --add sends the files"
)


@dataclass(frozen=True, slots=True)
class Undone:
    """What became of hashes that were added for nothing; `change` took the first ones out."""

    change: Change | None = None
    taken_back: tuple[ArtifactHash, ...] = ()
    left: tuple[ArtifactHash, ...] = ()

    @property
    def generation(self) -> Generation | None:
        """The one that took them out; None when none did."""
        return self.change.after.generation if self.change else None

    def document(self) -> dict[str, object]:
        """For --json."""
        return {
            "taken_back": list(map(str, self.taken_back)),
            "left_in_config": list(map(str, self.left)),
        }

    def tell(self, output: Output) -> None:
        """Say it on stderr."""
        if self.change is not None:
            output.note(
                f"{plural(len(self.taken_back), 'hash')} taken out of the config again, now "
                f"generation {int(self.change.after.generation)}: {_first(self.taken_back)}"
            )

    def warnings(self) -> list[str]:
        """What the user has to see to."""
        if not self.left:
            return []
        return [
            f"{plural(len(self.left), 'hash')} left in the config without a copy: "
            f"{_first(self.left)}; `depot put` of the same file sends it. To take it out: "
            "`depot config get --json >FILE`, delete the line there, raise the generation, "
            "`depot config set FILE`"
        ]


async def add_to_config(client: AgentClient, output: Output, files: Sequence[LocalFile]) -> Change:
    """Add the files to the config in one change; what that changed."""
    artifacts = {file.sha256 for file in files}
    try:
        change = await _add(client, artifacts)
    except Refused as error:
        if error.remote_code != ConfigGeneration.code:
            raise
        output.note("the generation moved on meanwhile; trying once more")
        change = await _add(client, artifacts)
    if not change.nothing:
        output.note(_added(change))
    return change


async def ahead_of_its_fleet(client: AgentClient, change: Change) -> list[str]:
    """A sentence on the coordinator of a sled whose config was changed; none where there is none.

    A sled that does not say is taken for one without.
    """
    if change.nothing:
        return []
    try:
        duties = (await client.status()).duties
    except DepotError:
        return []
    return [_AHEAD] if any(duty.name == REGISTRATION_DUTY for duty in duties) else []


@contextmanager
def told_of_what_stays(output: Output, change: Change | None) -> Iterator[None]:
    """Send what was added; Ctrl-C meanwhile tells that it stays in the config."""
    try:
        yield
    except asyncio.CancelledError:
        if change is not None and change.added:
            stay = "stays" if len(change.added) == 1 else "stay"
            output.warning(
                f"{plural(len(change.added), 'hash')} {stay} in the config, generation "
                f"{int(change.after.generation)}: {_first(change.added)}; the same command again "
                "sends what is not there yet"
            )
        raise


async def take_back(
    client: AgentClient, change: Change, failed: Collection[ArtifactHash], *, lost: bool
) -> Undone:
    """Take out of the config what `change` added, `failed`, and has no copy now.

    Args:
        client: of the sled.
        change: what this command added.
        failed: what was not stored, tried or not.
        lost: the sled is gone, so that it is not even asked.
    """
    empty = sorted(set(change.added).intersection(failed))
    if not empty:
        return Undone()
    if lost:
        return Undone(left=tuple(empty))
    try:
        # A put that was refused may have left copies, and somebody else may have put the same.
        held = (await client.list_artifacts()).list
        empty = [artifact for artifact in empty if str(artifact) not in held]
        if not empty:
            return Undone()
        undoing = dropping(change.after, empty)
        await client.put_config(undoing.after)
    except DepotError:
        return Undone(left=tuple(empty))
    return Undone(undoing, tuple(empty))


async def _add(client: AgentClient, artifacts: Collection[ArtifactHash]) -> Change:
    change = adding(await _known_config(client), artifacts)
    if not change.nothing:
        await client.put_config(change.after)
    return change


async def _known_config(client: AgentClient) -> ArtifactConfig | None:
    try:
        return await current_config(client)
    except Refused as error:
        if error.remote_code != LedgerUnknown.code:
            raise
        raise refused(
            LedgerUnknown.code,
            "--add: the config to add to is not known: " + error.remote_message,
            request_id=error.request_id,
            details=error.remote_details,
            hint=_SEND_WHOLE,
        ) from error


def _added(change: Change) -> str:
    return (
        f"{plural(len(change.added), 'hash')} added to the config, "
        f"now generation {int(change.after.generation)}"
    )


def _first(artifacts: Sequence[ArtifactHash]) -> str:
    more = ", …" if len(artifacts) > _SHOWN else ""
    return ", ".join(map(str, artifacts[:_SHOWN])) + more
