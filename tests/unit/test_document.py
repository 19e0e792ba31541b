from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from depot.document import Unreadable, decode, encode
from depot.errors import FormatTooNew

leaves = st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False)
fields_of_any_kind = st.dictionaries(
    st.text().filter(lambda key: key not in ("format", "checksum")),
    st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)),
    max_size=4,
)
EXAMPLE = encode({"generation": 7, "artifacts": ["ab" * 32], "grace": 0.5}, version=1)


@settings(max_examples=30)
@given(fields_of_any_kind, st.integers(1, 3))
def test_what_was_encoded_is_read_back(fields: dict[str, object], version: int) -> None:
    content = encode(fields, version=version)
    assert decode(content, name="x.json", newest=3) == {**fields, "format": version}


def test_the_fields_stand_in_the_order_given_with_the_checksum_last() -> None:
    assert list(json.loads(EXAMPLE)) == ["generation", "artifacts", "grace", "format", "checksum"]


@pytest.mark.parametrize("end", range(len(EXAMPLE.rstrip(b"\n"))))
def test_a_document_torn_anywhere_is_unreadable(end: int) -> None:
    with pytest.raises(Unreadable):
        decode(EXAMPLE[:end], name="x.json", newest=1)


@pytest.mark.parametrize("at", range(len(EXAMPLE) - 1))
@pytest.mark.parametrize("mask", [0x01, 0x10, 0x80])
def test_a_flipped_bit_anywhere_is_noticed_or_harmless(at: int, mask: int) -> None:
    damaged = bytearray(EXAMPLE)
    damaged[at] ^= mask
    try:
        fields = decode(bytes(damaged), name="x.json", newest=1)
    except (Unreadable, FormatTooNew):
        return
    assert fields == decode(EXAMPLE, name="x.json", newest=1)  # white space


@given(st.binary(max_size=200))
def test_no_bytes_at_all_are_more_than_unreadable(content: bytes) -> None:
    with pytest.raises((Unreadable, FormatTooNew)):
        decode(content, name="x.json", newest=1)


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"7", b"null", b"[" * 100_000, b'{"format": ' + b"9" * 5000 + b"}", b"\xff\xfe"],
    ids=["empty", "list", "number", "null", "deep", "huge number", "no text"],
)
def test_what_is_no_object_is_unreadable(content: bytes) -> None:
    with pytest.raises(Unreadable, match=r"x\.json"):
        decode(content, name="x.json", newest=1)


@pytest.mark.parametrize("version", [0, -1, True, "1", 1.0, None])
def test_a_format_is_a_positive_integer(version: object) -> None:
    with pytest.raises(Unreadable, match="format version"):
        decode(json.dumps({"format": version}).encode(), name="x.json", newest=1)


def test_a_newer_format_is_named_with_what_was_expected() -> None:
    content = encode({}, version=4)
    with pytest.raises(FormatTooNew, match=r"x\.json has format 4.*formats up to 3"):
        decode(content, name="x.json", newest=3)


def test_a_newer_format_may_have_another_checksum() -> None:
    with pytest.raises(FormatTooNew):
        decode(b'{"format": 2, "seal": "unheard of"}', name="x.json", newest=1)


def test_an_altered_version_is_damage_and_not_a_newer_program() -> None:
    altered = encode({"a": 1}, version=1).replace(b'"format": 1', b'"format": 9')
    with pytest.raises(Unreadable):
        decode(altered, name="x.json", newest=1)
