from __future__ import annotations

import click
import pytest

from agent.cli.failures import ExitCode, Failure
from agent.cli.resolving import all_whole, hash_or_prefix, resolve

ONE = "11111111" + "a" * 56
TWIN = "11111111" + "b" * 56
OTHER = "2" * 64


def test_a_prefix_stands_for_the_one_hash_that_begins_with_it() -> None:
    assert resolve([ONE[:9], "22222222"], [ONE, TWIN, OTHER], "the sled") == [ONE, OTHER]


def test_a_whole_hash_passes_whether_it_is_known_or_not() -> None:
    assert resolve([OTHER], [], "the sled") == [OTHER]
    assert all_whole([OTHER])
    assert not all_whole([OTHER, ONE[:8]])


def test_the_same_artifact_named_twice_is_meant_once() -> None:
    assert resolve([OTHER, OTHER[:8]], [OTHER], "the sled") == [OTHER]


def test_a_prefix_of_two_is_refused_and_both_are_named() -> None:
    with pytest.raises(Failure, match="fits 2 artifacts") as caught:
        resolve([ONE[:8]], [ONE, TWIN], "the sled")
    assert caught.value.exit_code is ExitCode.USAGE
    assert ONE in caught.value.message
    assert TWIN in caught.value.message


def test_a_prefix_of_none_is_refused() -> None:
    with pytest.raises(Failure, match="no artifact of the sled begins with 33333333"):
        resolve(["33333333"], [ONE], "the sled")


@pytest.mark.parametrize("text", ["", "1234567", "g" * 64, "1" * 65, "../../../etc"])
def test_what_cannot_be_a_hash_is_a_usage_error(text: str) -> None:
    with pytest.raises(click.BadParameter):
        hash_or_prefix(text)


def test_a_hash_that_is_too_long_or_too_short_is_told_its_length() -> None:
    with pytest.raises(click.BadParameter, match="found 65 digits"):
        hash_or_prefix("1" * 65)
    with pytest.raises(click.BadParameter, match="found 7 digits"):
        hash_or_prefix("1234567")
    with pytest.raises(click.BadParameter, match="found 'xyz'"):
        hash_or_prefix("xyz")


def test_upper_case_is_taken() -> None:
    assert hash_or_prefix("ABCDEF01") == "abcdef01"
