from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from coordinator.replication.job_queue import (
    COPIES_PER_SLED,
    FAILURES_PER_SLED,
    LOST_IN_A_STEP,
    JobQueue,
)
from coordinator.replication.lanes import Job
from coordinator.replication.values import (
    Copy,
    Inventory,
    Origin,
    Plan,
    Put,
    SledInventory,
    Spread,
    Start,
)
from depot.artifact import ArtifactHash, Generation

ONE = Generation(1)


def artifact(number: int) -> ArtifactHash:
    return ArtifactHash.of(bytes([number]))


X = artifact(0)


def fleet(*ids: str, held: dict[str, set[ArtifactHash]] | None = None) -> Inventory:
    has = held or {}
    return Inventory(
        generation=ONE,
        sizes={X: 1},
        sleds=tuple(SledInventory(id=id_, held=dict.fromkeys(has.get(id_, ()), 2)) for id_ in ids),
    )


def chain(
    origin: str, *targets: str, start: Start = Start.NOW, of: ArtifactHash = X, relays: bool = True
) -> Spread:
    return Spread(
        artifact=of,
        origins=(Origin(sled=origin, start=start),),
        targets=targets,
        relays=len(targets) if relays else 0,
        fan_out=1,
        max_sources=3,
    )


def ready(queue: JobQueue) -> list[Job]:
    return list(_ready(queue))


def _ready(queue: JobQueue) -> Iterator[Job]:
    while queue.is_behind:
        queue.step()
    while (job := queue.next_put() or queue.next_copy()) is not None:
        yield job


def targets(jobs: list[Job]) -> list[str]:
    return [job.target for job in jobs]


def test_a_chain_of_relays_begins_link_by_link() -> None:
    plan = Plan(
        generation=ONE,
        puts=(Put(X, "a"),),
        spreads=(chain("a", "b", "c", start=Start.BEGUN),),
    )
    queue = JobQueue(plan, fleet("a", "b", "c"))
    (put,) = ready(queue)
    assert put == Put(X, "a")
    queue.begun(put)
    (first,) = ready(queue)
    assert (first.target, queue.is_done) == ("b", False)
    queue.begun(first)
    (second,) = ready(queue)
    for job in (put, first, second):
        assert not queue.is_done
        queue.succeeded(job)
    assert queue.is_done


def test_without_relays_a_copy_waits_until_its_source_has_everything() -> None:
    plan = Plan(generation=ONE, spreads=(chain("a", "b", "c", relays=False),))
    queue = JobQueue(plan, fleet("a", "b", "c", held={"a": {X}}))
    (first,) = ready(queue)
    queue.begun(first)
    assert ready(queue) == []
    queue.succeeded(first)
    assert targets(ready(queue)) == ["c"]


def test_what_waited_in_vain_begins_with_a_source_that_has_the_artifact() -> None:
    plan = Plan(generation=ONE, spreads=(chain("a", "b", "c"),))
    queue = JobQueue(plan, fleet("a", "b", "c", held={"a": {X}}))
    (first,) = ready(queue)
    queue.failed(first)
    (second,) = ready(queue)
    assert second == Copy(X, "c", ("a",))


def test_what_waited_in_vain_and_has_no_other_source_is_left_out() -> None:
    names = [str(number) for number in range(3000)]
    plan = Plan(
        generation=ONE,
        puts=(Put(X, "a"),),
        spreads=(chain("a", *names, start=Start.BEGUN),),
    )
    queue = JobQueue(plan, fleet("a", *names))
    (put,) = ready(queue)
    queue.failed(put)
    assert ready(queue) == []
    assert (queue.is_done, queue.left_out) == (True, len(names))


def test_a_relay_that_had_nothing_to_pass_on_yet_is_asked_again_when_it_has_it_all() -> None:
    plan = Plan(generation=ONE, spreads=(chain("a", "b", "c"),))
    queue = JobQueue(plan, fleet("a", "b", "c", held={"a": {X}}))
    (first,) = ready(queue)
    queue.begun(first)
    (second,) = ready(queue)
    assert isinstance(second, Copy)
    assert queue.after_its_source(second)
    queue.begun(first)
    assert ready(queue) == []
    queue.succeeded(first)
    (again,) = ready(queue)
    assert isinstance(again, Copy)
    assert (again.target, queue.after_its_source(again)) == ("c", False)


