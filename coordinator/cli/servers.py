"""The coordinator a verb talks to, and how its refusals become failures of the command."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType
from typing import Final

from agent.cli.failures import ExitCode, Failure
from agent.cli.servers import NOT_ITS_API, failure_of
from coordinator.cli.options import Common
from coordinator.client import CoordinatorClient
from depot.errors import DepotError

# What a person can do about each `error_code` of the coordinator.
HINTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "BadRelease": "it has to be a TUF repository: metadata/ and targets/, in a zip below repo/",
        "BadSource": "the coordinator's configuration names the networks: import.allowed_sources"
        " for releases, sleds.allowed_networks for sleds",
        "BodyTimeout": "the way to the server is too slow; look at the network, then try again",
        "CONFIG_GENERATION": "`depot-coordinator generation show` says where the fleet is",
        "CoordinatorActive": "stop it first (`quiesce` brings what only it has to the sleds), or"
        " --force if its disk is gone for certain",
        "DatabaseInUse": "stop every coordinator that works on it, and whatever else looks into it",
        "DatabaseUnavailable": "look at the database that database.url names, and at the"
        " coordinator's log",
        "DepotCopy": "check that the repository can be reached from the coordinator",
        "Expired": "have the release signed anew, or accept it with --allow-expired",
        "Internal": "the server's log has the traceback, under the request id",
        "JournalKeyMissing": "ask the coordinator that has the shard's key, or copy its file to"
        " where journal.keys points; if it is gone for good, `journal rotate --lost-key`",
        "NoShard": "look at the coordinator's log: it begins the journal when it starts",
        "NotFound": "`depot-coordinator release ls`, `sled ls`, `trust ls`, `coordinator ls`,"
        " `journal tail` and `snapshot held` show what is there",
        "NotReady": "`depot-coordinator status` and the coordinator's log say more",
        "QuotaExceeded": "wait until the sleds have what is staged (`depot-coordinator status`);"
        " what is larger than staging.quota needs a larger one",
        "Quiescing": "upload to another coordinator, or start this one again",
        "ReleaseConflict": "a release and the artifacts it names never change: build it under"
        " another version",
        "ReleaseUnusable": "upload the release again, which brings back what is lost",
        "ShardDropped": "the file that `journal export` wrote has it:"
        " `journal prove INDEX --export FILE --json`",
        "ShardInUse": "something happened since; `journal rotate` goes on from there",
        "ShuttingDown": "the coordinator is stopping; try again when it is back",
        "SledAddressTaken": "give the agent's own address; if the node has a new id, `sled expunge`"
        " and `sled rm` the old one",
        "SledExpunged": "`depot-coordinator sled restore ID` puts it in service again",
        "SledInService": "`depot-coordinator sled expunge ID` first",
        "SnapshotBehind": "look for a newer snapshot; without one: restore with --behind, start a"
        " coordinator, and `depot-coordinator generation advance` to the number that is named",
        "SnapshotConflict": "publish it as another version",
        "SnapshotFailed": "the coordinator's log says more; `snapshot publish` tries again now",
        "SnapshotRunning": "try again when it is done",
        "TargetMismatch": "the file was damaged after it was signed; fetch it again",
        "TargetRelease": "make another release the target first: `depot-coordinator target set`",
        "TooLarge": "upload.max_size in the coordinator's configuration sets what is taken",
        "TooMany": "remove what is not needed any more: `sled rm` or `trust rm`",
        "TooManyUploads": "upload.max_concurrent are running already; try again in a moment",
        "Refused": "look at the sled itself: `depot --agent URL status`",
        "Unreachable": "look at the sled itself: does its agent run, and is that its address?",
        "UnknownHost": "ask it at its address, or name it in allowed_hosts in its configuration",
        "Untrusted": "`depot-coordinator trust ls` shows the roots of trust; `trust add ROOT.json`"
        " adds the one that the release is signed under",
    }
)


_ANOTHER: Final = (
    "perhaps no coordinator listens there: by default one is on port 12340; an agent is on 12345, "
    "its depot on 12348"
)


@asynccontextmanager
async def coordinator(common: Common) -> AsyncIterator[CoordinatorClient]:
    """Open a client of the coordinator; its errors leave as failures."""
    try:
        async with CoordinatorClient(common.url) as client:
            yield client
    except DepotError as error:
        raise hinted(failure_of(error, "coordinator", common.url)) from error


def hinted(failure: Failure) -> Failure:
    """The failure with what helps at a coordinator; what helps at an agent is no help here."""
    if failure.exit_code is not ExitCode.REFUSED:
        return failure
    another = (failure.hint or "").startswith(NOT_ITS_API)
    return Failure(
        failure.message,
        failure.exit_code,
        code=failure.code,
        hint=_ANOTHER if another else HINTS.get(failure.code, ""),
        request_id=failure.request_id,
        details=failure.details,
    )
