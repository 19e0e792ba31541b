from __future__ import annotations

import tomllib
from collections.abc import Iterator

import pytest

from agent.config.toml_lines import Path, key_lines, line_of

DOCUMENT = '''\
# a comment, then a blank line

sled_id = "x"
storage.quota = "1GiB"
"quoted \\u00e9".'literal' . bare = 1
inline = { a = 1, b.c = """
two lines""" }
array = [
  "first", # with a comment
  [
    1, 2],
  { x = 1 },
]

[copy]
idle_timeout_s = 1

[[datasets]]
path = "a"

[datasets.deep]
z = 1

[[datasets]]

[[datasets]]
path = "c"
'''


def places(value: object, place: Path = ()) -> Iterator[Path]:
    """Every place in a parsed document."""
    if place:
        yield place
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*place, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from places(inner, (*place, index))


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("sled_id",), 3),
        (("storage",), 4),
        (("storage", "quota"), 4),
        (("quoted é", "literal", "bare"), 5),
        (("inline", "a"), 6),
        (("inline", "b", "c"), 6),
        (("array",), 8),
        (("array", 0), 9),
        (("array", 1), 10),
        (("array", 1, 1), 11),
        (("array", 2, "x"), 12),
        (("copy",), 15),
        (("copy", "idle_timeout_s"), 16),
        (("datasets",), 18),
        (("datasets", 0), 18),
        (("datasets", 0, "path"), 19),
        (("datasets", 0, "deep", "z"), 22),
        (("datasets", 1), 24),
        (("datasets", 2, "path"), 27),
    ],
)
def test_each_key_has_its_line(place: Path, line: int) -> None:
    assert key_lines(DOCUMENT)[place] == line


def test_every_place_of_a_document_has_a_line_and_nothing_else_does() -> None:
    assert set(key_lines(DOCUMENT)) == set(places(tomllib.loads(DOCUMENT)))


def test_a_key_that_is_not_there_has_the_line_of_the_table_around_it() -> None:
    assert line_of(("datasets", 1, "path"), key_lines(DOCUMENT)) == 24
    assert line_of(("nothing",), key_lines(DOCUMENT)) is None
