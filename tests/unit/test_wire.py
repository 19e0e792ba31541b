"""Bodies of the sled agent API: what is refused, and what they turn into."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from pydantic import BaseModel, ValidationError

from agent.wire import fields
from agent.wire.artifacts import ArtifactListBody
from agent.wire.config import ArtifactConfigBody, ConfigResetBody
from agent.wire.copies import CopyFromDepotBody
from agent.wire.events import EventsBody
from agent.wire.fields import timestamp
from agent.wire.pins import PinBody
from depot.artifact import MAX_GENERATION, ArtifactConfig, ArtifactHash

A, B = "ab" * 32, "0c" * 32


def parse(text: str | dict[str, object]) -> ArtifactConfigBody:
    content = text if isinstance(text, str) else json.dumps(text)
    return ArtifactConfigBody.model_validate_json(content)


def mistake(content: dict[str, object], model: type[BaseModel] = ArtifactConfigBody) -> str:
    """The first mistake that is found: `field: message`."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(json.dumps(content))
    first = caught.value.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def test_a_config_is_lower_case_sorted_and_whole() -> None:
    body = parse({"generation": 3, "artifacts": [A.upper(), B]})
    assert body.artifacts == (B, A)
    assert body.config() == ArtifactConfig.make(3, map(ArtifactHash.parse, (A, B)))


def test_a_config_is_rendered_as_it_is_read() -> None:
    config = ArtifactConfig.make(7, map(ArtifactHash.parse, (A, B)))
    assert parse(ArtifactConfigBody.of(config).model_dump_json()).config() == config
    assert json.loads(ArtifactConfigBody.of(config).model_dump_json())["artifacts"] == [B, A]


@pytest.mark.parametrize("generation", [0, 1, MAX_GENERATION])
def test_every_generation_in_range_is_taken(generation: int) -> None:
    assert parse({"generation": generation, "artifacts": []}).config().generation == generation


@pytest.mark.parametrize(
    "generation",
    ["true", "false", "1.0", "1e3", '"1"', "null", "-1", str(MAX_GENERATION + 1), "[]", "{}"],
)
@pytest.mark.parametrize("model", [ArtifactConfigBody, ConfigResetBody])
def test_whatever_is_no_integer_in_range_is_no_generation(
    generation: str, model: type[BaseModel]
) -> None:
    field = "generation" if model is ArtifactConfigBody else "expected_generation"
    with pytest.raises(ValidationError) as caught:
        model.model_validate_json(f'{{"artifacts": [], "{field}": {generation}}}')
    assert field in [error["loc"][0] for error in caught.value.errors()]


def test_a_number_of_thousands_of_digits_is_refused_without_being_computed() -> None:
    with pytest.raises(ValidationError):
        parse('{"artifacts": [], "generation": 1' + "0" * 100_000 + "}")


@pytest.mark.parametrize(
    "artifact",
    [
        "",
        "a" * 63,
        "a" * 65,
        "g" * 64,
        A + "\n",
        " " + A,
        "../" + "a" * 61,
        "\u0660" * 64,
        7,
        None,
        [A],
    ],
)
@pytest.mark.parametrize("model", [ArtifactConfigBody, PinBody])
def test_whatever_is_not_64_hex_digits_is_no_hash(artifact: object, model: type[BaseModel]) -> None:
    found = mistake({"generation": 1, "artifacts": [B, artifact]}, model)
    assert found.startswith("artifacts.1: ")


@pytest.mark.parametrize("again", [A, A.upper(), A[:32].upper() + A[32:]])
@pytest.mark.parametrize("model", [ArtifactConfigBody, PinBody])
def test_a_hash_given_twice_in_any_case_is_refused(again: str, model: type[BaseModel]) -> None:
    content: dict[str, object] = {"artifacts": [A, B, again]}
    if model is ArtifactConfigBody:
        content["generation"] = 1
    assert f"found {A} twice" in mistake(content, model)


@pytest.mark.parametrize(
    ("model", "content"),
    [
        (ArtifactConfigBody, {"generation": 1, "artifacts": []}),
        (ConfigResetBody, {"expected_generation": 1}),
        (CopyFromDepotBody, {"depot_base_url": "http://h:1"}),
        (PinBody, {"artifacts": []}),
    ],
)
def test_requests_refuse_unknown_missing_and_wrongly_typed_fields(
    model: type[BaseModel], content: dict[str, object]
) -> None:
    model.model_validate_json(json.dumps(content))
    assert mistake({**content, "extra": 1}, model).startswith("extra: ")
    for field in content:
        assert mistake({k: v for k, v in content.items() if k != field}, model).startswith(field)
        assert mistake({**content, field: {"wrong": "type"}}, model).startswith(field)


def test_answers_of_a_later_version_can_be_read() -> None:
    content = {"generation": 1, "list": {A: 2}, "added_later": True}
    assert ArtifactListBody.model_validate_json(json.dumps(content)).list == {A: 2}


def test_answers_are_as_strict_about_types() -> None:
    assert mistake({"generation": 1, "list": {A: "2"}}, ArtifactListBody).startswith("list.")


def test_the_first_of_many_wrong_hashes_is_the_only_one_reported() -> None:
    with pytest.raises(ValidationError) as caught:
        parse({"generation": 1, "artifacts": ["x"] * 100_000})
    assert caught.value.error_count() == 1


def test_sources_are_tried_once_each_in_the_order_given() -> None:
    body = CopyFromDepotBody(depot_base_url="http://a", depot_base_urls=("http://b", "http://a"))
    assert body.sources() == ("http://a", "http://b")


@pytest.mark.parametrize(
    "content",
    [
        {"depot_base_url": "http://a/" + "a" * fields.MAX_URL_LENGTH},
        {"depot_base_url": "http://a", "depot_base_urls": ["http://b"] * (fields.MAX_SOURCES + 1)},
    ],
)
def test_sources_are_bounded_in_length_and_number(content: dict[str, object]) -> None:
    mistake(content, CopyFromDepotBody)


def test_events_keep_the_fields_of_their_kind_and_times_are_utc() -> None:
    at = timestamp(1_700_000_000.5)
    event = {"sequence": 1, "time": at.isoformat(), "kind": "put", "sha256": A}
    page = EventsBody.model_validate_json(
        json.dumps({"epoch": "e", "oldest": 1, "latest": 1, "events": [event]})
    )
    assert page.events[0].time == datetime(2023, 11, 14, 22, 13, 20, 500_000, UTC)
    assert page.events[0].model_extra == {"sha256": A}
    assert json.loads(page.model_dump_json())["events"][0]["sha256"] == A


def test_a_time_that_is_not_known_has_no_timestamp() -> None:
    assert timestamp(None) is None
