"""The reference wire contract holds to the letter; what this project has beyond it is additive.

The facts of the reference are kept beside the tests in a short form. Where the reference documents
themselves are at hand, they are checked against that form.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from agent import openapi
from depot.http.openapi import Endpoint
from depot.http.service import make_app
from tests.http.servers import serve
from tests.reference_contract import facts

FACTS = Path(__file__).parent.parent / "data" / "reference"
ORIGINALS = Path(__file__).parents[2].parent / "shared" / "data"
REFERENCES = {
    "agent": "reference-sled-agent-artifacts.json",
    "depot": "reference-repo-depot.json",
}


def load(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def reference_operations() -> list[Any]:
    return [
        pytest.param(server, name, operation, id=name)
        for server in REFERENCES
        for name, operation in load(FACTS / f"{server}.json")["operations"].items()
    ]


def ours(server: str) -> dict[str, Any]:
    return facts(openapi.agent_document() if server == "agent" else openapi.depot_document())


@pytest.mark.parametrize(("server", "name", "reference"), reference_operations())
def test_each_operation_of_the_reference_is_here_as_it_is_there(
    server: str, name: str, reference: dict[str, Any]
) -> None:
    operation = ours(server)["operations"][name]
    for fact in ("method", "path", "parameters", "success", "errors"):
        assert operation[fact] == reference[fact], fact
    # A request may not require more; an answer may not lack anything.
    assert operation.get("request") == reference.get("request")
    if "response" in reference:
        accepted = (operation["response"]["media"], "*/*")
        assert reference["response"]["media"] in accepted
        required = reference["response"].get("required", {})
        assert required.items() <= operation["response"].get("required", {}).items()


@pytest.mark.parametrize("server", REFERENCES)
def test_every_operation_answers_with_the_error_of_the_reference(server: str) -> None:
    reference, document = load(FACTS / f"{server}.json"), ours(server)
    assert set(reference["error"]["required"]) <= set(document["error"]["required"])
    for operation in document["operations"].values():
        assert operation["errors"] == reference["error"]["answers"]


@pytest.mark.parametrize("server", REFERENCES)
def test_the_short_form_says_what_the_reference_says(server: str) -> None:
    original = ORIGINALS / REFERENCES[server]
    if not original.exists():
        pytest.skip(f"{original.name} is not at hand")
    assert facts(load(original)) == load(FACTS / f"{server}.json")


@pytest.mark.parametrize(("name", "text"), openapi.files().items())
def test_the_checked_in_documents_are_up_to_date(name: str, text: str) -> None:
    checked_in = openapi.DIRECTORY / name
    assert checked_in.read_text() == text, "run: python -m agent.openapi"


@pytest.mark.parametrize(
    ("server", "table"), [("agent", openapi.agent_table()), ("depot", openapi.depot_table())]
)
async def test_a_server_describes_itself_with_the_checked_in_document(
    server: str, table: tuple[Endpoint, ...]
) -> None:
    api = openapi.AGENT_API if server == "agent" else openapi.DEPOT_API
    async with (
        serve(make_app(table, api=api)) as service,
        aiohttp.ClientSession() as session,
        session.get(f"{service.url}/openapi.json") as response,
    ):
        served = await response.json()
    assert served == await asyncio.to_thread(load, openapi.DIRECTORY / f"{server}.json")


@pytest.mark.parametrize("server", REFERENCES)
def test_every_model_and_parameter_of_the_document_resolves(server: str) -> None:
    document = openapi.agent_document() if server == "agent" else openapi.depot_document()
    text = json.dumps(document)
    for name in document["components"]["schemas"]:
        assert f"#/components/schemas/{name}" in text, f"{name} is never used"
    for path, methods in document["paths"].items():
        for operation in methods.values():
            in_path = [p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"]
            assert all(f"{{{name}}}" in path for name in in_path)
            assert path.count("{") == len(in_path)
