"""The OpenAPI documents of both servers, as they are checked in.

`python -m agent.openapi` writes them to docs/openapi; a test says when they are stale.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from agent.api import AGENT_API, agent_endpoints
from depot.http.depot_api import DEPOT_API, depot_endpoints
from depot.http.openapi import Endpoint, openapi_document
from depot.http.service import with_description
from depot.http.versions import ApiInfo

__all__ = [
    "AGENT_API",
    "DEPOT_API",
    "DIRECTORY",
    "agent_document",
    "agent_table",
    "depot_document",
    "depot_table",
    "files",
]

DIRECTORY: Final = Path(__file__).parent.parent / "docs" / "openapi"


# A description calls no handler, so the handlers of these tables have nothing behind them.
_NOTHING: Final[Any] = None


def agent_table() -> tuple[Endpoint, ...]:
    """The endpoints of the sled agent API, for describing them."""
    return agent_endpoints(
        store=_NOTHING,
        copies=_NOTHING,
        status=_NOTHING,
        events=_NOTHING,
        metrics=_NOTHING,
        checkpoints=_NOTHING,
    )


def depot_table() -> tuple[Endpoint, ...]:
    """The endpoints of the repo depot API, for describing them."""
    return depot_endpoints(_NOTHING)


def agent_document() -> dict[str, Any]:
    """The document of the sled agent API."""
    return document_of(agent_table(), AGENT_API)


def depot_document() -> dict[str, Any]:
    """The document of the repo depot API."""
    return document_of(depot_table(), DEPOT_API)


def document_of(table: Sequence[Endpoint], api: ApiInfo) -> dict[str, Any]:
    """The document of a table, as its server gives it at /openapi.json."""
    return openapi_document(with_description(table, api), api)


def files() -> Mapping[str, str]:
    """The text of each checked-in document, by file name."""
    documents = {"agent.json": agent_document(), "depot.json": depot_document()}
    return {name: text_of(each) for name, each in documents.items()}


def text_of(document: Mapping[str, Any]) -> str:
    """The text of a checked-in document."""
    return json.dumps(document, indent=2) + "\n"


def write(texts: Mapping[str, str]) -> None:
    """Write documents to where they are checked in."""
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (DIRECTORY / name).write_text(text)


if __name__ == "__main__":
    write(files())
