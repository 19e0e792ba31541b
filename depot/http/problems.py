"""The one table from error class to HTTP status and log level, and the error body.

A server with errors of its own brings a table that goes on from this one (`make_app`).

Every 4xx and 5xx of both servers is made here, whoever notices the problem: a handler, the
middleware, the protocol (a malformed request) or the door (too many connections). The body is
`{"request_id", "error_code", "message", "details"?}` and `x-request-id` has the same id.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, NamedTuple

from aiohttp import web

from depot import errors
from depot.errors import DepotError

REQUEST_ID_HEADER: Final = "x-request-id"
JSON_TYPE: Final = "application/json"


class Row(NamedTuple):
    """How an error shows on the wire and in the log."""

    status: int
    log_level: int


PROBLEMS: Final[Mapping[type[DepotError], Row]] = {
    errors.InvalidRequest: Row(400, logging.INFO),
    errors.ApiVersion: Row(400, logging.INFO),
    errors.UnsupportedEncoding: Row(415, logging.INFO),
    errors.ExpectationFailed: Row(417, logging.INFO),
    errors.HttpVersionNotSupported: Row(505, logging.INFO),
    errors.CrossSite: Row(403, logging.WARNING),
    errors.UnknownHost: Row(421, logging.WARNING),
    errors.MethodNotAllowed: Row(405, logging.INFO),
    errors.PreconditionFailed: Row(412, logging.INFO),
    errors.RangeNotSatisfiable: Row(416, logging.INFO),
    errors.NotFound: Row(404, logging.INFO),
    errors.HeaderTimeout: Row(408, logging.INFO),
    errors.BodyTimeout: Row(408, logging.WARNING),
    errors.ShuttingDown: Row(503, logging.INFO),
    errors.NotReady: Row(503, logging.INFO),
    errors.TooManyConnections: Row(503, logging.WARNING),
    errors.NoDataset: Row(503, logging.ERROR),
    errors.DatasetUnusable: Row(503, logging.ERROR),
    errors.DatasetRefused: Row(409, logging.WARNING),
    errors.DatasetBusy: Row(503, logging.ERROR),
    errors.DatasetForeign: Row(503, logging.ERROR),
    errors.FormatTooNew: Row(503, logging.ERROR),
    errors.NoConfig: Row(400, logging.INFO),
    errors.ConfigNotFound: Row(404, logging.INFO),
    errors.LedgerUnknown: Row(503, logging.ERROR),
    errors.ConfigGeneration: Row(409, logging.WARNING),
    errors.ArtifactGeneration: Row(409, logging.INFO),
    errors.ArtifactInUse: Row(400, logging.WARNING),
    errors.NotInConfig: Row(400, logging.INFO),
    errors.TooLarge: Row(413, logging.WARNING),
    errors.QuotaExceeded: Row(507, logging.WARNING),
    errors.HashMismatch: Row(400, logging.WARNING),
    errors.LengthMismatch: Row(400, logging.WARNING),
    errors.KeptInQuarantine: Row(409, logging.INFO),
    errors.TooManyPuts: Row(429, logging.INFO),
    errors.TooManyBodies: Row(429, logging.WARNING),
    errors.TooFewCopies: Row(503, logging.ERROR),
    errors.Io: Row(500, logging.ERROR),
    errors.BadSource: Row(400, logging.WARNING),
    errors.TooManyCopies: Row(429, logging.INFO),
    errors.DepotCopy: Row(502, logging.WARNING),
    errors.Internal: Row(500, logging.ERROR),
    errors.Unreachable: Row(502, logging.WARNING),
    errors.Refused: Row(502, logging.WARNING),
}


Problems = Mapping[type[DepotError], Row]


def row_of(error: DepotError, problems: Problems = PROBLEMS) -> Row:
    """Look `error` up by its class; a class without a row is a mistake of ours."""
    return problems[type(error)]


def problem_headers(error: DepotError) -> dict[str, str]:
    """Headers that belong to the refusal rather than to its body."""
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.MethodNotAllowed):
        headers["Allow"] = ", ".join(error.allowed)
    if isinstance(error, errors.RangeNotSatisfiable):
        headers["Content-Range"] = f"bytes */{error.size_bytes}"
    return headers


def problem_body(error: DepotError, request_id: str) -> bytes:
    """Render the error body."""
    body: dict[str, object] = {
        "request_id": request_id,
        "error_code": error.code,
        "message": str(error),
    }
    if details := error.details():
        body["details"] = details
    return json.dumps(body).encode()


def problem_response(
    error: DepotError, request_id: str, problems: Problems = PROBLEMS
) -> web.Response:
    """The answer to a request that failed with `error`."""
    return web.Response(
        status=row_of(error, problems).status,
        headers={REQUEST_ID_HEADER: request_id, **problem_headers(error)},
        body=problem_body(error, request_id),
        content_type=JSON_TYPE,
    )


def problem_bytes(error: DepotError, request_id: str) -> bytes:
    """The same as a whole HTTP message, for a connection on which no request was parsed."""
    status = HTTPStatus(row_of(error).status)
    body = problem_body(error, request_id)
    headers = {
        "Content-Type": JSON_TYPE,
        "Content-Length": str(len(body)),
        REQUEST_ID_HEADER: request_id,
        **problem_headers(error),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body
