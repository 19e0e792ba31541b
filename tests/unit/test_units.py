from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.units import (
    Address,
    format_size,
    parse_address,
    parse_duration,
    parse_limit,
    parse_size,
    shown,
)


@pytest.mark.parametrize(
    ("value", "size_bytes"),
    [
        ("20GiB", 20 * 2**30),
        ("512 MiB", 512 * 2**20),
        ("1KiB", 1024),
        ("2TiB", 2**41),
        ("7B", 7),
        ("4096", 4096),
        (4096, 4096),
    ],
)
def test_sizes_are_binary_units_or_plain_bytes(value: object, size_bytes: int) -> None:
    assert parse_size(value) == size_bytes


@pytest.mark.parametrize(
    "value",
    [
        "20 gigs",
        "20GB",
        "20G",
        "20gib",
        "1.5GiB",
        "-1GiB",
        "",
        "GiB",
        "٣GiB",
        -1,
        1.5,
        True,
        None,
        [],
    ],
)
def test_anything_else_is_not_a_size(value: object) -> None:
    with pytest.raises(ValueError, match='expected a size such as "20GiB", found'):
        parse_size(value)


@pytest.mark.parametrize("value", [0, "0GiB", "9999999TiB", 2**70])
def test_a_size_is_more_than_nothing_and_less_than_absurd(value: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_size(value)


@given(st.integers(1, 2**60))
def test_a_formatted_size_reads_back_exactly(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("value", "duration_s"),
    [("30s", 30), ("10m", 600), ("24h", 86400), ("7d", 604800), ("1h30m", 5400), ("0s", 0)],
)
def test_durations_are_sums_of_whole_units(value: object, duration_s: float) -> None:
    assert parse_duration(value) == duration_s


@pytest.mark.parametrize("value", ["10", 10, 1.5, "10 m", "m", "", "-1s", "1w", "1.5h", True, None])
def test_anything_else_is_not_a_duration(value: object) -> None:
    with pytest.raises(ValueError, match="expected a duration such as"):
        parse_duration(value)


def test_a_duration_is_at_most_ten_years() -> None:
    with pytest.raises(ValueError, match="at most ten years"):
        parse_duration("99999d")


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("127.0.0.1:12345", Address("127.0.0.1", 12345)),
        ("[::1]:0", Address("::1", 0)),
        ("[fe80::1%eth0]:1", Address("fe80::1%eth0", 1)),
        ("sled-7.rack.example:65535", Address("sled-7.rack.example", 65535)),
    ],
)
def test_addresses_round_trip(value: str, address: Address) -> None:
    assert parse_address(value) == address
    assert str(address) == value


@pytest.mark.parametrize(
    "value",
    [
        "",
        "127.0.0.1",
        ":80",
        "::1:80",
        "[::1]",
        "[::1:80",
        "[1.2.3.4]:80",
        "a:65536",
        "a:-1",
        "a:x",
    ],
)
def test_anything_else_is_not_an_address(value: str) -> None:
    with pytest.raises(ValueError, match='expected "host:port"'):
        parse_address(value)


@pytest.mark.parametrize("value", [12345, None, ["a:1"]])
def test_only_a_string_is_an_address(value: object) -> None:
    with pytest.raises(ValueError, match='expected "host:port"'):
        parse_address(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [("a\nb", '"a\\nb"'), (True, "true"), (7, "7"), ({}, "a table"), ([1], "an array")],
)
def test_values_are_shown_as_they_would_be_written(value: object, text: str) -> None:
    assert shown(value) == text


def test_a_long_value_is_shown_shortened() -> None:
    assert len(shown("x" * 10_000)) == 80


@pytest.mark.parametrize("value", [0, "0"])
def test_zero_is_no_limit(value: object) -> None:
    assert parse_limit(value) == 0


@pytest.mark.parametrize(("value", "bytes_per_s"), [("10MiB", 10 * 2**20), (1, 1)])
def test_a_limit_is_a_size(value: object, bytes_per_s: int) -> None:
    assert parse_limit(value) == bytes_per_s


@pytest.mark.parametrize("value", ["0B", -1, False, None, "none"])
def test_anything_else_is_no_limit_at_all(value: object) -> None:
    with pytest.raises(ValueError, match="expected a size"):
        parse_limit(value)
