"""The store against its model: any sequence of verbs, faults and returns keeps the invariants.

`MODEL_EXAMPLES=2000 pytest tests/model` searches further than the fixed slice of `make test`; add
`--hypothesis-seed=N` to repeat a search.
"""

from __future__ import annotations

import errno
import os
from typing import Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from depot import ArtifactConfig, ArtifactHash, Generation
from depot.config.ledger import LEDGER_NAME, encode_ledger
from depot.config.ledger import Ledger as LedgerDocument
from depot.dataset.small_files import STAGING
from depot.device.host import DeviceWorkers
from depot.errors import NoDataset, NotFound
from depot.mirrors.open_artifact import OpenArtifact
from tests import ondisk
from tests.model import oracle
from tests.model.checks import Checks
from tests.model.rig import NAMES, POOL, LivePut, Rig, hashes
from tests.model.state import Disk, Ledger, Slot

EXAMPLES: Final = int(os.environ.get("MODEL_EXAMPLES", "120"))
SEARCH: Final = "MODEL_EXAMPLES" in os.environ

a_number = st.integers(0, 11)
some_numbers = st.frozensets(a_number, min_size=1, max_size=6)
a_slot = st.integers(0, 1)
mostly = st.sampled_from([True, True, True, False])
an_end = st.sampled_from([*["right"] * 4, "wrong", "short", "long", "lost", "cancel", "leave"])
a_change = st.sampled_from(["more", "more", "less", "less", "half", "none", "other", "reset"])


