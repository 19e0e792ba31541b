from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from depot import errors
from depot.artifact import ArtifactHash
from depot.errors import DepotError
from depot.http.problems import PROBLEMS, problem_body, problem_bytes, problem_headers

ONE = ArtifactHash.of(b"one")
TWO = ArtifactHash.of(b"two")


def leaves(root: type[DepotError] = DepotError) -> Iterator[type[DepotError]]:
    """Every class that can be raised: those that have a code."""
    for leaf in root.__subclasses__():
        if hasattr(leaf, "code"):
            yield leaf
        yield from leaves(leaf)


def test_every_error_class_has_a_row() -> None:
    ours = (leaf for leaf in leaves() if not leaf.__module__.startswith("coordinator"))
    missing = {leaf.__name__ for leaf in ours if leaf not in PROBLEMS}
    assert missing == set()


def test_every_row_is_a_refusal() -> None:
    assert all(400 <= row.status < 600 for row in PROBLEMS.values())


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.ConfigNotFound(), 404),
        (errors.NoConfig(), 400),
        (errors.NoDataset("none"), 503),
        (errors.QuotaExceeded("full"), 507),
        (errors.TooManyPuts("many"), 429),
        (errors.TooManyBodies("many"), 429),
        (errors.TooLarge("large"), 413),
        (errors.DepotCopy("no"), 502),
    ],
)
def test_statuses_are_those_of_the_contract(error: DepotError, status: int) -> None:
    assert PROBLEMS[type(error)].status == status


def test_the_body_has_details_only_when_there_are_any() -> None:
    assert json.loads(problem_body(errors.InvalidRequest("no"), "id")) == {
        "request_id": "id",
        "error_code": "InvalidRequest",
        "message": "no",
    }
    body = json.loads(problem_body(errors.HashMismatch(ONE, TWO), "id"))
    assert body["details"] == {"expected": str(ONE), "actual": str(TWO)}


def test_headers_belong_to_their_refusals() -> None:
    assert problem_headers(errors.InvalidRequest("no")) == {}
    assert problem_headers(errors.TooManyPuts("many")) == {"Retry-After": "1"}
    assert problem_headers(errors.MethodNotAllowed("PUT", "/", ["GET", "HEAD"])) == {
        "Allow": "GET, HEAD"
    }
    assert problem_headers(errors.RangeNotSatisfiable("bytes=9-", 5)) == {
        "Content-Range": "bytes */5"
    }


def test_a_refusal_without_a_request_is_a_whole_message() -> None:
    head, _, body = problem_bytes(errors.TooManyConnections("many"), "id").partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 503 Service Unavailable"
    assert {"x-request-id: id", "Retry-After: 5", "Connection: close"} <= set(lines)
    assert f"Content-Length: {len(body)}" in lines
    assert json.loads(body)["error_code"] == "TooManyConnections"
