"""A judge that finds nothing wrong with what is wrong would prove nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from depot.artifact import ArtifactConfig, ArtifactHash
from depot.config.ledger import LEDGER_NAME, Ledger, encode_ledger
from depot.config.pins import PinBook, encode_pins
from tests.torture.history import Accepted, Event, History, content_of, name_of
from tests.torture.judge import Places, judge_dead, judge_settled

KEYS = ["one", "two"]


@pytest.fixture
def places(tmp_path: Path) -> Places:
    """Two datasets that hold both artifacts of generation 2."""
    datasets = (tmp_path / "a", tmp_path / "b")
    for dataset in datasets:
        (dataset / ".sled-depot/staging").mkdir(parents=True)
        write_ledger(dataset, 2, KEYS)
        for key in KEYS:
            (dataset / name_of(key)).write_bytes(content_of(key))
    return Places(datasets, tmp_path / "state")


def write_ledger(dataset: Path, generation: int, keys: list[str]) -> None:
    artifacts = (ArtifactHash.parse(name_of(key)) for key in keys)
    ledger = Ledger(0, ArtifactConfig.make(generation, artifacts))
    (dataset / LEDGER_NAME).write_bytes(encode_ledger(ledger))


def told(*events: Event) -> History:
    history = History(Accepted(0, 2, frozenset(KEYS)), copies=dict.fromkeys(KEYS, 2))
    for event in events:
        history.note(event)
    return history


def test_what_was_promised_and_is_there_is_well(places: Places) -> None:
    judge_dead(places, told())
    judge_settled(places, told())


def _flip(places: Places) -> None:
    path = places.datasets[1] / name_of("one")
    path.write_bytes(b"x" + path.read_bytes()[1:])


def _lose(places: Places) -> None:
    (places.datasets[0] / name_of("two")).unlink()


def _tear(places: Places) -> None:
    path = places.datasets[0] / LEDGER_NAME
    path.write_bytes(path.read_bytes()[:-9])


def _go_back(places: Places) -> None:
    for dataset in places.datasets:
        write_ledger(dataset, 1, KEYS)


def _change(places: Places) -> None:
    for dataset in places.datasets:
        write_ledger(dataset, 2, KEYS[:1])


def _overfill(places: Places) -> None:
    with (places.datasets[0] / ".sled-depot/staging/left").open("wb") as file:
        file.truncate(1 << 30)


@pytest.mark.parametrize(
    ("break_it", "rule"),
    [
        (_flip, "B1"),
        (_lose, "B3"),
        (_tear, "G3"),
        (_go_back, "G1"),
        (_change, "G1"),
        (_overfill, "Q1"),
    ],
)
def test_what_is_broken_is_named(
    places: Places, break_it: Callable[[Places], None], rule: str
) -> None:
    break_it(places)

    with pytest.raises(AssertionError, match=rule):
        judge_dead(places, told())


def test_a_config_that_was_begun_may_be_in_force_and_one_that_was_refused_may_not(
    places: Places,
) -> None:
    begun = {"what": "begun", "id": 1, "op": "config", "epoch": 0, "generation": 3, "keys": ["one"]}
    for dataset in places.datasets:
        write_ledger(dataset, 3, ["one"])

    judge_dead(places, told(begun))
    with pytest.raises(AssertionError, match="G1"):
        judge_dead(places, told(begun, {"what": "refused", "id": 1}))


def test_nothing_is_left_over_once_a_store_has_settled(places: Places) -> None:
    (places.datasets[0] / name_of("unwanted")).write_bytes(content_of("unwanted"))

    judge_dead(places, told())
    with pytest.raises(AssertionError, match="D3"):
        judge_settled(places, told())


def write_pins(dataset: Path, version: int, *names: str) -> None:
    one = frozenset({ArtifactHash.parse(name_of("one"))})
    book = PinBook(version, dict.fromkeys(names, one))
    (dataset / ".sled-depot/pins.json").write_bytes(encode_pins(book))


@pytest.mark.parametrize("stale", [(1, ()), (1, ("first",)), (2, ("other",)), None])
def test_pins_that_stayed_stale_on_one_dataset_are_named(
    places: Places, stale: tuple[int, tuple[str, ...]] | None
) -> None:
    first, second = places.datasets
    pinned = told()
    pinned.pins = {"first": frozenset({"one"}), "second": frozenset({"one"})}
    write_pins(first, 2, *pinned.pins)
    write_pins(second, 2, *pinned.pins)
    judge_settled(places, pinned)

    if stale is None:
        (second / ".sled-depot/pins.json").unlink()
    else:
        write_pins(second, stale[0], *stale[1])

    with pytest.raises(AssertionError, match="pins"):
        judge_settled(places, pinned)
