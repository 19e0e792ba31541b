"""The fence, over every standing a ledger can have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.config import fencing
from depot.config.ledger import NO_LEDGER, Ledger, Resolved, Standing
from depot.errors import (
    ArtifactGeneration,
    ArtifactInUse,
    ConfigGeneration,
    DepotError,
    LedgerUnknown,
    NoConfig,
    NotInConfig,
)

X, Y, Z = (ArtifactHash.of(name) for name in (b"x", b"y", b"z"))
NOTHING: frozenset[ArtifactHash] = frozenset()


def config(generation: int, *artifacts: ArtifactHash) -> ArtifactConfig:
    return ArtifactConfig.make(generation, artifacts)


IN_FORCE = Ledger(0, config(5, X, Y))
NEWER = Ledger(0, config(8, Z))
STANDINGS = {
    Standing.CLEAR: Resolved(Standing.CLEAR, IN_FORCE, IN_FORCE.rank, certain=True),
    Standing.EMPTY: Resolved(Standing.EMPTY, NO_LEDGER, NO_LEDGER.rank, certain=True),
    Standing.CONFLICTED: Resolved(Standing.CONFLICTED, IN_FORCE, IN_FORCE.rank, certain=True),
    Standing.BEHIND: Resolved(Standing.BEHIND, IN_FORCE, NEWER.rank, certain=True),
    Standing.UNKNOWN: Resolved(Standing.UNKNOWN, NO_LEDGER, NO_LEDGER.rank, certain=False),
}
AFTER_RESET = Resolved(Standing.EMPTY, Ledger(3, None), Ledger(3, None).rank, certain=True)


def test_every_standing_is_here() -> None:
    assert set(STANDINGS) == set(Standing)


@pytest.mark.parametrize(
    ("standing", "proposed", "outcome"),
    [
        (Standing.CLEAR, config(6, X), True),
        (Standing.CLEAR, config(6, X, Y), True),
        (Standing.CLEAR, config(5, X, Y), False),
        (Standing.CLEAR, config(5, X), ConfigGeneration),
        (Standing.CLEAR, config(4, X, Y), ConfigGeneration),
        (Standing.EMPTY, config(0), True),
        (Standing.EMPTY, config(7, X), True),
        (Standing.CONFLICTED, config(6, X), True),
        (Standing.CONFLICTED, config(5, X, Y), ConfigGeneration),
        (Standing.CONFLICTED, config(5, X), ConfigGeneration),
        (Standing.CONFLICTED, config(4, X), ConfigGeneration),
        (Standing.BEHIND, config(9, X), True),
        (Standing.BEHIND, config(8, Z), True),
        (Standing.BEHIND, config(8, X), ConfigGeneration),
        (Standing.BEHIND, config(5, X, Y), ConfigGeneration),
        (Standing.UNKNOWN, config(9, X), LedgerUnknown),
        (Standing.UNKNOWN, config(0), LedgerUnknown),
    ],
)
def test_a_config_is_accepted_when_it_moves_forward(
    standing: Standing, proposed: ArtifactConfig, outcome: bool | type[DepotError]
) -> None:
    resolved = STANDINGS[standing]
    if isinstance(outcome, bool):
        assert fencing.accept_config(resolved, proposed, NOTHING) is outcome
    else:
        with pytest.raises(outcome):
            fencing.accept_config(resolved, proposed, NOTHING)


@given(st.integers(0, 20), st.frozensets(st.sampled_from([X, Y, Z])))
def test_g1_no_config_ever_moves_a_generation_backwards(
    generation: int, artifacts: frozenset[ArtifactHash]
) -> None:
    # Nor takes other contents of the same (G2), whatever the standing.
    for resolved in (*STANDINGS.values(), AFTER_RESET):
        proposed = ArtifactConfig.make(generation, artifacts)
        try:
            fencing.accept_config(resolved, proposed, NOTHING)
        except (ConfigGeneration, LedgerUnknown):
            continue
        assert proposed.generation >= resolved.floor.generation
        if proposed.generation == resolved.floor.generation:
            assert proposed.digest == resolved.floor.digest


def test_g2_a_refused_config_names_both_generations() -> None:
    with pytest.raises(ConfigGeneration, match="3 is older than the current 5") as refused:
        fencing.accept_config(STANDINGS[Standing.CLEAR], config(3), NOTHING)
    assert refused.value.details() == {"attempted_generation": 3, "current_generation": 5}


def test_after_a_reset_any_generation_is_accepted() -> None:
    assert fencing.accept_config(AFTER_RESET, config(0, X), NOTHING)


@pytest.mark.parametrize("standing", [Standing.CLEAR, Standing.CONFLICTED, Standing.EMPTY])
def test_a_config_may_not_drop_what_is_pinned(standing: Standing) -> None:
    resolved = STANDINGS[standing]
    with pytest.raises(ArtifactInUse) as refused:
        fencing.accept_config(resolved, config(9, Y), frozenset({X, Y, Z}))
    assert refused.value.artifacts == tuple(sorted((X, Z)))
    assert fencing.accept_config(resolved, config(9, X, Y), frozenset({X, Y}))


def test_an_older_config_is_refused_as_older_though_it_also_drops_a_pin() -> None:
    with pytest.raises(ConfigGeneration):
        fencing.accept_config(STANDINGS[Standing.CLEAR], config(4), frozenset({X}))


# Writes


@pytest.mark.parametrize(
    ("standing", "artifact", "generation", "refusal"),
    [
        (Standing.CLEAR, X, 5, None),
        (Standing.CLEAR, Z, 5, NotInConfig),
        (Standing.CLEAR, X, 4, ArtifactGeneration),
        (Standing.CLEAR, X, 6, ArtifactGeneration),
        (Standing.CLEAR, Z, 6, ArtifactGeneration),
        (Standing.EMPTY, X, 5, NoConfig),
        (Standing.EMPTY, X, 0, NoConfig),
        (Standing.CONFLICTED, X, 5, LedgerUnknown),
        (Standing.CONFLICTED, X, 4, ArtifactGeneration),
        (Standing.BEHIND, X, 8, LedgerUnknown),
        (Standing.BEHIND, X, 5, ArtifactGeneration),
        (Standing.UNKNOWN, X, 5, LedgerUnknown),
    ],
)
def test_a_write_begins_under_the_current_config_only(
    standing: Standing,
    artifact: ArtifactHash,
    generation: int,
    refusal: type[DepotError] | None,
) -> None:
    resolved = STANDINGS[standing]
    if refusal is None:
        fencing.check_write(resolved, artifact, Generation(generation))
        return
    with pytest.raises(refusal):
        fencing.check_write(resolved, artifact, Generation(generation))


@pytest.mark.parametrize(
    ("resolved", "artifact", "refusal"),
    [
        (STANDINGS[Standing.CLEAR], X, None),
        (STANDINGS[Standing.CLEAR], Z, ArtifactGeneration),
        (STANDINGS[Standing.EMPTY], X, NoConfig),
        (AFTER_RESET, X, NoConfig),
        (STANDINGS[Standing.CONFLICTED], X, LedgerUnknown),
        (STANDINGS[Standing.BEHIND], X, LedgerUnknown),
        (STANDINGS[Standing.UNKNOWN], X, LedgerUnknown),
    ],
)
@pytest.mark.parametrize("started", [0, 4, 5, 9])
def test_g5_a_write_lands_if_the_config_that_is_current_wants_it(
    resolved: Resolved, artifact: ArtifactHash, refusal: type[DepotError] | None, started: int
) -> None:
    # G5: under whichever generation it began.
    if refusal is None:
        fencing.check_commit(resolved, artifact, Generation(started))
        return
    with pytest.raises(refusal):
        fencing.check_commit(resolved, artifact, Generation(started))


# Deletes


def may_delete(
    resolved: Resolved,
    artifact: ArtifactHash,
    *,
    pinned: frozenset[ArtifactHash] = NOTHING,
    in_flight: frozenset[ArtifactHash] = NOTHING,
    now_s: float = 1000.0,
) -> bool:
    return fencing.may_delete(resolved, artifact, pinned=pinned, in_flight=in_flight, now_s=now_s)


def test_only_under_a_clear_config_is_anything_deleted() -> None:
    # D1
    allowed = [s for s, resolved in STANDINGS.items() if may_delete(resolved, Z)]
    assert allowed == [Standing.CLEAR]
    assert not may_delete(AFTER_RESET, Z)


def test_what_is_wanted_pinned_or_being_written_is_not_deleted() -> None:
    clear = STANDINGS[Standing.CLEAR]
    assert may_delete(clear, Z)
    assert not may_delete(clear, X)
    assert not may_delete(clear, Z, pinned=frozenset({Z}))
    assert not may_delete(clear, Z, in_flight=frozenset({Z}))
    assert may_delete(clear, Z, pinned=frozenset({X}), in_flight=frozenset({Y}))


@pytest.mark.parametrize(("now_s", "allowed"), [(0.0, False), (1599.9, False), (1600.0, True)])
def test_nothing_is_deleted_before_a_grace_period_is_over(now_s: float, allowed: bool) -> None:
    # D4
    ledger = Ledger(0, config(5, X), delete_not_before_s=1600.0)
    resolved = Resolved(Standing.CLEAR, ledger, ledger.rank, certain=True)
    assert may_delete(resolved, Z, now_s=now_s) is allowed


FOUR = [ArtifactHash.of(bytes([number])) for number in range(4)]


@pytest.mark.parametrize(
    ("kept", "graced"), [(4, False), (3, False), (2, False), (1, True), (0, True)]
)
def test_dropping_more_than_half_starts_a_grace_period(kept: int, graced: bool) -> None:
    current = Ledger(0, config(5, *FOUR))
    end_s = fencing.grace_end(current, config(6, *FOUR[:kept], X), now_s=1000.0, grace_s=600.0)
    assert end_s == (1600.0 if graced else 0.0)


@pytest.mark.parametrize(
    ("running_until_s", "kept", "end_s"),
    [(1300.0, 4, 1300.0), (1300.0, 0, 1600.0), (900.0, 4, 0.0), (9000.0, 0, 9000.0)],
)
def test_a_grace_period_that_runs_goes_on(running_until_s: float, kept: int, end_s: float) -> None:
    current = Ledger(0, config(5, *FOUR), delete_not_before_s=running_until_s)
    proposed = config(6, *FOUR[:kept])
    assert fencing.grace_end(current, proposed, now_s=1000.0, grace_s=600.0) == end_s


@pytest.mark.parametrize(("kept", "graced"), [(4, False), (2, False), (1, True), (0, True)])
def test_after_a_reset_what_is_stored_is_what_a_config_drops(kept: int, graced: bool) -> None:
    # D4
    reset = Ledger(1, None)
    end_s = fencing.grace_end(reset, config(1, *FOUR[:kept]), 1000.0, 600.0, frozenset(FOUR))
    assert end_s == (1600.0 if graced else 0.0)


def test_a_first_config_drops_nothing() -> None:
    assert fencing.grace_end(NO_LEDGER, config(0), now_s=1000.0, grace_s=600.0) == 0.0
