from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot import document
from depot.dataset.marker import Marker, decode_marker, encode_marker
from depot.errors import DatasetUnusable, FormatTooNew

PATH = Path("/m2/a")
MARKER = Marker("dataset-1", ("dataset-2",), "sled-1")


@given(st.text(), st.lists(st.text(), max_size=3), st.text(), st.lists(st.text(), max_size=3))
def test_a_marker_is_read_back_as_it_was_written(
    dataset_id: str, siblings: list[str], sled_id: str, retired: list[str]
) -> None:
    marker = Marker(dataset_id, tuple(siblings), sled_id, tuple(retired))
    assert decode_marker(encode_marker(marker), PATH) == marker


def test_a_marker_of_an_older_program_has_retired_nobody() -> None:
    fields = {"dataset_id": "dataset-1", "siblings": ["dataset-2"], "sled_id": "sled-1"}
    assert decode_marker(document.encode(fields, version=1), PATH) == MARKER


@pytest.mark.parametrize("end", [0, 1, 10, len(encode_marker(MARKER)) // 2])
def test_a_torn_marker_names_its_dataset(end: int) -> None:
    with pytest.raises(DatasetUnusable, match="/m2/a"):
        decode_marker(encode_marker(MARKER)[:end], PATH)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"dataset_id": "a", "siblings": []},
        {"dataset_id": 1, "siblings": [], "sled_id": "s"},
        {"dataset_id": "a", "siblings": None, "sled_id": "s"},
        {"dataset_id": "a", "siblings": [], "sled_id": None},
        {"dataset_id": "a", "siblings": [], "sled_id": "s", "retired": "b"},
    ],
    ids=str,
)
def test_a_marker_that_says_too_little_is_no_marker(fields: dict[str, object]) -> None:
    with pytest.raises(DatasetUnusable, match="lacks"):
        decode_marker(document.encode(fields, version=1), PATH)


def test_a_newer_marker_is_refused() -> None:
    with pytest.raises(FormatTooNew, match=r"marker\.json has format 2"):
        decode_marker(document.encode({}, version=2), PATH)
