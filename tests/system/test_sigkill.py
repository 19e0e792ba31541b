"""SIGKILL in the middle of puts, copies and reconciles, then what is on the disks is judged.

Rules kept here:

- What is killed when is drawn from one seed, which is part of every failure's message:
  `SIGKILL_SEED=… SIGKILL_RUNS=… pytest tests/system/test_sigkill.py` draws the same again.
- A kill comes from a timer that starts with the request's first bytes; nothing sleeps.
- The disks are read with `tests.ondisk`, never with the store.
- Where each kill landed is read from the disks too. The range of the delays follows what is found,
  and enough kills must land inside each kind of operation.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import pytest

from tests import ondisk
from tests.system.agents import RunningAgent
from tests.system.asking import Answer, ask, await_status, put, put_config
from tests.system.crashing import (
    EventFollower,
    Killer,
    Promise,
    is_settled,
    judge_dead,
    judge_settled,
    send,
)

MIB: Final = 1 << 20
RUNS: Final = int(os.environ.get("SIGKILL_RUNS", "30"))
SEED: Final = int(os.environ.get("SIGKILL_SEED", secrets.randbelow(1 << 32)))
QUOTA_BYTES: Final = 192 * MIB
SIZES_MIB: Final = (4, 32)
USUAL_MIB: Final = 16
AT_SOURCE: Final = 5
KEPT: Final = 2
DOOMED: Final = 200
FAIR_SHARE: Final = 8
"""One kill in so many, at the least, lands inside its operation; half of them usually do."""
SETTLED_WITHIN_S: Final = 60.0


class Kind(StrEnum):
    PUT = "put"
    COPY = "copy"
    RECONCILE = "reconcile"


class Moment(StrEnum):
    """Where a kill landed, as the disks show it."""

    BEFORE = "before"
    INSIDE = "inside"
    AFTER = "after"


@dataclass
class Contents:
    """Artifacts that are cheap to make and all different."""

    rng: random.Random
    noise: bytes = field(init=False)

    def __post_init__(self) -> None:
        self.noise = self.rng.randbytes(SIZES_MIB[1] * MIB)

    def make(self, size_bytes: int) -> bytes:
        return self.rng.randbytes(32) + self.noise[: size_bytes - 32]

    def any_size(self) -> bytes:
        return self.make(self.rng.randint(SIZES_MIB[0] * MIB, SIZES_MIB[1] * MIB))


class Campaign:
    """One agent that is killed over and over, and the peer it copies from."""

    def __init__(self, victim: RunningAgent, source: RunningAgent, rng: random.Random) -> None:
        self.victim = victim
        self.source = source
        self.rng = rng
        self.contents = Contents(rng)
        self.promise = Promise()
        self.events = EventFollower()
        self.landed: Counter[tuple[Kind, Moment]] = Counter()
        self.at_source: dict[str, int] = {}
        # By kind: the longest delay, in seconds for an operation of the usual size.
        self.horizon_s = dict.fromkeys(Kind, 0.0)

    # ---- before the first kill

    def warm_up(self) -> None:
        """Fill the source, and do each operation once without a kill to see how long it takes."""
        artifacts = [self.contents.any_size() for _ in range(AT_SOURCE)]
        self.at_source = {ondisk.sha256(content): len(content) for content in artifacts}
        assert put_config(self.source, 1, *self.at_source).status == 204
        for content in artifacts:
            assert put(self.source, ondisk.sha256(content), 1, content).status == 200
        self.events.follow(self.victim)
        for kind in Kind:
            operation = self._prepare(kind)
            begun_s = time.monotonic()
            operation.run(lambda: None)
            operation.await_end()
            self.horizon_s[kind] = (time.monotonic() - begun_s) / operation.weight
            self._settle()

    # ---- one kill

    def strike(self, kind: Kind) -> None:
        """Kill in the operation, judge, restart, judge again."""
        operation = self._prepare(kind)
        delay_s = self.rng.uniform(0, self.horizon_s[kind] * operation.weight)
        killer = Killer(self.victim, delay_s)
        operation.run(killer.start)
        if operation.acknowledged:
            killer.now()  # an acknowledged write is judged as soon as it was acknowledged
        killer.wait()
        assert killer.struck, "the connection was lost before the kill"
        self.victim.kill()
        self.events.join()

        moment = operation.moment()
        self.landed[kind, moment] += 1
        self.horizon_s[kind] *= {Moment.BEFORE: 1.2, Moment.INSIDE: 1.0, Moment.AFTER: 0.85}[moment]
        judge_dead(self.victim, self.promise, QUOTA_BYTES)
        operation.judge_dead()
        self._restart()
        operation.finish()
        self._settle()

    def _restart(self) -> None:
        staged_before = {p.name for d in self.victim.datasets for p in ondisk.staged_files(d)}
        self.victim.start()
        staged = {p.name for d in self.victim.datasets for p in ondisk.staged_files(d)}
        # Artifacts that were set aside keep their name when they are set aside again.
        left = {name for name in staged & staged_before if not name.startswith("leaving-")}
        assert left == set(), "Q3"
        self.events.follow(self.victim)
        self._adopt_config()

    def _adopt_config(self) -> None:
        body = ask(self.victim.agent_url, "/artifacts-config").body
        found = body["generation"], frozenset(body["artifacts"])
        assert found in self.promise.possible(), f"G1: found {found[0]}"
        if found[0] > self.promise.generation:
            self.promise.accepted(found[1])
        self.promise.attempted = None

    def _settle(self) -> None:
        self._await_settled()
        judge_settled(self.victim, self.promise)
        status = self._await_settled()  # also after what it went on with meanwhile (Q1)
        assert self.events.reused == []
        assert len(self.events.epochs) == 1, "the numbers of events were not kept"
        assert status["events"]["persistent"]

    def _await_settled(self) -> dict[str, Any]:
        wanted = self.promise.artifacts
        return await_status(
            self.victim,
            lambda status: is_settled(self.victim, status, wanted),
            within_s=SETTLED_WITHIN_S,
        )

    # ---- operations

    def _prepare(self, kind: Kind) -> Operation:
        match kind:
            case Kind.PUT:
                return PutOperation(self)
            case Kind.COPY:
                return CopyOperation(self)
            case Kind.RECONCILE:
                return ReconcileOperation(self)

    def next_config(self, *added: str) -> None:
        """Accept a config of what was promised last, and `added`."""
        kept = list(self.promise.copies)[-KEPT:]
        artifacts = frozenset((*kept, *added))
        assert put_config(self.victim, self.promise.generation + 1, *artifacts).status == 204
        self.promise.accepted(artifacts)


class Operation:
    """What is killed. Made ready by its constructor.

    Attributes:
        weight: how long it takes, compared with one of the usual size.
        acknowledged: it has ended, and the client was told.
    """

    weight = 1.0
    acknowledged = False

    def __init__(self, campaign: Campaign) -> None:
        self.campaign = campaign
        self.victim = campaign.victim
        self.promise = campaign.promise

    def run(self, on_first_bytes: Callable[[], None]) -> None:
        """Send the request and wait for its end, or for that of the agent."""
        raise NotImplementedError

    def moment(self) -> Moment:
        """Where the kill landed; called while the agent is dead."""
        raise NotImplementedError

    def await_end(self) -> None:
        """Wait until its effects are over, when nobody kills."""

    def judge_dead(self) -> None:
        """Judge what is particular to the operation, before the restart."""

    def finish(self) -> None:
        """What a client does after the restart."""


class ArtifactOperation(Operation):
    sha256: str

    def moment(self) -> Moment:
        if self.acknowledged:
            return Moment.AFTER
        datasets = self.victim.datasets
        named = any((path / self.sha256).exists() for path in datasets)
        return Moment.INSIDE if named or any(map(ondisk.staged_files, datasets)) else Moment.BEFORE

    def promised(self, copies: int) -> None:
        self.acknowledged = True
        self.promise.copies[self.sha256] = copies


class PutOperation(ArtifactOperation):
    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign)
        self.content = campaign.contents.any_size()
        self.sha256 = ondisk.sha256(self.content)
        self.weight = len(self.content) / (USUAL_MIB * MIB)
        campaign.next_config(self.sha256)

    def run(self, on_first_bytes: Callable[[], None]) -> None:
        path = f"/artifacts/{self.sha256}?generation={self.promise.generation}"
        self._note(send(self.victim, "PUT", path, self.content, on_first_bytes))

    def finish(self) -> None:
        if not self.acknowledged:
            self._note(put(self.victim, self.sha256, self.promise.generation, self.content))
            assert self.acknowledged

    def _note(self, answer: Answer | None) -> None:
        if answer is not None:
            assert answer.status == 200, answer
            assert answer.body == {"datasets": 2, "successful_writes": 2}
            self.promised(answer.body["successful_writes"])


class CopyOperation(ArtifactOperation):
    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign)
        kept = list(self.promise.copies)[-KEPT:]
        there = sorted(campaign.at_source.keys() - self.promise.artifacts - set(kept))
        self.sha256 = campaign.rng.choice(there)
        self.weight = campaign.at_source[self.sha256] / (USUAL_MIB * MIB)
        campaign.next_config(self.sha256)

    def run(self, on_first_bytes: Callable[[], None]) -> None:
        path = f"/artifacts/{self.sha256}/copy-from-depot?generation={self.promise.generation}"
        body = json.dumps({"depot_base_url": self.campaign.source.depot_url}).encode()
        answer = send(self.victim, "POST", path, body, on_first_bytes)
        if answer is None:
            return
        assert answer.status == 202, answer
        copied = self.campaign.events.find("copied", copy_id=answer.body["copy_id"])
        if copied is not None:
            self.promised(copied["copies"])


class ReconcileOperation(Operation):
    """A config that drops many artifacts at once.

    Their files are put beside the kept ones by hand, which is faster and for the agent the same:
    it finds them when it looks at the disks.
    """

    def __init__(self, campaign: Campaign) -> None:
        super().__init__(campaign)
        doomed = [campaign.contents.make(1000) for _ in range(DOOMED)]
        self.doomed = {ondisk.sha256(content): content for content in doomed}
        campaign.next_config(*self.doomed)
        for dataset in self.victim.datasets:
            for name, content in self.doomed.items():
                _plant(dataset, name, content)
        self.kept = self.promise.artifacts - self.doomed.keys()

    def run(self, on_first_bytes: Callable[[], None]) -> None:
        self.promise.attempted = self.kept
        config = {"generation": self.promise.generation + 1, "artifacts": sorted(self.kept)}
        body = json.dumps(config).encode()
        answer = send(self.victim, "PUT", "/artifacts-config", body, on_first_bytes)
        if answer is not None:
            assert answer.status == 204, answer
            self.promise.accepted(self.kept)

    def moment(self) -> Moment:
        left = self._left()
        if left == len(self.victim.datasets) * DOOMED:
            return Moment.BEFORE
        return Moment.INSIDE if left else Moment.AFTER

    def judge_dead(self) -> None:
        for dataset in self.victim.datasets:
            ledger = ondisk.read_ledger(dataset)
            if ledger is None or ledger.artifacts != self.kept:
                # G3: on every dataset before anything acts on it.
                assert self.moment() is Moment.BEFORE, f"deleted without a ledger on {dataset}"

    def await_end(self) -> None:
        for name in self.doomed:
            assert self.campaign.events.find("deleted", sha256=name)

    def finish(self) -> None:
        if self.promise.artifacts != self.kept:
            self.campaign.next_config()

    def _left(self) -> int:
        return sum(
            len(ondisk.artifact_files(dataset).keys() & self.doomed.keys())
            for dataset in self.victim.datasets
        )


def _plant(dataset: Path, name: str, content: bytes) -> None:
    hidden = dataset / f".{name}"
    hidden.write_bytes(content)
    hidden.rename(dataset / name)


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    env = {
        "SLED_AGENT__STORAGE__DELETE_GRACE": "0s",
        "SLED_AGENT__STORAGE__QUOTA": str(QUOTA_BYTES),
    }
    with ExitStack() as stack:
        source = stack.enter_context(RunningAgent(tmp_path / "source"))
        victim = stack.enter_context(RunningAgent(tmp_path / "victim", env=env))
        yield Campaign(victim, source, random.Random(SEED))


@pytest.mark.long
@pytest.mark.timeout(120 + 12 * RUNS)
def test_no_kill_at_any_moment_breaks_a_promise(
    campaign: Campaign, record_property: Callable[[str, object], None]
) -> None:
    kinds = [list(Kind)[index % len(Kind)] for index in range(RUNS)]
    campaign.rng.shuffle(kinds)
    try:
        campaign.warm_up()
        for kind in kinds:
            campaign.strike(kind)
    except BaseException as error:
        error.add_note(f"SIGKILL_SEED={SEED} SIGKILL_RUNS={RUNS}; {_shown(campaign.landed)}")
        raise
    for kind in Kind:
        inside, struck = campaign.landed[kind, Moment.INSIDE], kinds.count(kind)
        assert inside >= struck // FAIR_SHARE, (
            f"of {kind}: {_shown(campaign.landed)}; SIGKILL_SEED={SEED}"
        )

    record_property("said", f"SIGKILL_SEED={SEED}: {_shown(campaign.landed)}")


def _shown(landed: Counter[tuple[Kind, Moment]]) -> str:
    return ", ".join(f"{kind} {moment}: {landed[kind, moment]}" for kind, moment in sorted(landed))
