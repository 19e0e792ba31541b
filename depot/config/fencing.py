"""The fence: may this config be accepted, may this write land, may this file be deleted.

Pure decisions over frozen values; each raises the refusal of the contract or returns. The store
asks them on the event loop, so an answer holds until the next await.
"""

from __future__ import annotations

from collections.abc import Collection, Set

from depot.artifact import ArtifactConfig, ArtifactHash, Generation
from depot.config.ledger import Ledger, Rank, Resolved, Standing
from depot.errors import (
    ArtifactGeneration,
    ArtifactInUse,
    ConfigGeneration,
    LedgerUnknown,
    NoConfig,
    NotInConfig,
)


def accept_config(resolved: Resolved, proposed: ArtifactConfig, pinned: Set[ArtifactHash]) -> bool:
    """Tell whether `proposed` changes anything; False for the identical config (G2).

    Raises:
        LedgerUnknown: a first config while an expected ledger cannot be seen (B4).
        ConfigGeneration: older than what was accepted, or its equal with other contents.
        ArtifactInUse: a pinned artifact would be dropped.
    """
    if resolved.standing is Standing.UNKNOWN:
        raise LedgerUnknown(
            "an expected dataset is missing or its ledger cannot be read, so a config may have "
            "been accepted before; bring the dataset back, or override with 'sled-agent init "
            "--force'"
        )
    floor = resolved.floor
    # With CONFLICTED, the same generation stays refused whichever side it agrees with (G4).
    same = (int(proposed.generation), proposed.digest) == (floor.generation, floor.digest)
    if same and resolved.standing is not Standing.CONFLICTED:
        return resolved.standing is not Standing.CLEAR
    if int(proposed.generation) <= floor.generation:
        raise _config_conflict(resolved, proposed.generation)
    dropped = sorted(pinned - proposed.artifacts)
    if dropped:
        raise ArtifactInUse(dropped)
    return True


def check_open(refused: Rank, proposed: Rank) -> None:
    """Check that `proposed` goes with what was refused, and what a dataset may have (G4).

    Raises:
        LedgerUnknown: that was a reset.
        ConfigGeneration: that was a config of the same generation or a higher one.
    """
    if proposed == refused or proposed.position > refused.position:
        return
    if refused.generation < 0:
        raise LedgerUnknown(
            "a reset failed, and a dataset may have it nevertheless; reset again, or restart the "
            "agent"
        )
    raise ConfigGeneration(
        f"generation {refused.generation} was refused, and a dataset may have it nevertheless; "
        "send that one again, or a higher one",
        Generation(proposed.generation),
        Generation(refused.generation),
    )


def _config_conflict(resolved: Resolved, attempted: Generation) -> ConfigGeneration:
    current = Generation(resolved.floor.generation)
    if attempted < current:
        message = f"config generation {attempted} is older than the current {current}"
    else:
        message = f"config generation {attempted} was accepted before with other contents"
    return ConfigGeneration(message, attempted, current)


def check_config_known(resolved: Resolved) -> ArtifactConfig:
    """Return the config that is in force.

    Raises:
        NoConfig: there is none.
        LedgerUnknown: there is one, but which cannot be told (G1, G4).
    """
    if resolved.config is not None:
        return resolved.config
    if resolved.standing is Standing.EMPTY:
        raise NoConfig
    raise LedgerUnknown(_WHY_UNKNOWN[resolved.standing].format(resolved.floor.generation))


_WHY_UNKNOWN = {
    Standing.CONFLICTED: "the datasets hold different configs of generation {}; "
    "a config with a higher generation resolves it",
    Standing.BEHIND: "generation {} was accepted, but no dataset here has its config; bring the "
    "missing dataset back, or send a config with a higher generation",
    Standing.UNKNOWN: "no dataset has a readable ledger; bring back the dataset that has one",
}


def check_write(resolved: Resolved, artifact: ArtifactHash, generation: Generation) -> None:
    """Check that a put or copy made for `generation` may start.

    Raises:
        NoConfig, ArtifactGeneration, LedgerUnknown, NotInConfig: in this order of importance.
    """
    floor = resolved.floor.generation
    if resolved.standing is not Standing.EMPTY and floor >= 0 and int(generation) != floor:
        raise ArtifactGeneration(
            f"the request is for generation {generation}, the current one is {floor}",
            generation,
            Generation(floor),
        )
    config = check_config_known(resolved)
    if artifact not in config.artifacts:
        raise NotInConfig(f"{artifact} is not in the config of generation {config.generation}")


def check_commit(resolved: Resolved, artifact: ArtifactHash, started: Generation) -> None:
    """Check that a write begun under `started` may land now (G5).

    Raises:
        ArtifactGeneration: the artifact is not in the config that is current now.
        LedgerUnknown: which config is current cannot be told.
        NoConfig: a reset took the config away.
    """
    config = check_config_known(resolved)
    if artifact not in config.artifacts:
        raise ArtifactGeneration(
            f"{artifact} left the config: the write began under generation {started}, "
            f"the current one is {config.generation}",
            started,
            config.generation,
        )


def may_delete(
    resolved: Resolved,
    artifact: ArtifactHash,
    *,
    pinned: Collection[ArtifactHash],
    in_flight: Collection[ArtifactHash],
    now_s: float,
) -> bool:
    """Tell whether a stored file may be unlinked now (D1, D4); never without a config."""
    config = resolved.config
    if config is None or now_s < resolved.ledger.delete_not_before_s:
        return False
    return not (artifact in config.artifacts or artifact in pinned or artifact in in_flight)


def grace_end(
    current: Ledger,
    proposed: ArtifactConfig,
    now_s: float,
    grace_s: float,
    stored: Set[ArtifactHash] = frozenset(),
) -> float:
    """Unix time before which nothing is deleted under `proposed` (D4).

    A config that drops more than half of the artifacts starts a grace period; one that is still
    running goes on. Without a config, after a reset, what is `stored` is what there is to drop.
    """
    held = current.config.artifacts if current.config else stored
    dropped = held - proposed.artifacts
    starts = now_s + grace_s if 2 * len(dropped) > len(held) else 0.0
    return max(starts, current.delete_not_before_s if current.delete_not_before_s > now_s else 0.0)
