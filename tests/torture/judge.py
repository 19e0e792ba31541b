"""Judging the datasets of a dead store by what its history says, with `tests.ondisk` alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests import ondisk
from tests.ondisk import LedgerFile
from tests.torture.history import Accepted, History, name_of

QUOTA_BYTES: Final = 40 << 20


@dataclass(frozen=True)
class Places:
    """Where a store keeps its things."""

    datasets: tuple[Path, ...]
    state_dir: Path


def judge_dead(places: Places, history: History) -> None:
    """Judge what a crash left on every dataset, before anything is opened.

    All of them must be there: what was acknowledged may be on one only.

    Raises:
        AssertionError: naming the invariant, the dataset and what was found.
    """
    for index, dataset in enumerate(places.datasets):
        hurt = {name_of(key) for key, where in history.rotten.items() if where == index}
        wrong = set(ondisk.wrong_bytes(dataset)) - hurt
        assert wrong == set(), f"B1 {dataset} {wrong}"
        assert ondisk.stored_bytes(dataset) <= QUOTA_BYTES, f"Q1 {dataset}"
    in_force = _in_force(places.datasets, history)
    _judge_copies(places.datasets, history.promised(in_force))
    _judge_pins(places.datasets, history)


def judge_settled(places: Places, history: History) -> None:
    """Judge datasets that were healed, reconciled and closed in peace."""
    rotten = sorted(history.rotten.keys() & history.wanted())
    assert rotten == [], f"B5 not healed: {rotten}"
    judge_dead(places, history)
    wanted = {name_of(key) for key in history.wanted()}
    for dataset in places.datasets:
        ledger = ondisk.read_ledger(dataset)
        assert ledger is not None, f"G3 no ledger on {dataset}"
        assert history.accepted.is_in(ledger), f"G4 {dataset} is at {ledger.position}"
        found = ondisk.artifact_files(dataset).keys()
        if history.accepted.keys is not None:
            assert found <= wanted, f"D3 orphans on {dataset}: {sorted(found - wanted)}"
        promised = {name_of(key) for key in history.promised(history.accepted)}
        assert promised <= found, f"B5 not healed on {dataset}: {sorted(promised - found)}"
        assert ondisk.staged_files(dataset) == [], f"Q3 {dataset}"
    _judge_pins_settled(places.datasets)
    assert ondisk.staged_files(places.state_dir) == [], "Q3 state_dir"


def _in_force(datasets: Sequence[Path], history: History) -> Accepted:
    ledgers = [_ledger(dataset) for dataset in datasets]
    known = history.possible()
    for dataset, ledger in zip(datasets, ledgers, strict=True):
        if ledger is not None and ledger.position >= history.accepted.position:
            assert any(c.is_in(ledger) for c in known), f"G1 {dataset} is at {ledger.position}"
    newest = max((x.position for x in ledgers if x is not None), default=(0, -1))
    assert newest >= history.accepted.position, (
        f"G1 acknowledged {history.accepted.position}, the newest ledger is {newest}"
    )
    return next(config for config in known if config.position == newest)


def _ledger(dataset: Path) -> LedgerFile | None:
    try:
        return ondisk.read_ledger(dataset)
    except ValueError as error:
        raise AssertionError(f"G3 torn ledger on {dataset}: {error}") from error


def _judge_copies(datasets: Iterable[Path], promised: dict[str, int]) -> None:
    files = [ondisk.artifact_files(dataset).keys() | _set_aside(dataset) for dataset in datasets]
    found = {key: sum(name_of(key) in names for names in files) for key in promised}
    missing = {k: (found[k], count) for k, count in promised.items() if found[k] < count}
    assert missing == {}, f"B3 (found, promised) {missing}"


def _set_aside(dataset: Path) -> set[str]:
    # Not decided on yet: these get their names back when the dataset is attached.
    leaving = (path.name for path in ondisk.staged_files(dataset))
    return {name.removeprefix("leaving-") for name in leaving if name.startswith("leaving-")}


def _judge_pins(datasets: Iterable[Path], history: History) -> None:
    books = [book for dataset in datasets if (book := _book(dataset)) is not None]
    _, newest = max(books, key=lambda book: book[0], default=(0, {}))
    possible = [_named(pins) for pins in history.possible_pins()]
    assert newest in possible, f"pins: found {newest}, expected one of {possible}"


def _judge_pins_settled(datasets: Iterable[Path]) -> None:
    """The newest book is one of those that may be; on every dataset it has to be the same."""
    books = {dataset: _book(dataset) for dataset in datasets}
    newest = max(books.values(), key=lambda book: -1 if book is None else book[0])
    stale = {str(dataset): book for dataset, book in books.items() if book != newest}
    assert stale == {}, f"pins: the newest are {newest}, older ones are on {stale}"


def _book(dataset: Path) -> tuple[int, dict[str, list[str]]] | None:
    try:
        fields = json.loads((dataset / ondisk.METADATA / "pins.json").read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise AssertionError(f"torn pins on {dataset}: {error}") from error
    return fields["version"], {name: sorted(held) for name, held in fields["pins"].items()}


def _named(pins: dict[str, frozenset[str]]) -> dict[str, list[str]]:
    return {name: sorted(map(name_of, keys)) for name, keys in pins.items()}
