"""Which ledger is believed (G1, G2, G4), over every combination of what two datasets may say."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.artifact import MAX_GENERATION, ArtifactConfig, ArtifactHash
from depot.config.ledger import (
    NO_LEDGER,
    Attestation,
    Ledger,
    Rank,
    Readings,
    Resolved,
    Standing,
    decode_ledger,
    decode_witness,
    encode_ledger,
    encode_witness,
    resolve,
)
from depot.document import Unreadable
from depot.errors import FormatTooNew

X, Y = (ArtifactHash.of(name) for name in (b"x", b"y"))


def ledger(generation: int, *artifacts: ArtifactHash, epoch: int = 0) -> Ledger:
    return Ledger(epoch, ArtifactConfig.make(generation, artifacts))


# "Same" is what the reference dataset says.
LEDGERS = {
    "older": ledger(4, X),
    "same": ledger(5, X),
    "same generation, other contents": ledger(5, Y),
    "newer": ledger(6, X),
    "epoch raised": ledger(1, X, epoch=1),
    "reset": Ledger(1, None),
    "declared empty": NO_LEDGER,
}
AWAY, UNREADABLE, ABSENT = "away", "unreadable", "absent"
SAYINGS = [*LEDGERS, AWAY, UNREADABLE, ABSENT]

WITNESSES: dict[str, Rank | None] = {
    "no witness": None,
    "behind": ledger(3, X).rank,
    "equal": ledger(5, X).rank,
    "same position, other digest": ledger(5, Y).rank,
    "ahead": ledger(9, X).rank,
    "ahead by a reset": Ledger(2, None).rank,
    "ahead by a reset and a config": ledger(0, X, epoch=2).rank,
}

EVERYTHING = list(itertools.product(SAYINGS, SAYINGS, WITNESSES))


@dataclass(frozen=True)
class Case:
    said: tuple[str, ...]
    witness: Rank | None

    @property
    def ledgers(self) -> list[Ledger]:
        return [LEDGERS[saying] for saying in self.said if saying in LEDGERS]

    @property
    def unseen(self) -> int:
        return sum(saying in (AWAY, UNREADABLE) for saying in self.said)

    def resolve(self) -> Resolved:
        absent = len(self.said) - len(self.ledgers) - self.unseen
        return resolve(Readings(self.ledgers, absent, self.unseen), self.witness)

    def ranks(self) -> list[Rank]:
        known = [] if self.witness is None else [self.witness]
        return [found.rank for found in self.ledgers] + known


CASES = [Case((first, second), WITNESSES[name]) for first, second, name in EVERYTHING]


def test_the_floor_is_the_highest_position_anybody_knows() -> None:
    # G1: nothing below what was ever accepted and can still be known.
    for case in CASES:
        highest = max((rank.position for rank in case.ranks()), default=NO_LEDGER.rank.position)
        assert case.resolve().floor.position == highest, case


def test_g4_only_a_config_that_nobody_contradicts_or_surpasses_is_acted_on() -> None:
    for case in CASES:
        resolved = case.resolve()
        if resolved.config is None:
            continue
        assert resolved.ledger.rank.position == resolved.floor.position, case
        rivals = {rank for rank in case.ranks() if rank.position == resolved.floor.position}
        assert rivals == {resolved.ledger.rank}, case


def test_the_standing_follows_from_who_knows_the_highest_position() -> None:
    for case in CASES:
        resolved = case.resolve()
        top = {rank for rank in case.ranks() if rank.position == resolved.floor.position}
        on_disk = {found.rank for found in case.ledgers}
        expected = Standing.CLEAR
        if not top:
            expected = Standing.UNKNOWN if case.unseen else Standing.EMPTY
        elif len(top) > 1:
            expected = Standing.CONFLICTED
        elif next(iter(top)).digest is None:
            expected = Standing.EMPTY
        elif not top & on_disk:
            expected = Standing.BEHIND
        assert resolved.standing is expected, case


def test_it_makes_no_difference_which_dataset_says_what() -> None:
    for case in CASES:
        swapped = Case(case.said[::-1], case.witness).resolve()
        resolved = case.resolve()
        assert (swapped.standing, swapped.floor.position, swapped.certain) == (
            resolved.standing,
            resolved.floor.position,
            resolved.certain,
        )
        assert swapped.config == resolved.config


def test_the_generation_is_certain_unless_something_unseen_could_be_newer() -> None:
    for case in CASES:
        assert case.resolve().certain == (case.witness is not None or not case.unseen), case


def test_g1_what_is_unseen_never_lowers_what_is_believed() -> None:
    for case in CASES:
        for index in (0, 1):
            said = list(case.said)
            said[index] = AWAY
            without = Case(tuple(said), case.witness).resolve()
            assert without.floor.position <= case.resolve().floor.position


@pytest.mark.parametrize(
    ("said", "witness", "standing", "generation"),
    [
        (("same", "same"), "equal", Standing.CLEAR, 5),
        (("same", "older"), "equal", Standing.CLEAR, 5),
        (("same", "newer"), "equal", Standing.CLEAR, 6),
        (("same", UNREADABLE), "no witness", Standing.CLEAR, 5),
        (("same", "same generation, other contents"), "equal", Standing.CONFLICTED, 5),
        (("newer", "same generation, other contents"), "behind", Standing.CLEAR, 6),
        (("older", AWAY), "equal", Standing.BEHIND, 5),
        (("newer", "epoch raised"), "equal", Standing.CLEAR, 1),
        (("newer", "reset"), "equal", Standing.EMPTY, -1),
        (("same", AWAY), "ahead by a reset", Standing.EMPTY, -1),
        (("same", AWAY), "ahead by a reset and a config", Standing.BEHIND, 0),
        (("same", "same"), "same position, other digest", Standing.CONFLICTED, 5),
        ((ABSENT, ABSENT), "no witness", Standing.EMPTY, -1),
        ((ABSENT, AWAY), "no witness", Standing.UNKNOWN, -1),
        ((ABSENT, ABSENT), "equal", Standing.BEHIND, 5),
        (("declared empty", AWAY), "no witness", Standing.EMPTY, -1),
    ],
)
def test_the_cases_a_reader_asks_about(
    said: tuple[str, ...], witness: str, standing: Standing, generation: int
) -> None:
    resolved = Case(said, WITNESSES[witness]).resolve()
    assert (resolved.standing, resolved.floor.generation) == (standing, generation)


def test_of_equal_ledgers_the_longer_grace_counts() -> None:
    config = ArtifactConfig.make(5, [X])
    found = [Ledger(0, config, grace) for grace in (0.0, 99.0, 50.0)]
    assert resolve(Readings(found), None).ledger.delete_not_before_s == 99.0


def test_the_grace_of_an_older_ledger_does_not_count() -> None:
    found = [Ledger(0, ArtifactConfig.make(4, [X]), 99.0), ledger(5, X)]
    assert resolve(Readings(found), None).ledger.delete_not_before_s == 0.0


# On disk


hashes = st.builds(ArtifactHash, st.binary(min_size=32, max_size=32))
configs = st.builds(
    ArtifactConfig.make, st.integers(0, MAX_GENERATION), st.frozensets(hashes, max_size=4)
)
ledgers = st.builds(
    Ledger,
    st.integers(0, 2**63),
    st.none() | configs,
    st.floats(0, 2**40, allow_nan=False),
)


@given(ledgers)
def test_a_ledger_is_read_back_as_it_was_written(written: Ledger) -> None:
    assert decode_ledger(encode_ledger(written)) == written


@given(ledgers, st.none() | st.text())
def test_a_witness_is_read_back_as_it_was_written(written: Ledger, sled_id: str | None) -> None:
    for certain in (True, False):
        said = Attestation(written.rank, sled_id, certain)
        assert decode_witness(encode_witness(said)) == said


def test_a_ledger_begins_with_its_generation() -> None:
    assert encode_ledger(ledger(12, X)).startswith(b'{\n "generation": 12,')


def test_the_reference_format_is_epoch_zero() -> None:
    content = json.dumps({"generation": 5, "artifacts": [str(X), str(X).upper()]}).encode()
    assert decode_ledger(content) == ledger(5, X)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"generation": 5},
        {"artifacts": []},
        {"generation": "5", "artifacts": []},
        {"generation": 5.0, "artifacts": []},
        {"generation": True, "artifacts": []},
        {"generation": -1, "artifacts": []},
        {"generation": 2**63, "artifacts": []},
        {"generation": 5, "artifacts": None},
        {"generation": 5, "artifacts": {}},
        {"generation": 5, "artifacts": "ab" * 32},
        {"generation": 5, "artifacts": [7]},
        {"generation": 5, "artifacts": ["../../etc/passwd"]},
        {"generation": 5, "artifacts": [], "delete_not_before_s": "soon"},
        {"generation": 5, "artifacts": [], "epoch": 0},
        {"generation": 5, "artifacts": [], "checksum": "none"},
    ],
    ids=str,
)
def test_anything_else_without_a_format_is_unreadable(fields: dict[str, object]) -> None:
    with pytest.raises(Unreadable):
        decode_ledger(json.dumps(fields).encode())


@given(st.binary(max_size=300))
def test_no_bytes_make_reading_a_ledger_fail_otherwise(content: bytes) -> None:
    with pytest.raises((Unreadable, FormatTooNew)):
        decode_ledger(content)


@pytest.mark.parametrize("at", range(0, len(encode_ledger(LEDGERS["same"])), 3))
def test_one_changed_character_is_never_another_ledger(at: int) -> None:
    content = bytearray(encode_ledger(LEDGERS["same"]))
    content[at] = ord("7") if content[at] != ord("7") else ord("8")
    with pytest.raises((Unreadable, FormatTooNew)):
        decode_ledger(bytes(content))


def test_a_ledger_of_another_sled_is_unreadable_and_both_are_named() -> None:
    ledger = Ledger(0, ArtifactConfig.make(5, []))
    content = encode_ledger(ledger, "sled-7")
    assert decode_ledger(content, "sled-7") == decode_ledger(content) == ledger
    assert decode_ledger(encode_ledger(ledger), "sled-7") == ledger  # from before it was written
    with pytest.raises(Unreadable, match="sled-7, this is sled sled-9"):
        decode_ledger(content, "sled-9")


def test_a_newer_ledger_is_refused_with_both_formats_named() -> None:
    with pytest.raises(FormatTooNew, match=r"artifact-config\.json has format 7.* up to 1"):
        decode_ledger(b'{"generation": 5, "format": 7}')
