"""The endpoint table: one row makes the route and its part of the OpenAPI document.

A row's models are the ones that validate and render, so the document cannot say anything else
than what the server does. Every operation can answer with the common error body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from typing import Any, Final, Literal

from aiohttp import web
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from depot.http.problems import JSON_TYPE
from depot.http.versions import ApiInfo

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Schema = Mapping[str, object]

OCTETS: Final = "application/octet-stream"
SHA256_SCHEMA: Final[Schema] = {"type": "string", "format": "hex string (32 bytes)"}
GENERATION_SCHEMA: Final[Schema] = {
    "description": "Orders artifact configs: higher is newer",
    "type": "integer",
    "format": "uint64",
    "minimum": 0,
    "maximum": 2**63 - 1,
}
_ERROR_SCHEMA: Final[Schema] = {
    "description": "Error information from a response.",
    "type": "object",
    "properties": {
        "request_id": {"type": "string"},
        "error_code": {"type": "string"},
        "message": {"type": "string"},
        "details": {"type": "object"},
    },
    "required": ["request_id", "error_code", "message"],
}
_ERROR_RESPONSE: Final[Schema] = {
    "description": "Error",
    "content": {JSON_TYPE: {"schema": {"$ref": "#/components/schemas/Error"}}},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A value in the path, the query or a header."""

    name: str
    where: Literal["path", "query", "header"]
    schema: Schema
    required: bool = True
    description: str = ""

    def document(self) -> dict[str, object]:
        """As OpenAPI has it."""
        described = {"description": self.description} if self.description else {}
        return {
            "in": self.where,
            "name": self.name,
            "required": self.required,
            "schema": dict(self.schema),
            **described,
        }


SHA256_IN_PATH: Final = Parameter(name="sha256", where="path", schema=SHA256_SCHEMA)
GENERATION_IN_QUERY: Final = Parameter(name="generation", where="query", schema=GENERATION_SCHEMA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One operation.

    Attributes:
        method: upper-case; a GET answers HEAD as well unless the table has a HEAD of its own.
        path: with `{name}` for each path parameter.
        request: a model for a JSON body, a media type for any other, None for no body.
        response: the same for the answer with `status`.
        other_responses: further statuses that are no errors, with their meaning.
    """

    method: str
    path: str
    operation_id: str
    handler: Handler
    summary: str
    description: str = ""
    parameters: tuple[Parameter, ...] = ()
    request: type[BaseModel] | str | None = None
    response: type[BaseModel] | str | None = None
    status: int = 200
    other_responses: Mapping[int, str] | None = None


def openapi_document(endpoints: Sequence[Endpoint], api: ApiInfo) -> dict[str, Any]:
    """Build the OpenAPI 3.1 document of a table."""
    references, schemas = _schemas(_models(endpoints))
    paths: dict[str, dict[str, object]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(
            endpoint, references
        )
    return {
        "openapi": "3.1.0",
        "info": {"title": api.title, "description": api.description, "version": api.version},
        "paths": paths,
        "components": {
            "responses": {"Error": _ERROR_RESPONSE},
            "schemas": {"Error": _ERROR_SCHEMA, **schemas},
        },
    }


_Model = tuple[type[BaseModel], JsonSchemaMode]
_References = Mapping[tuple[Any, JsonSchemaMode], Mapping[str, Any]]


def _models(endpoints: Sequence[Endpoint]) -> tuple[_Model, ...]:
    wanted: dict[_Model, None] = {}
    for endpoint in endpoints:
        if isinstance(endpoint.request, type):
            wanted[endpoint.request, "validation"] = None
        if isinstance(endpoint.response, type):
            wanted[endpoint.response, "serialization"] = None
    return tuple(wanted)


# Most of what it takes to make a server, and the same for each of a process.
@cache
def _schemas(models: tuple[_Model, ...]) -> tuple[_References, Mapping[str, Any]]:
    references, definitions = models_json_schema(
        models, ref_template="#/components/schemas/{model}"
    )
    return references, definitions.get("$defs", {})


def _operation(endpoint: Endpoint, references: _References) -> dict[str, object]:
    operation: dict[str, object] = {
        "operationId": endpoint.operation_id,
        "summary": endpoint.summary,
    }
    if endpoint.description:
        operation["description"] = endpoint.description
    if endpoint.parameters:
        operation["parameters"] = [parameter.document() for parameter in endpoint.parameters]
    if endpoint.request is not None:
        operation["requestBody"] = {
            "required": True,
            "content": _content(endpoint.request, "validation", references),
        }
    operation["responses"] = _responses(endpoint, references)
    return operation


def _responses(endpoint: Endpoint, references: _References) -> dict[str, object]:
    success: dict[str, object] = {"description": HTTPStatus(endpoint.status).phrase}
    if endpoint.response is not None:
        success["content"] = _content(endpoint.response, "serialization", references)
    others = {
        str(status): {"description": meaning}
        for status, meaning in (endpoint.other_responses or {}).items()
    }
    error = {"$ref": "#/components/responses/Error"}
    return {str(endpoint.status): success, **others, "4XX": error, "5XX": error}


def _content(
    body: type[BaseModel] | str, mode: JsonSchemaMode, references: _References
) -> dict[str, object]:
    if isinstance(body, str):
        return {body: {"schema": {}}}
    return {JSON_TYPE: {"schema": references[body, mode]}}
