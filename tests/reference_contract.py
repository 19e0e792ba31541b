"""The facts of an OpenAPI document that a client of it relies on, in a short form to compare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Document = Mapping[str, Any]
Operation = Mapping[str, Any]

METHODS = ("get", "put", "post", "delete", "head")


def facts(document: Document) -> dict[str, Any]:
    """Condense a document: its operations by id, and what every error has."""
    return {
        "operations": dict(sorted(_operations(document))),
        "error": {
            "answers": ["4XX", "5XX"],
            "required": sorted(document["components"]["schemas"]["Error"]["required"]),
        },
    }


def _operations(document: Document) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert method in METHODS
            yield operation["operationId"], _operation(document, path, method, operation)


def _operation(document: Document, path: str, method: str, operation: Operation) -> dict[str, Any]:
    responses = operation["responses"]
    (success,) = (status for status in responses if status.startswith("2") and status != "206")
    found: dict[str, Any] = {
        "method": method.upper(),
        "path": path,
        "parameters": _parameters(document, operation),
        "success": int(success),
        "errors": sorted(status for status in responses if status.endswith("XX")),
    }
    if "requestBody" in operation:
        found["request"] = _content(document, operation["requestBody"]["content"])
    if content := responses[success].get("content"):
        found["response"] = _content(document, content)
    return found


def _parameters(document: Document, operation: Operation) -> dict[str, Any]:
    """Required parameters by place and name, with the type of their values."""
    return {
        f"{each['in']} {each['name']}": _resolve(document, each["schema"])["type"]
        for each in operation.get("parameters", ())
        if each["required"]
    }


def _content(document: Document, content: Mapping[str, Any]) -> dict[str, Any]:
    """The media type, and for JSON the required fields with their types."""
    ((media, described),) = content.items()
    if media != "application/json":
        return {"media": media}
    schema = _resolve(document, described["schema"])
    fields = {
        name: _resolve(document, schema["properties"][name]).get("type", "any")
        for name in sorted(schema.get("required", ()))
    }
    return {"media": media, "required": fields}


def _resolve(document: Document, schema: Mapping[str, Any]) -> Mapping[str, Any]:
    while reference := schema.get("$ref"):
        schema = document["components"]["schemas"][reference.rsplit("/", 1)[1]]
    return schema
