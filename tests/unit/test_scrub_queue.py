from __future__ import annotations

import random

import pytest

from depot.artifact import ArtifactHash
from depot.mirrors.inventory import Copy
from depot.scrub.pass_queue import is_part, queue_of
from depot.scrub.report import ScrubPass

NOW_S = 10_000.0
SCRUB = ScrubPass(started_at_s=NOW_S, since_s=5_000.0)


@pytest.mark.parametrize("count", [0, 1, 1024, 5000])
def test_a_pass_takes_the_copies_not_verified_for_longest_first(count: int) -> None:
    chance = random.Random(count)
    copies = {ArtifactHash(chance.randbytes(32)): Copy(number) for number in range(count)}
    ages = {artifact: float(chance.randrange(100)) for artifact in copies}
    queue = queue_of(SCRUB, copies, ages, NOW_S)
    assert (queue.count, queue.total_bytes) == (count, sum(range(count)))
    expected = sorted(copies, key=lambda artifact: (ages[artifact], artifact))
    assert list(queue.copies) == [(each, copies[each].size_bytes) for each in expected]


def test_what_changes_while_a_pass_runs_does_not_disturb_its_order() -> None:
    copies = {ArtifactHash(bytes([number]) * 32): Copy(1, 0.0) for number in range(9)}
    ages = dict(zip(copies, range(9), strict=True))
    order = []
    for artifact, _ in queue_of(SCRUB, copies, ages, NOW_S).copies:
        ages[artifact] = 100
        order.append(artifact)
    assert order == list(copies)


@pytest.mark.parametrize(
    ("copy", "expected"),
    [
        (Copy(1), True),
        (Copy(1, 4_999.0), True),
        (Copy(1, 5_000.0), False),
        (Copy(1, NOW_S), False),
        (Copy(1, NOW_S + 1), True),  # by a clock that was wrong
        (Copy(1, damaged=True), False),
    ],
)
def test_a_pass_takes_what_was_not_verified_since_and_is_not_known_to_be_bad(
    copy: Copy, expected: bool
) -> None:
    assert is_part(copy, SCRUB, NOW_S) is expected
    artifact = ArtifactHash(bytes(32))
    assert queue_of(SCRUB, {artifact: copy}, {}, NOW_S).count == expected
