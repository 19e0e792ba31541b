from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.artifact import ArtifactHash
from depot.hash_lists import cut, texts

artifacts = st.binary(min_size=32, max_size=32).map(ArtifactHash)
gaps = st.sampled_from([",", ", ", ",\n  ", "\t,\r\n"])
# More than are done in one stride.
MANY = [ArtifactHash.of(b"%d" % number) for number in range(5000)]
A, B, C = (str(artifact) for artifact in MANY[:3])


@pytest.mark.parametrize("count", [1, 2, 2047, 2048, 2049, 4096, 5000])
@pytest.mark.parametrize("gap", [",", ",\n  "])
def test_hashes_are_written_as_a_json_writer_does_and_read_back(count: int, gap: str) -> None:
    some = MANY[:count]
    written = "".join(texts(some, gap))
    assert json.loads(f"[{written}]") == list(map(str, some))
    found = cut(f'{{"a": 1, "b": [ {written}\n]}}'.encode())
    assert found is not None
    assert found.hashes == some
    assert json.loads(found.rest) == {"a": 1, "b": []}


@given(st.lists(artifacts, min_size=1, max_size=6), gaps)
def test_whatever_stands_between_hashes_it_is_the_same_everywhere(
    some: list[ArtifactHash], gap: str
) -> None:
    found = cut(f"[{''.join(texts(some, gap))}]".encode())
    assert found is not None
    assert found.hashes == some


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '[""]',
        "][",
        f'["{A[:-1]}"]',
        f'["{A}0"]',
        f'["{A}" "{B}"]',
        f'["{A}","{B}" "{C}"]',
        f'["{A}","{B}","{C}",]',
        f'["{A}",,"{B}"]',
        f'["{A}","{B}", "{C}"]',
        f'["{A}", "{B}","{C}" ]',
        f'["{A}",7]',
        f'[7,"{A}"]',
        f'["{A}",["{B}"]]',
        f'{{"a": ["{A}"], "b": ["{B}"]}}',
        f'{{"a": "[", "b": ["{B}"]}}',
        f'{{"a": ["{B}"], "b": "]"}}',
        f'{{"a": "[\\"{A}\\"]"}}',
        f'["{A[:32]} {A[33:]}"]',
        f'["{A[:32]}é{A[33:]}"]',
        f'["{A.upper()}"]',
        f'["{A}"x"{B}"]',
        f"[{A}]",
    ],
)
def test_what_is_not_a_plain_array_of_hashes_is_left_to_a_parser(content: str) -> None:
    assert cut(content.encode()) is None


def test_upper_case_is_read_where_it_may_stand() -> None:
    found = cut(f'["{A.upper()}","{B}"]'.encode(), any_case=True)
    assert found is not None
    assert found.hashes == MANY[:2]


@given(st.integers(0, 68 * 3), st.integers(0, 255))
def test_one_byte_that_is_wrong_is_noticed_or_harmless(at: int, byte: int) -> None:
    content = bytearray(f'["{A}", "{B}", "{C}"]'.encode())
    content[min(at, len(content) - 1)] = byte
    found = cut(bytes(content))
    if found is not None:
        assert list(map(str, found.hashes)) == json.loads(content)


@pytest.mark.parametrize("at", [2047, 2048, 4096])
@pytest.mark.parametrize("wrong", [b'"', b"[", b"x", b" ", b"\\"])
def test_a_wrong_byte_between_two_strides_is_noticed(at: int, wrong: bytes) -> None:
    content = bytearray(b"[" + "".join(texts(MANY, ",")).encode() + b"]")
    content[at * 67] = wrong[0]
    assert cut(bytes(content)) is None
