"""Every system call of every operation fails once, and for ever, on each dataset.

A case is an operation, a dataset, a kind of call and what is wrong with it. It is run with the
fault at the first such call, at the second, and so on until the operation does not get that far.
Each time the other dataset has to serve (B4), nothing wrong may stand on either (B1, G1, G3, Q1),
and once the fault is lifted the store has to go on and bring everything back onto both (B5). Where
a sync was made to fail, what a power cut would leave is judged as well, both times.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from tests import ondisk
from tests.memory_dir import memory_dir
from tests.torture import fault_mount
from tests.torture.campaign import Campaign, Outcome, Plan, Skip, strike_each
from tests.torture.fault_fs import Fault
from tests.torture.fault_mount import Met
from tests.torture.history import History, name_of
from tests.torture.judge import QUOTA_BYTES, Places, judge_dead, judge_settled
from tests.torture.scene import DATASETS, FIRST, SMALL, STORED, Scene, Stage
from tests.torture.syscall_operations import OPERATIONS, PUT_BESIDE_CONFIG, Act, Operation

STUCK_S: Final = 60.0
"""An operation that takes so long hangs: the fault is lifted, and the run failed."""
QUARANTINE: Final = ".sled-depot/quarantine"
HANG_TIMEOUT_S: Final = 1.0
TIMEOUT_S: Final = 30.0
DELAY_S: Final = 0.1
SLOW_S: Final = 0.02
"""How long each call takes where all of them are slow."""
HEALED_WITHIN: Final = 6
"""How often the datasets are looked at until all of them have to be healthy again."""
TRIES: Final = 3
MOST_CALLS: Final = 500
BRIEF_CALLS: Final = 6
"""What hangs or is slow takes time: a brief run strikes at about so many of a kind of call."""

_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_ERRORS: Final[dict[str, tuple[int, ...]]] = {
    "open": (errno.EIO, errno.EROFS, errno.EMFILE),
    "create": (errno.EIO, errno.EROFS, errno.EMFILE, *_FULL),
    "write": (errno.EIO, errno.EROFS, *_FULL),
    "fsync": (errno.EIO, errno.EROFS, *_FULL),
    "fsyncdir": (errno.EIO, errno.EROFS, *_FULL),
    "rename": (errno.EIO, errno.EROFS, *_FULL),
    "unlink": (errno.EIO, errno.EROFS, *_FULL),
    "read": (errno.EIO,),
    "opendir": (errno.EIO, errno.EMFILE),
    "readdir": (errno.EIO,),
    "mkdir": (errno.EIO, errno.EROFS, *_FULL),
    "getattr": (errno.EIO,),
    "statfs": (errno.EIO,),
    "fallocate": (errno.EIO, errno.EROFS, errno.EOPNOTSUPP, *_FULL),
    "truncate": (errno.EIO, errno.EROFS, *_FULL),
    "chmod": (errno.EIO, errno.EROFS, *_FULL),
    "flush": (errno.EIO, *_FULL),
    "change": (errno.EROFS, *_FULL),
    "grow": _FULL,
    "any": (errno.EIO,),
}
_INTERRUPTIBLE: Final = (
    *("open", "create", "read", "write", "fsync", "fsyncdir"),
    *("rename", "unlink", "fallocate", "truncate", "flush", "opendir", "readdir"),
)
_SETTLED: Final = ("clear", "empty")
_GROUPS: Final = ("change", "grow", "any")


@dataclass(frozen=True, slots=True)
class Case:
    """An operation, and what is wrong with a kind of call of one dataset; `nth` is left open."""

    operation: Operation
    hurt: int
    fault: Fault

    def __str__(self) -> str:
        fault = self.fault
        what = errno.errorcode[fault.error] if fault.effect == "error" else fault.effect
        often = "for ever" if fault.times is None else f"{fault.times} time(s)"
        return f"{self.operation.name}: {fault.call} on dataset {self.hurt + 1}: {what}, {often}"


def _faults() -> Iterator[Fault]:
    for call, errors in _ERRORS.items():
        for error in errors:
            if call not in _GROUPS:
                yield Fault(call=call, effect="error", error=error)
            yield Fault(call=call, effect="error", error=error, times=None)
        if call in _GROUPS:
            continue
        if call in _INTERRUPTIBLE:
            yield Fault(call=call, effect="error", error=errno.EINTR, times=2)
        yield Fault(call=call, effect="delay", delay_s=DELAY_S)
        yield Fault(call=call, effect="delay", delay_s=SLOW_S, times=None)
        if call != "flush":
            yield Fault(call=call, effect="hang")
            yield Fault(call=call, effect="hang", times=None)
        if call in ("read", "write"):
            yield Fault(call=call, effect="short")
            yield Fault(call=call, effect="short", times=None)
    yield Fault(call="any", effect="delay", delay_s=SLOW_S, times=None)
    yield Fault(call="any", effect="hang", times=None)


_BESIDE: Final = Fault(call="fsyncdir", effect="beside", error=errno.EIO, delay_s=6 * DELAY_S)
CASES: Final = (
    *(
        Case(operation, hurt, fault)
        for operation in OPERATIONS
        for hurt in DATASETS
        for fault in _faults()
    ),
    *(Case(PUT_BESIDE_CONFIG, hurt, _BESIDE) for hurt in DATASETS),
)


def number_of(case: str) -> int:
    """The number of the case of that name: the seed that draws it.

    Raises:
        ValueError: there is none.
    """
    return list(map(str, CASES)).index(case)


class TooSlow(AssertionError):
    """The operation took more deadlines than it may, or failed where one is all that can be."""


class _Complaints:
    """What goes wrong where nobody waits for it: in threads, callbacks and finalizers."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def of_loop(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.heard.append(f"{context.get('message')}: {context.get('exception')!r}")

    @contextmanager
    def listening(self) -> Iterator[None]:
        before = threading.excepthook, sys.unraisablehook
        threading.excepthook = lambda args: self.heard.append(f"thread: {args.exc_value!r}")
        sys.unraisablehook = lambda args: self.heard.append(f"{args.err_msg}: {args.exc_value!r}")
        try:
            yield
        finally:
            threading.excepthook, sys.unraisablehook = before