class StoreMachine(RuleBasedStateMachine):
    """Drives one store on two datasets; numbers stand for artifacts, mostly for wanted ones."""

    group_commit = False
    workers = DeviceWorkers.THREAD

    def __init__(self) -> None:
        super().__init__()
        self.rig = Rig(group_commit=self.group_commit, workers=self.workers)
        self.sled = self.rig.sled
        self.checks = Checks()

    @initialize(grace=st.booleans(), wanted=st.sampled_from([None, 4, 7, len(NAMES)]))
    def start(self, grace: bool, wanted: int | None) -> None:
        for slot in self.sled.slots:
            self.rig.install(slot)
        self.rig.open(grace=grace)
        if wanted is not None:
            self.rig.put_config(1, frozenset(NAMES[:wanted]))

    def teardown(self) -> None:
        self.rig.demolish()

    @invariant()
    def everything_holds(self) -> None:
        self.checks.look(self.rig)

    def _name(self, number: int) -> str:
        wanted = sorted(self.sled.ledger.artifacts)
        return wanted[number % len(wanted)] if wanted and number < 11 else NAMES[number - 2]

    def _names(self, numbers: frozenset[int]) -> frozenset[str]:
        return frozenset(map(self._name, numbers))

    # Putting artifacts

    @rule(number=a_number, known_length=st.booleans(), counted=st.booleans(), end=an_end)
    def put(self, number: int, known_length: bool, counted: bool, end: str) -> None:
        live = self._begin(number, 0, known_length, counted)
        if live:
            self._finish(live, end)

    @rule(number=a_number, known_length=mostly)
    def put_every_wrong_way(self, number: int, known_length: bool) -> None:
        for end in ("short", "long", "wrong", "lost", "leave"):
            self.put(number, known_length, counted=True, end=end)

    @rule(numbers=some_numbers)
    def put_several(self, numbers: frozenset[int]) -> None:
        for number in sorted(numbers):
            self.put(number, known_length=True, counted=True, end="right")

    @rule(
        number=a_number,
        lag=st.sampled_from([0, 0, 0, 0, -1, 1]),
        known_length=st.booleans(),
        counted=st.booleans(),
        streaming=st.booleans(),
    )
    def begin_put(
        self, number: int, lag: int, known_length: bool, counted: bool, streaming: bool
    ) -> None:
        live = self._begin(number, lag, known_length, counted)
        # A file that cannot be begun leaves no trace to wait for: such a stream is not left open.
        if live and streaming and all(slot.truthful for slot in self.sled.attached):
            self.rig.stream(live)

    @precondition(lambda self: self.rig.lives)
    @rule(which=st.integers(0, 3), end=an_end)
    def finish_put(self, which: int, end: str) -> None:
        self._finish(self.rig.lives[which % len(self.rig.lives)], end)

    @rule(
        number=a_number,
        known_length=st.booleans(),
        streaming=st.booleans(),
        change=a_change,
        half_there=st.none() | a_slot,
    )
    def change_the_config_during_a_put(
        self, number: int, known_length: bool, streaming: bool, change: str, half_there: int | None
    ) -> None:
        if half_there is not None:
            self.put(number, known_length, counted=False, end="right")
            self._remove(self._disk(half_there), self._name(number))
        live = self._begin(number, 0, known_length, counted=False)
        if not live:
            return
        if streaming and all(slot.truthful for slot in self.sled.attached):
            self.rig.stream(live)
        self._change_config(change, frozenset({number}))
        self.reconcile()
        self._finish(live, "right")

    @rule(number=a_number, change=a_change, half_there=st.none() | a_slot, reconciled=st.booleans())
    def change_the_config_while_a_put_gets_its_name(
        self, number: int, change: str, half_there: int | None, reconciled: bool
    ) -> None:
        """G5: what the fence let pass before its batch is asked again after it."""
        if half_there is not None:
            self.put(number, known_length=True, counted=False, end="right")
            self._remove(self._disk(half_there), self._name(number))
        if not (self.rig.can_hang and all(slot.truthful for slot in self.sled.attached)):
            return
        live = self._begin(number, 0, known_length=True, counted=False)
        if not live:
            return
        hangs = self.rig.send_up_to_its_name(live)
        self._change_config(change, frozenset({number}))
        if reconciled:
            self.reconcile()
        self.rig.land(live, hangs)

    def _begin(self, number: int, lag: int, known_length: bool, counted: bool) -> LivePut | None:
        copies = sum(not put.counted for put in self.sled.puts)
        if not counted and copies >= oracle.MAX_PUTS:
            return None  # bounded by whoever makes copies
        name = self._name(number)
        generation = max(0, self.sled.floor.generation + lag)
        length_bytes = len(POOL[name]) if known_length else None
        return self.rig.begin_put(name, generation, length_bytes, counted=counted)

    def _finish(self, live: LivePut, end: str) -> None:
        right = POOL[live.model.name]
        if end == "leave" and not live.receiving:
            self.rig.leave(live)
        elif end in ("leave", "cancel"):
            self.rig.cancel(live)
        elif end == "lost":
            self.rig.lose(live, right)
        else:
            others = {"wrong": right[:-1] + b"#", "short": right[:-1], "long": right + b"#"}
            self.rig.send(live, others.get(end, right))

    # Config, pins, reset

    @rule(change=a_change, numbers=some_numbers)
    def change_config(self, change: str, numbers: frozenset[int]) -> None:
        self._change_config(change, numbers)

    @rule(back=st.sampled_from([0, 0, 1, 2]), same=mostly, numbers=some_numbers)
    def put_config_again(self, back: int, same: bool, numbers: frozenset[int]) -> None:
        generation = max(0, self.sled.floor.generation - back)
        artifacts = self.sled.floor.artifacts if same else self._names(numbers)
        self.rig.put_config(generation, artifacts)

    def _change_config(self, change: str, numbers: frozenset[int]) -> None:
        if change == "reset":
            self._reset(self.sled.floor.generation - (0 in numbers))
            return
        held = self.sled.ledger.artifacts
        any_names = frozenset(NAMES[number % len(NAMES)] for number in numbers)
        artifacts = {
            "more": held | any_names,
            "less": held - self._names(numbers),
            "half": frozenset(sorted(held)[: len(held) // 2]),
            "none": frozenset[str](),
            "other": any_names,
        }[change]
        step = 2 if change == "other" else 1
        self.rig.put_config(max(0, self.sled.floor.generation + step), artifacts)

    def _reset(self, generation: int) -> None:
        generation = max(0, generation)
        expected = self.sled.reset(generation)
        self.rig.expect(expected, self.rig.store.reset(Generation(generation)))

    @rule(pin=st.sampled_from(["boot", "host"]), numbers=st.none() | some_numbers)
    def change_pin(self, pin: str, numbers: frozenset[int] | None) -> None:
        if numbers is None:
            self.rig.expect(self.sled.delete_pin(pin), self.rig.store.delete_pin(pin))
            return
        artifacts = self._names(numbers)
        expected = self.sled.put_pin(pin, artifacts)
        self.rig.expect(expected, self.rig.store.put_pin(pin, hashes(artifacts)))

    # Reading and duties

    @rule()
    def read_every_artifact(self) -> None:
        for name in NAMES:
            holder, opened = self._open(name)
            if holder and opened:
                with opened:
                    self._read(holder, opened)

    def _read(self, holder: Slot, opened: OpenArtifact) -> None:
        name = str(opened.sha256)
        try:
            content = _checked(opened)
        except OSError as error:
            assert holder.attached is not None
            assert name in holder.attached.tampered
            self.rig.store.read_failed(opened, error)
            holder.copies[name].damaged = True
        else:
            assert content == POOL[name], "B2"

    @rule(number=a_number)
    def fail_a_read(self, number: int) -> None:
        holder, opened = self._open(self._name(number))
        if holder and opened:
            with opened:
                self.rig.store.read_failed(opened, OSError(errno.EIO, "bad sector"))
            holder.copies[str(opened.sha256)].damaged = True

    def _open(self, name: str) -> tuple[Slot | None, OpenArtifact | None]:
        holder = self.sled.open_copy(name)
        refusal = None if holder else (NotFound if self.sled.attached else NoDataset)
        opened = self.rig.expect(refusal, self.rig.store.open_artifact(ArtifactHash.parse(name)))
        if opened:
            assert holder is not None
            assert opened.dataset == holder.index, (name, holder.path)
        return holder, opened

    @rule()
    def reconcile(self) -> None:
        self.rig.may_go = self.sled.reconcile()
        assert self.rig.runner.run(self.rig.store.reconcile()) == len(self.rig.may_go)

    @rule()
    def want_everything_again_during_a_delete(self) -> None:
        generation = self.sled.floor.generation + 1
        deleted = self.rig.put_config_during_a_delete(generation, frozenset(NAMES))
        if deleted is not None:
            assert deleted == len(self.sled.reconcile()) == 0

    @rule()
    def remirror(self) -> None:
        healed = self.sled.remirror()
        assert self.rig.runner.run(self.rig.store.remirror()) == healed

    @rule()
    def check_datasets(self) -> None:
        self.rig.check_datasets()

    @rule()
    def put_everything_right(self) -> None:
        """What an operator would do: without it, most of a long run has nothing to work with."""
        for slot in self.sled.slots:
            if not slot.present:
                self.rig.bring_back(slot, slot.shelf[-1])
        self.rig.check_datasets()
        if not self.sled.wanted:
            self.rig.put_config(max(0, self.sled.floor.generation + 1), frozenset(NAMES[:7]))

    # Ends and beginnings

    @rule(grace=st.booleans(), leftovers=st.integers(0, 2))
    def restart(self, grace: bool, leftovers: int) -> None:
        self.rig.close()
        for root in (*(disk.path for disk in self.rig.disks), self.rig.state_dir):
            for number in range(leftovers):  # as a crash would leave them
                (root / STAGING / f"dead{number}").write_bytes(b"half a file")
        self.rig.open(grace=grace)

    # Datasets go, come, change and rot

    @rule(index=a_slot, noticed=st.booleans(), replaced=st.booleans())
    def take_a_dataset_away(self, index: int, noticed: bool, replaced: bool) -> None:
        slot = self.sled.slots[index]
        self.rig.take_away(slot)
        if replaced and len(slot.shelf) < 3:
            self.rig.install(slot)
        if noticed:
            self.rig.check_datasets()

    @rule(index=a_slot, which=st.integers(0, 2), noticed=mostly)
    def bring_a_dataset_back(self, index: int, which: int, noticed: bool) -> None:
        slot = self.sled.slots[index]
        if slot.shelf:
            self.rig.bring_back(slot, slot.shelf[which % len(slot.shelf)])
        if noticed:
            self.rig.check_datasets()

    @rule(
        index=a_slot,
        ahead=st.sampled_from([-1, 0, 0, 1, 1, 3]),
        older_epoch=st.booleans(),
        numbers=some_numbers,
        stored=st.sampled_from(["no", "put", "pinned"]),
        back=mostly,
    )
    def let_a_dataset_live_another_life_elsewhere(
        self,
        index: int,
        ahead: int,
        older_epoch: bool,
        numbers: frozenset[int],
        stored: str,
        back: bool,
    ) -> None:
        """There, nobody wants what is `stored` here."""
        artifacts = self._names(numbers)
        if stored != "no":
            self.put_several(numbers)
            artifacts = self.sled.ledger.artifacts - artifacts
        if stored == "pinned":
            self.change_pin("boot", numbers)
        slot = self.sled.slots[index]
        self.rig.take_away(slot)
        self.rig.check_datasets()
        disk = slot.shelf[-1]
        epoch = max(0, self.sled.floor.epoch - older_epoch)
        ledger = Ledger(epoch, max(0, self.sled.floor.generation + ahead), artifacts)
        config = ArtifactConfig.make(ledger.generation, hashes(ledger.artifacts))
        document = encode_ledger(LedgerDocument(ledger.epoch, config))
        (disk.path / LEDGER_NAME).write_bytes(document)
        disk.ledger, disk.torn = ledger, False
        if back:
            self.rig.bring_back(slot, disk)
            self.rig.check_datasets()
            self.reconcile()

    @rule(which=st.integers(0, 3), how=st.sampled_from(["empty", "half", "bit", "other"]))
    def corrupt_a_ledger(self, which: int, how: str) -> None:
        disk = self._disk(which)
        path = disk.path / LEDGER_NAME
        content = bytearray(path.read_bytes()) if path.exists() else bytearray()
        if not content:
            return
        if how == "bit":
            content[len(content) // 3] = 0x7F  # not ^= 1: the second time would repair it
        torn = {"empty": b"", "half": bytes(content[: len(content) // 2]), "other": b"[1]\n"}
        path.write_bytes(torn.get(how, bytes(content)))
        disk.ledger, disk.torn = None, True

    @rule(
        which=st.integers(0, 3),
        number=a_number,
        how=st.sampled_from(["bit", "bit", "cut", "gone", "gone"]),
        noticed=st.booleans(),
    )
    def damage_a_copy(self, which: int, number: int, how: str, noticed: bool) -> None:
        disk = self._disk(which)
        names = sorted(ondisk.artifact_files(disk.path))
        if not names:
            return
        path = disk.path / names[number % len(names)]
        if how == "gone":
            self._remove(disk, path.name)
        else:
            content = path.read_bytes()
            damaged = content[: len(content) // 2] if how == "cut" else content[:-1] + b"#"
            path.chmod(0o644)
            path.write_bytes(damaged[: len(content)])
            disk.tampered[path.name] = path.stat().st_ino
        if noticed:
            self.reconcile()
            self.remirror()

    def _remove(self, disk: Disk, name: str) -> None:
        (disk.path / name).unlink(missing_ok=True)
        self.checks.names[disk].discard(name)

    def _disk(self, which: int) -> Disk:
        return self.rig.disks[-1 - which % len(self.rig.disks)]


def _checked(opened: OpenArtifact) -> bytes:
    assert opened.read is not None, "nothing else checks the bytes of these datasets"
    if opened.content is not None:  # as it came from another process
        opened.read.check_whole(opened.content)
        return opened.content
    buffer = bytearray(opened.size_bytes)
    return bytes(buffer[: opened.read(opened.fd, memoryview(buffer), 0)])


class GroupCommitMachine(StoreMachine):
    """The same rules where short bodies are made durable together."""

    group_commit = True


@pytest.mark.long
@pytest.mark.timeout(0 if SEARCH else 300)
@pytest.mark.parametrize("machine", [StoreMachine, GroupCommitMachine])
def test_the_store_agrees_with_its_model_after_every_step(machine: type[StoreMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=40,
            deadline=None,
            derandomize=not SEARCH,
            database=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
