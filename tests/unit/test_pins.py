from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot import document
from depot.artifact import ArtifactHash
from depot.config.pins import MAX_PINNED, PinBook, decode_pins, encode_pins
from depot.dataset.small_files import MAX_DOCUMENT_BYTES
from depot.document import Unreadable
from depot.errors import FormatTooNew, InvalidRequest, TooLarge

X, Y = (ArtifactHash.of(name) for name in (b"x", b"y"))
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
artifacts = st.frozensets(st.sampled_from([X, Y]))


@given(st.dictionaries(names, artifacts, max_size=5))
def test_a_book_is_read_back_as_it_was_written(pins: dict[str, frozenset[ArtifactHash]]) -> None:
    book = PinBook()
    for name, held in pins.items():
        book = book.with_pin(name, held)
    assert decode_pins(encode_pins(book)) == book
    assert book.version == len(pins)
    assert list(book.pins) == sorted(pins)
    assert book.artifacts == frozenset().union(*pins.values())


def test_each_change_makes_a_newer_book_and_leaves_the_old_one() -> None:
    empty = PinBook()
    first = empty.with_pin("a", [X])
    second = first.with_pin("a", [Y])
    third = second.without_pin("a")
    assert [book.version for book in (empty, first, second, third)] == [0, 1, 2, 3]
    assert [book.artifacts for book in (first, second, third)] == [{X}, {Y}, set()]


@pytest.mark.parametrize("name", ["", ".", "-", "_", "..", "a/b", "a b", "a\n", "a" * 129, "é"])
def test_a_name_that_could_be_mistaken_for_something_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequest):
        PinBook().with_pin(name, [X])


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"version": 1},
        {"version": "1", "pins": {}},
        {"version": 1, "pins": []},
        {"version": 1, "pins": {"a": None}},
        {"version": 1, "pins": {"a": "ab" * 32}},
        {"version": 1, "pins": {"a": ["short"]}},
        {"version": 1, "pins": {"a": [7]}},
    ],
    ids=str,
)
def test_anything_else_under_an_intact_checksum_is_unreadable(fields: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        decode_pins(document.encode(fields, version=1))


def test_a_newer_book_is_refused() -> None:
    with pytest.raises(FormatTooNew, match=r"pins\.json"):
        decode_pins(document.encode({}, version=2))


def test_more_pins_than_can_be_read_back_are_refused() -> None:
    many = [ArtifactHash(number.to_bytes(32, "big")) for number in range(MAX_PINNED)]
    book = PinBook().with_pin("many", many)
    with pytest.raises(TooLarge, match="500001"):
        book.with_pin("one-more", many[:1])
    assert book.with_pin("many", many[:1]).artifacts == frozenset(many[:1])
    assert len(encode_pins(book)) < MAX_DOCUMENT_BYTES
