from __future__ import annotations

import json

import pytest

from agent.api.long_bodies import parse_config, render_config, render_listing
from agent.wire.artifacts import ArtifactListBody
from agent.wire.config import ArtifactConfigBody
from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.errors import InvalidRequest
from depot.http.requests import parse_json
from depot.reading.answers import CopyCounts, Listing

MANY = [ArtifactHash.of(b"%d" % number) for number in range(3000)]
NAMES = [str(artifact) for artifact in MANY]
COUNTS = [0, 1, 2, 3000]


@pytest.mark.parametrize("count", COUNTS)
def test_a_config_is_written_as_its_model_is(count: int) -> None:
    config = ArtifactConfig.make(7, MANY[:count])
    assert render_config(config) == ArtifactConfigBody.of(config).model_dump_json().encode()


@pytest.mark.parametrize("count", COUNTS)
def test_a_listing_is_written_as_its_model_is(count: int) -> None:
    copies = {artifact: 1 + number % 2 for number, artifact in enumerate(MANY[:count])}
    listed = {str(artifact): copies[artifact] for artifact in sorted(copies)}
    body = ArtifactListBody(generation=7, list=listed)
    written = render_listing(Listing(Generation(7), copies))
    assert written == body.model_dump_json().encode()


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("upper", [False, True])
def test_a_config_is_read_however_it_is_written(
    count: int, indent: int | None, upper: bool
) -> None:
    names = [name.upper() if upper else name for name in NAMES[:count]]
    content = json.dumps({"artifacts": names, "generation": 7}, indent=indent).encode()
    assert parse_config(content) == ArtifactConfig.make(7, MANY[:count])


@pytest.mark.parametrize(
    "fields",
    [
        {"generation": 1, "artifacts": [NAMES[0], NAMES[0]]},
        {"generation": 1, "artifacts": [NAMES[0], NAMES[0].upper()]},
        {"generation": -1, "artifacts": NAMES[:2]},
        {"generation": True, "artifacts": NAMES[:2]},
        {"generation": "1", "artifacts": NAMES[:2]},
        {"generation": 1, "artifacts": NAMES[:2], "more": 1},
        {"generation": 1, "artifact": NAMES[:2]},
        {"generation": NAMES[:2], "artifacts": []},
        {"generation": NAMES[:2]},
        {"artifacts": NAMES[:2]},
        {"generation": 1, "artifacts": {"a": NAMES[:2]}},
        {"generation": 1, "artifacts": [NAMES[:2]]},
        {"generation": 1, "artifacts": [*NAMES[:2], "x"]},
        {"generation": 1, "artifacts": NAMES[0]},
        [NAMES[0]],
    ],
)
def test_a_body_that_is_no_config_is_refused_in_the_words_of_the_model(fields: object) -> None:
    content = json.dumps(fields).encode()
    with pytest.raises(InvalidRequest) as expected:
        parse_json(content, ArtifactConfigBody)
    with pytest.raises(InvalidRequest) as found:
        parse_config(content)
    assert str(found.value) == str(expected.value)


@pytest.mark.parametrize("twice", ["generation", "artifacts"])
def test_a_key_that_stands_twice_is_refused(twice: str) -> None:
    values = {"generation": "1", "artifacts": f'["{NAMES[0]}"]'}
    fields = [f'"{key}":{value}' for key, value in values.items()]
    content = f'{{{",".join(fields)},"{twice}":{values[twice]}}}'.encode()
    with pytest.raises(InvalidRequest, match=f"{twice}: expected once"):
        parse_config(content)


@pytest.mark.parametrize("count", [0, 1, 2048, 2049, 3000])
@pytest.mark.parametrize("datasets", [0, 1, 2, 3])
def test_copies_are_counted_in_order_and_those_without_any_left_out(
    count: int, datasets: int
) -> None:
    config = ArtifactConfig.make(7, MANY[:count])
    certain = [frozenset(MANY[number :: number + 2]) for number in range(datasets)]
    expected = {name: sum(name in here for here in certain) for name in sorted(config.artifacts)}
    copies = CopyCounts(config, certain)
    assert list(copies.items()) == [(name, n) for name, n in expected.items() if n]
    plain = Listing(Generation(7), dict(copies))
    assert render_listing(Listing(Generation(7), copies)) == render_listing(plain)


@pytest.mark.parametrize("lacking", [0, 1, 2, 40])
def test_of_what_is_known_to_lack_copies_alone_copies_are_counted(lacking: int) -> None:
    config = ArtifactConfig.make(7, MANY)
    some = MANY[: lacking * 50 : 50]
    certain = [frozenset(MANY).difference(some[::2]), frozenset(MANY).difference(some[::3])]
    known = CopyCounts(config, [here.intersection(some) for here in certain], frozenset(some))
    assert dict(known) == dict(CopyCounts(config, certain))
    assert list(known) == sorted(known)
    listings = [Listing(Generation(7), each) for each in (known, CopyCounts(config, certain))]
    assert render_listing(listings[0]) == render_listing(listings[1])