def test_f4_a_sled_has_only_so_many_copies_at_once_and_the_others_their_turn() -> None:
    many = [artifact(number) for number in range(20)]
    plan = Plan(
        generation=ONE,
        spreads=tuple(
            Spread(
                artifact=each,
                origins=(Origin(sled="a"), Origin(sled="z")),
                targets=("b", "c"),
                relays=2,
                fan_out=1,
                max_sources=1,
            )
            for each in many
        ),
    )
    queue = JobQueue(plan, fleet("a", "b", "c", "z", held={"a": set(many)}))
    jobs = ready(queue)
    assert targets(jobs) == ["b", "c"] * COPIES_PER_SLED
    queue.succeeded(jobs[1])
    assert targets(ready(queue)) == ["c"]


def test_f4_a_sled_where_everything_fails_is_left_to_the_next_pass() -> None:
    many = [artifact(number) for number in range(20)]
    plan = Plan(generation=ONE, spreads=tuple(chain("a", "b", of=each) for each in many))
    queue = JobQueue(plan, fleet("a", "b", held={"a": set(many)}))
    for _ in range(FAILURES_PER_SLED):
        (job, *under_way) = ready(queue)
        queue.failed(job)
        for other in under_way:
            queue.put_off(other)
            queue.again(other)
    assert ready(queue) == []
    assert (queue.is_done, queue.left_out) == (True, len(many) - FAILURES_PER_SLED)


def test_what_was_put_off_comes_again() -> None:
    plan = Plan(generation=ONE, spreads=(chain("a", "b"),))
    queue = JobQueue(plan, fleet("a", "b", held={"a": {X}}))
    (job,) = ready(queue)
    queue.put_off(job)
    assert (ready(queue), queue.is_done) == ([], False)
    queue.again(job)
    assert ready(queue) == [job]


def test_nothing_begins_on_a_sled_that_was_set_aside() -> None:
    plan = Plan(generation=ONE, spreads=(chain("a", "b", "c"),))
    queue = JobQueue(plan, fleet("a", "b", "c", held={"a": {X}}))
    (first,) = ready(queue)
    queue.set_aside("c")
    queue.begun(first)
    assert ready(queue) == []
    queue.succeeded(first)
    assert (queue.is_done, queue.left_out) == (True, 1)


def test_a_long_plan_is_looked_at_bit_by_bit_and_done_to_its_end() -> None:
    many = [artifact(number) for number in range(50)]
    names = [f"sled-{number}" for number in range(10)]
    plan = Plan(generation=ONE, spreads=tuple(chain("a", *names, of=each) for each in many))
    queue = JobQueue(plan, fleet("a", *names, held={"a": set(many)}), open_jobs=25)
    done = 0
    while not queue.is_done:
        for job in ready(queue):
            queue.begun(job)
            queue.succeeded(job)
            done += 1
    assert done == len(many) * len(names)


def test_no_call_goes_through_more_than_one_artifact_of_a_long_plan_at_once() -> None:
    many = [artifact(number) for number in range(50)]
    names = [f"sled-{number}" for number in range(300)]
    plan = Plan(generation=ONE, spreads=tuple(chain("a", *names, of=each) for each in many))
    queue = JobQueue(plan, fleet("a", *names))
    left_out = []
    for name in names:
        queue.set_aside(name)
        left_out.append(queue.left_out)
    while queue.is_behind:
        queue.step()
        left_out.append(queue.left_out)
    assert (queue.is_done, queue.left_out) == (True, len(many) * len(names))
    assert max(after - before for before, after in pairwise(left_out)) <= len(names)


def test_a_chain_that_is_lost_is_gone_through_bit_by_bit() -> None:
    names = [f"sled-{number}" for number in range(5000)]
    plan = Plan(
        generation=ONE, puts=(Put(X, "a"),), spreads=(chain("a", *names, start=Start.BEGUN),)
    )
    queue = JobQueue(plan, fleet("a", *names))
    (put,) = ready(queue)
    queue.failed(put)
    steps = 0
    while queue.is_behind:
        queue.step()
        steps += 1
    assert (queue.is_done, queue.left_out) == (True, len(names))
    assert steps >= len(names) / LOST_IN_A_STEP


def test_a_copy_whose_source_has_got_it_since_it_was_asked_begins_anew() -> None:
    plan = Plan(generation=ONE, puts=(Put(X, "a"),), spreads=(chain("a", "b", start=Start.BEGUN),))
    queue = JobQueue(plan, fleet("a", "b"))
    (put,) = ready(queue)
    queue.begun(put)
    (copy,) = ready(queue)
    assert isinstance(copy, Copy)
    queue.succeeded(put)
    assert queue.after_its_source(copy)
    (again,) = ready(queue)
    assert again == replace(copy, start=Start.NOW, after=None)
    assert isinstance(again, Copy)
    assert not queue.after_its_source(again), "once only: it says that it has it"
    queue.succeeded(again)
    assert queue.is_done
