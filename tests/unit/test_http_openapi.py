from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel

from depot.http.openapi import OCTETS, SHA256_IN_PATH, Endpoint, openapi_document
from depot.http.versions import ApiInfo

API = ApiInfo(title="t", description="d", version="1.2.3", oldest=(1, 0, 0), newest=(2, 0, 0))


class Inner(BaseModel):
    number: int


class Outer(BaseModel):
    inner: Inner


async def handler(request: web.Request) -> web.Response:
    raise NotImplementedError


def endpoint(**fields: object) -> Endpoint:
    row: dict[str, object] = {
        "method": "GET",
        "path": "/things/{sha256}",
        "operation_id": "thing",
        "handler": handler,
        "summary": "A thing.",
        **fields,
    }
    return Endpoint(**row)  # type: ignore[arg-type]  # each test names the fields it is about


def test_models_become_shared_schemas() -> None:
    document = openapi_document(
        [endpoint(response=Outer), endpoint(method="PUT", request=Outer)], API
    )
    operations = document["paths"]["/things/{sha256}"]
    reference = {"application/json": {"schema": {"$ref": "#/components/schemas/Outer"}}}
    assert operations["get"]["responses"]["200"]["content"] == reference
    assert operations["put"]["requestBody"]["content"] == reference
    assert set(document["components"]["schemas"]) == {"Error", "Outer", "Inner"}


def test_every_operation_can_answer_with_the_error_body() -> None:
    document = openapi_document([endpoint(status=204)], API)
    responses = document["paths"]["/things/{sha256}"]["get"]["responses"]
    error = {"$ref": "#/components/responses/Error"}
    assert responses == {"204": {"description": "No Content"}, "4XX": error, "5XX": error}
    assert document["components"]["schemas"]["Error"]["required"] == [
        "request_id",
        "error_code",
        "message",
    ]


def test_bodies_without_a_model_have_a_media_type() -> None:
    document = openapi_document([endpoint(request=OCTETS, response=OCTETS)], API)
    operation = document["paths"]["/things/{sha256}"]["get"]
    assert operation["requestBody"] == {"required": True, "content": {OCTETS: {"schema": {}}}}
    assert operation["responses"]["200"]["content"] == {OCTETS: {"schema": {}}}


def test_parameters_and_other_answers_are_described() -> None:
    row = endpoint(parameters=(SHA256_IN_PATH,), other_responses={304: "Not changed."})
    operation = openapi_document([row], API)["paths"]["/things/{sha256}"]["get"]
    assert operation["parameters"] == [
        {
            "in": "path",
            "name": "sha256",
            "required": True,
            "schema": {"type": "string", "format": "hex string (32 bytes)"},
        }
    ]
    assert operation["responses"]["304"] == {"description": "Not changed."}