class _Run:
    """Runs cases on one stage."""

    def __init__(self, stage: Stage, counts: Counter[str], *, brief: bool) -> None:
        self._stage = stage
        self._counts = counts
        self._brief = brief
        self._calls: dict[tuple[str, int], Counter[str]] = {}

    def case(self, case: Case) -> bool:
        """Let the first call fail, then the second, ... until none is reached.

        False: the operation makes no such call.
        """
        reached = self._reached(case)
        if not reached:
            return False
        in_steps = self._brief and case.fault.effect in ("hang", "delay")
        step = max(1, reached // BRIEF_CALLS) if in_steps else 1
        # Who comes beside whom is not drawn, and not always as it is to be.
        tries = TRIES if case.fault.effect == "beside" else 1
        for nth in range(1, MOST_CALLS, step):
            try:
                met, *_ = [self._trial_of_some_time(case, nth) for _ in range(tries)]
            except Exception as error:
                error.add_note(f"{case}, at call {nth}")
                raise
            if not met.struck:
                return True
            self._counts["faults"] += 1
        raise AssertionError(f"{case}: still struck at call {MOST_CALLS}")

    def _trial_of_some_time(self, case: Case, nth: int) -> Met:
        # On a busy machine anything may take long once. What waits too often does so every time.
        for _ in range(TRIES - 1):
            try:
                return self.trial(case, nth)
            except TooSlow:
                self._counts["tries that were slow"] += 1
        return self.trial(case, nth)

    def trial(self, case: Case, nth: int) -> Met:
        """Do the operation once with the fault at the call number `nth`."""
        template = self._stage.fresh if case.operation.fresh else self._stage.used
        complaints = _Complaints()
        with self._stage.scene(template, case.hurt) as scene, complaints.listening():
            case.operation.prepare(scene)
            met = asyncio.run(self._trial(case, nth, scene, complaints))
            _threads_end()
            gc.collect(0)
            judge_settled(scene.places, scene.history)
            with self._after_cut(scene) as cut:
                judge_settled(cut, scene.history)
        assert complaints.heard == [], complaints.heard
        return met

    async def _trial(self, case: Case, nth: int, scene: Scene, complaints: _Complaints) -> Met:
        asyncio.get_running_loop().set_exception_handler(complaints.of_loop)
        operation = case.operation
        act = Act(scene, HANG_TIMEOUT_S if case.fault.effect == "hang" else TIMEOUT_S)
        try:
            if not operation.from_closed:
                await act.open()
                await operation.ready(act)
            met = await self._strike(case, nth, act)
            if not met.struck:
                _judge_clean(case, act)
            await _recover(act)
            for key, _ in operation.rotten:  # that nobody was told of, if it could not be read
                await act.put(key)
        finally:
            await act.close()
        await _clear(act)
        return met

    async def _strike(self, case: Case, nth: int, act: Act) -> Met:
        stuck = threading.Event()

        def let_go() -> None:
            stuck.set()
            self._stage.mount.lift()

        watchdog = threading.Timer(STUCK_S, let_go)
        under = f"/{act.scene.hurt_dataset.name}"
        self._stage.mount.arm(replace(case.fault, nth=nth, under=under))
        begun_s = time.monotonic()
        watchdog.start()
        try:
            await case.operation.act(act)
        except case.operation.may_fail as error:
            act.failed = error
        finally:
            took_s = time.monotonic() - begun_s
            watchdog.cancel()
            try:
                _judge_struck(case.operation, act.scene)
            finally:
                met = self._stage.mount.lift()
                watchdog.join()
        assert not stuck.is_set(), "the operation hangs"
        with self._after_cut(act.scene) as cut:
            judge_dead(cut, _as_hurt(case.operation, act.scene))
        if case.fault.effect == "hang":
            most_s = (case.operation.deadlines + 1) * HANG_TIMEOUT_S
            if took_s > most_s:
                raise TooSlow(f"B4 {took_s:.2f} s under a hang, at most {most_s:g} s are expected")
        return met

    @contextmanager
    def _after_cut(self, scene: Scene) -> Iterator[Places]:
        """The places as they would be if the power of the failing dataset went now.

        Where no sync that failed took anything away, that is as they are.
        """
        copy = scene.places.state_dir.with_name("after-cut")
        if not self._stage.mount.copy_after_cut(scene.hurt_dataset, copy):
            yield scene.places
            return
        self._counts["cuts after failed syncs"] += 1
        datasets = tuple(copy if d == scene.hurt_dataset else d for d in scene.places.datasets)
        try:
            yield replace(scene.places, datasets=datasets)
        finally:
            shutil.rmtree(copy)

    def _reached(self, case: Case) -> int:
        """How many calls of the case's kind the operation makes when nothing is wrong."""
        key = case.operation.name, case.hurt
        if key not in self._calls:
            clean = Fault(call="any", effect="error", nth=1 << 30)
            met = self.trial(replace(case, fault=clean), 1 << 30)
            self._calls[key] = Counter(met.calls)
        calls = self._calls[key]
        return sum(
            n for call, n in calls.items() if replace(case.fault, under="/").concerns(call, "/")
        )


def _judge_clean(case: Case, act: Act) -> None:
    if act.failed is not None and case.fault.effect == "hang":
        # The deadline is short there, and a busy machine may pass it by itself.
        raise TooSlow(f"failed without a fault: {act.failed!r}")
    assert act.failed is None, f"failed without a fault: {act.failed!r}"
    for key, copies in act.copies.items():
        assert copies == len(DATASETS), f"{copies} copies of {key} without a fault"


def _judge_struck(operation: Operation, scene: Scene) -> None:
    """Judge both datasets while one of them fails: the other is whole, neither is wrong."""
    history, both = scene.history, scene.places.datasets
    for dataset in both:
        here = dataset == scene.hurt_dataset
        rotten = {name_of(key) for key, hurt in operation.rotten if hurt == here}
        wrong = set(ondisk.wrong_bytes(dataset)) - rotten
        assert wrong == set(), f"B1 {dataset}"
        assert ondisk.stored_bytes(dataset) <= QUOTA_BYTES, f"Q1 {dataset}"
        ledger = ondisk.read_ledger(dataset)
        if ledger is not None and ledger.position >= history.accepted.position:
            assert any(c.is_in(ledger) for c in history.possible()), f"G1 {dataset}"
        if not here and history.accepted.generation is not None:
            assert ledger is not None, f"G3 {dataset}"
            assert ledger.position >= history.accepted.position, f"G3 {dataset}"
    files = set().union(*map(_names, both))
    lost = {key for key in history.promised(history.accepted) if name_of(key) not in files}
    assert lost == set(), f"D1 {lost}"


def _as_hurt(operation: Operation, scene: Scene) -> History:
    """The history, with the copies in it that were hurt by hand and may not be healed yet."""
    rotten = {key: scene.hurt if hurt else 1 - scene.hurt for key, hurt in operation.rotten}
    return replace(scene.history, rotten=rotten)


def _names(dataset: Path) -> set[str]:
    """The artifacts of which there is a copy, also one that was set aside as bad or to go."""
    aside = [path.name.split(".")[0] for path in (dataset / QUARANTINE).glob("*")]
    leaving = [p.name.removeprefix("leaving-") for p in ondisk.staged_files(dataset)]
    return {*ondisk.artifact_files(dataset), *aside, *leaving}


async def _recover(act: Act) -> None:
    """Nothing fails any more: the store goes on, and brings everything back onto both."""
    if act.opened is None:
        await act.open()
    store = act.store
    for _ in range(HEALED_WITHIN):
        await store.check_datasets()
        status = store.status()
        if all(d.state == "healthy" for d in status.datasets) and status.ledger in _SETTLED:
            break
    else:
        raise AssertionError(f"the datasets stay as they are: {store.status()}")
    _learn_what_is_in_force(act)
    if act.scene.history.accepted.generation is None:
        await act.accept(replace(FIRST, epoch=store.status().epoch))
    await store.reconcile()
    await store.remirror()
    await act.put(SMALL)
    status = store.status()
    assert status.under_replicated == (), f"B5 {status}"
    assert act.copies[SMALL] == len(DATASETS), f"B5 {status}"
    for dataset, path in zip(status.datasets, act.scene.places.datasets, strict=True):
        assert dataset.reserved_bytes == 0, f"Q1 {path}"
        stored = sum(s.st_size for s in ondisk.artifact_files(path).values())
        assert dataset.used_bytes == stored, f"Q1 {path}: {dataset.used_bytes}, on disk {stored}"


def _learn_what_is_in_force(act: Act) -> None:
    status, history = act.store.status(), act.scene.history
    position = (status.epoch, -1 if status.generation is None else status.generation)
    known = [config.position for config in history.possible()]
    assert position in known, f"G1 found {position}, expected one of {known}"
    keys = {name_of(key): key for key in STORED}
    pins = {n: sorted(keys[str(a)] for a in held) for n, held in act.store.pins().items()}
    history.note({"what": "found", "position": list(position), "pins": pins})


async def _clear(act: Act) -> None:
    """What could not be removed is gone after the next start (Q3)."""
    if any(map(ondisk.staged_files, act.scene.places.datasets)):
        await act.open()
        await act.close()


def _threads_end() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread():
            thread.join(STUCK_S)
            assert not thread.is_alive(), f"{thread.name} does not end"


def run(plan: Plan) -> Outcome:
    """Every case, or as many as asked for, drawn by their seeds."""
    if reason := fault_mount.unusable():
        raise Skip(reason)
    counts: Counter[str] = Counter()
    every = plan.runs >= len(CASES)
    seeds = range(plan.share[0], len(CASES), plan.share[1]) if every else plan.seeds()
    with (
        tempfile.TemporaryDirectory(dir=memory_dir()) as root,
        fault_mount.fault_mount(Path(root)) as mount,
    ):
        runner = _Run(Stage(mount, Path(root)), counts, brief=plan.brief)

        def strike(seed: int) -> None:
            index = seed % len(CASES)
            # One that is drawn is to be of some use: no operation makes calls of every kind.
            while not runner.case(CASES[index]) and not every:
                index = (index + 1) % len(CASES)

        return strike_each(plan, strike, counts, seeds)


CAMPAIGN: Final = Campaign(
    name="syscalls",
    about="every system call of every operation fails, on each dataset",
    runs=len(CASES),
    slice_runs=6,
    run=run,
    alone=True,
)
