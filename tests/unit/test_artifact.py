from __future__ import annotations

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.artifact import (
    MAX_GENERATION,
    ArtifactConfig,
    ArtifactHash,
    Generation,
    in_order,
    shared,
)
from depot.errors import InvalidRequest

digests = st.binary(min_size=32, max_size=32)
configs = st.builds(
    ArtifactConfig.make,
    st.integers(0, MAX_GENERATION),
    st.frozensets(st.builds(ArtifactHash, digests), max_size=5),
)


@given(digests)
def test_a_hash_is_written_in_lower_case_and_read_in_either(digest: bytes) -> None:
    artifact = ArtifactHash(digest)
    assert str(artifact) == digest.hex()
    assert ArtifactHash.parse(digest.hex()) == ArtifactHash.parse(digest.hex().upper()) == artifact


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 63,
        "a" * 65,
        "g" * 64,
        " " + "a" * 63,
        "a" * 64 + "\n",
        "a" * 62 + "/.",
        "../" + "a" * 61,
        "a" * 63 + "\x00",
        "٣" * 64,
        "0x" + "a" * 62,
    ],
)
def test_anything_but_64_hex_characters_is_no_hash(text: str) -> None:
    with pytest.raises(InvalidRequest):
        ArtifactHash.parse(text)


@given(st.text())
def test_no_text_makes_a_hash_that_is_not_64_hex_characters(text: str) -> None:
    try:
        parsed = ArtifactHash.parse(text)
    except InvalidRequest:
        return
    assert str(parsed) == text.lower()


@pytest.mark.parametrize("size_bytes", [0, 31, 33, 64])
def test_a_digest_of_another_length_is_no_hash(size_bytes: int) -> None:
    with pytest.raises(InvalidRequest):
        ArtifactHash(bytes(size_bytes))


@given(st.lists(digests), st.binary(max_size=31))
def test_hashes_one_after_the_other_are_cut_apart(many: list[bytes], left: bytes) -> None:
    found = ArtifactHash.divide(b"".join(many) + left)
    assert found == [ArtifactHash(digest) for digest in many]
    assert all(type(artifact) is ArtifactHash for artifact in found)


@given(st.lists(digests.map(ArtifactHash)))
def test_artifacts_are_ordered_as_their_names_are(artifacts: list[ArtifactHash]) -> None:
    assert list(in_order(artifacts)) == sorted(artifacts, key=str)


@given(digests)
def test_a_hash_comes_back_from_another_process_as_what_it_was(digest: bytes) -> None:
    there = pickle.loads(pickle.dumps(ArtifactHash(digest), protocol=5))
    assert type(there) is ArtifactHash
    assert there == ArtifactHash(digest)
    assert type(there.digest) is bytes


def test_the_hash_of_some_content_is_its_sha256() -> None:
    assert str(ArtifactHash.of(b"")) == (
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )


@pytest.mark.parametrize("value", [-1, 2**63, True, False, 1.0, "1", None])
def test_a_generation_is_a_plain_integer_in_range(value: object) -> None:
    with pytest.raises(InvalidRequest):
        Generation(value)  # type: ignore[arg-type]  # what JSON may hold


@pytest.mark.parametrize("value", [0, 1, 2**53 + 1, MAX_GENERATION])
def test_a_generation_is_read_from_its_digits(value: int) -> None:
    assert Generation.parse(str(value)) == value


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", "1e3", " 1", "1\n", "0x1", "٣", "9" * 20])
def test_anything_but_digits_is_no_generation(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Generation.parse(text)


def test_2_to_the_63_in_digits_is_no_generation() -> None:
    with pytest.raises(InvalidRequest, match=r"2\^63-1"):
        Generation.parse(str(2**63))


@given(configs, configs)
def test_equal_configs_and_only_they_have_equal_digests(
    first: ArtifactConfig, second: ArtifactConfig
) -> None:
    assert (first == second) == (first.digest == second.digest)


@given(configs)
def test_a_digest_does_not_depend_on_the_order_of_the_hashes(config: ArtifactConfig) -> None:
    reverse = ArtifactConfig.make(config.generation, sorted(config.artifacts, reverse=True))
    assert reverse.digest == config.digest


def test_artifacts_that_are_shared_are_the_objects_that_were_there_before() -> None:
    known = [ArtifactHash.of(bytes([number])) for number in range(3)]
    asked = [ArtifactHash(bytes(known[2])), ArtifactHash.of(b"new"), ArtifactHash(bytes(known[0]))]
    found = list(shared(asked, known))
    assert found == asked
    assert found[0] is known[2]
    assert found[1] is asked[1]
    assert found[2] is known[0]
