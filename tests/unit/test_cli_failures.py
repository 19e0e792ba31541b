from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest

from agent.cli.failures import EXIT_CODES, HINTS, ExitCode, Failure, local, refused
from agent.cli.servers import failure_of
from depot import errors
from depot.artifact import ArtifactHash
from depot.errors import DepotError, HashMismatch, InvalidRequest, Refused, Unreachable

URL = "http://127.0.0.1:1"
# Refusals that a working client cannot provoke, or whose message already says what to do.
WITHOUT_HINT = {
    "DatasetBusy",
    "DatasetForeign",
    "DatasetUnusable",
    "ExpectationFailed",
    "FormatTooNew",
    "HeaderTimeout",
    "HttpVersionNotSupported",
    "InvalidRequest",
    "MethodNotAllowed",
    "PreconditionFailed",
    "RangeNotSatisfiable",
    "Refused",
    "Unreachable",
    "UnsupportedEncoding",
}


def leaves(root: type[DepotError]) -> Iterator[type[DepotError]]:
    for child in root.__subclasses__():
        yield child
        yield from leaves(child)


def test_every_refusal_has_a_hint_or_a_reason_for_none() -> None:
    # Those of coordinators are for a command of their own.
    of_sleds = (leaf for leaf in leaves(DepotError) if leaf.__module__ == errors.__name__)
    codes = {leaf.code for leaf in of_sleds if hasattr(leaf, "code")}
    assert codes == set(HINTS) | WITHOUT_HINT
    assert not set(HINTS) & WITHOUT_HINT


def test_every_exit_status_is_documented() -> None:
    assert set(EXIT_CODES) == set(ExitCode)


def test_a_refusal_by_the_server_keeps_its_code_message_and_request_id() -> None:
    error = Refused(URL, 400, remote_code="NotInConfig", remote_message="no", request_id="r1")
    failure = failure_of(error, "agent", URL)
    assert failure.exit_code is ExitCode.REFUSED
    assert failure.document() == {
        "exit_code": 3,
        "code": "NotInConfig",
        "message": f"the agent at {URL} refused: no",
        "hint": HINTS["NotInConfig"],
        "request_id": "r1",
    }


def test_a_refusal_that_is_not_ours_is_told_by_its_status() -> None:
    failure = failure_of(Refused(URL, 502), "depot", URL)
    assert failure.code == "HTTP 502"
    assert "502" in failure.message


@pytest.mark.parametrize(
    ("error", "hinted"),
    [
        (Refused(URL, 404), True),
        (Refused(URL, 404, remote_code="NotFound", remote_message="no such path: /status"), True),
        (Refused(URL, 404, remote_code="NotFound", remote_message="it is not here"), False),
        (Refused(URL, 502), False),
    ],
)
def test_another_server_than_the_one_that_was_meant_is_pointed_out(
    error: Refused, hinted: bool
) -> None:
    assert ("perhaps not the agent" in str(failure_of(error, "agent", URL).hint)) is hinted


def test_wrong_bytes_are_told_apart_whoever_found_them() -> None:
    found_here = HashMismatch(ArtifactHash.of(b"a"), ArtifactHash.of(b"b"))
    assert failure_of(found_here, "depot", URL).exit_code is ExitCode.WRONG_BYTES
    found_there = Refused(URL, 400, remote_code="HashMismatch", remote_message="no")
    assert failure_of(found_there, "agent", URL).exit_code is ExitCode.WRONG_BYTES
    assert refused("QuotaExceeded", "full").exit_code is ExitCode.REFUSED


def test_a_server_that_does_not_answer_is_unreachable_and_the_option_is_named() -> None:
    failure = failure_of(Unreachable(f"{URL}: connection refused"), "depot", URL)
    assert failure.exit_code is ExitCode.UNREACHABLE
    assert URL in failure.message
    assert "--depot" in str(failure.hint)
    assert "DEPOT_DEPOT_URL" in str(failure.hint)


def test_a_value_that_the_client_refuses_is_a_usage_error() -> None:
    assert failure_of(InvalidRequest("no"), "agent", URL).exit_code is ExitCode.USAGE


@pytest.mark.parametrize(
    ("number", "exit_code"),
    [
        (errno.ENOENT, ExitCode.USAGE),
        (errno.EACCES, ExitCode.USAGE),
        (errno.EISDIR, ExitCode.USAGE),
        (errno.ENOSPC, ExitCode.LOCAL),
        (errno.EIO, ExitCode.LOCAL),
    ],
)
def test_a_failing_disk_is_not_a_mistake_in_the_command_line(
    number: int, exit_code: ExitCode
) -> None:
    failure = local(OSError(number, "reason", "some/file"))
    assert failure.exit_code is exit_code
    assert failure.message == "some/file: reason"


def test_a_failure_without_a_code_is_named_after_its_exit_status() -> None:
    assert Failure("x", ExitCode.WRONG_BYTES).code == "WrongBytes"
