"""The model of the store, for many more steps than a test has time for.

`tests.model` compares a store on two real datasets with a model after every step; its steps include
faults of every kind, restarts, datasets that go and come, damaged copies and ledgers. Each run is a
batch of examples drawn from its seed.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Final

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import invariant, run_state_machine_as_test

from depot.device.host import DeviceWorkers
from tests.model.test_store_machine import GroupCommitMachine, StoreMachine
from tests.torture.campaign import Campaign, Outcome, Plan, strike_each
from tests.torture.child import Child, Tell

EXAMPLES: Final = 10
# With processes they take six times as long: each begins with new ones, as does a restart in it.
_EXAMPLES_OF: Final = {DeviceWorkers.THREAD: EXAMPLES, DeviceWorkers.PROCESS: 3}
STEPS: Final = 50
TIMEOUT_S: Final = 900.0
"""A batch that takes longer hangs; one that fails is made smaller meanwhile."""


def _run(plan: Plan) -> Outcome:
    counts: Counter[str] = Counter()
    # Where one is enough, nobody is to read it: to make it smaller takes a minute or ten.
    phases = [Phase.generate] if plan.enough == 1 else [Phase.generate, Phase.shrink]
    return strike_each(plan, lambda number: _strike(number, phases, counts), counts)


def _strike(number: int, phases: Sequence[Phase], counts: Counter[str]) -> None:
    # In a child: an example leaves threads behind that end a moment later.
    child = Child.fork(partial(_batch, number, phases))
    try:
        for event in child.told(TIMEOUT_S):
            counts["steps"] += event["steps"]
            if workers_of(number) is DeviceWorkers.PROCESS:
                counts["steps in processes"] += event["steps"]
        status = child.wait()
        assert status == 0, f"the process ended with {status}"
    finally:
        child.reap()


def _batch(number: int, phases: Sequence[Phase], tell: Tell) -> None:
    steps = 0
    # Half of the runs stage short bodies one by one, the others make them durable together.
    machine: type[StoreMachine] = GroupCommitMachine if number % 2 else StoreMachine

    class Counting(machine):  # type: ignore[misc, valid-type]
        workers = workers_of(number)

        @invariant()
        def count(self) -> None:
            nonlocal steps
            steps += 1

    profile = settings(
        max_examples=_EXAMPLES_OF[workers_of(number)],
        stateful_step_count=STEPS,
        deadline=None,
        database=None,
        phases=phases,
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )
    try:
        run_state_machine_as_test(seed(number)(Counting), settings=profile)
    except Exception as error:
        said = "".join(traceback.format_exception(error))
        raise AssertionError(said) from error
    tell({"what": "steps", "steps": steps})


def workers_of(number: int) -> DeviceWorkers:
    """A process for each dataset in a fifth of the runs."""
    return DeviceWorkers.PROCESS if number // 2 % 5 == 4 else DeviceWorkers.THREAD


CAMPAIGN: Final = Campaign(
    "model",
    f"the store against its model, {EXAMPLES} times {STEPS} steps with faults in each run",
    runs=260,
    slice_runs=1,
    run=_run,
)
