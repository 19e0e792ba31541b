"""Parts handed to lanes: every byte once and in order, whoever breaks, is slow, or is robbed."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.copies.parts import Part, PartPlan

PART = 1000


def plan(end: int = 20 * PART, *, start: int = 0, buffers: int = 4) -> PartPlan:
    return PartPlan(start, end, part_bytes=PART, buffers=buffers)


def taken(made: PartPlan, lane: int, now_s: float = 0.0) -> Part:
    part = made.take(lane, now_s)
    assert part is not None
    return part


def fill(made: PartPlan, part: Part, now_s: float) -> None:
    assert made.filled(part, part.missing_bytes, now_s)
    made.give_up(part)


def read_head(made: PartPlan) -> None:
    head = made.head
    assert head is not None
    made.taken(head, head.ready_bytes)


def test_parts_follow_one_another_whoever_takes_them() -> None:
    made = plan()
    first, second = taken(made, 0), taken(made, 1)
    assert (first.start, second.start) == (0, first.end)
    assert made.head is first


def test_a_lane_begins_with_a_small_part_and_then_gets_what_it_is_good_for() -> None:
    made = plan(buffers=6)
    fast, slow = taken(made, 0), taken(made, 1)
    assert fast.end - fast.start == slow.end - slow.start < PART
    fill(made, fast, 1.0)
    fill(made, slow, 1.5)
    fast, slow = taken(made, 0), taken(made, 1)
    assert fast.end - fast.start == PART
    assert slow.end - slow.start == pytest.approx(PART / 1.5, abs=1)


def test_s1_no_part_is_handed_out_without_a_buffer_and_one_is_kept_free() -> None:
    made = plan(buffers=4)
    parts = [taken(made, lane) for lane in range(3)]
    assert made.take(0, 0.0) is None
    assert len({part.buffer for part in parts}) == 3


def test_the_rest_of_a_part_that_broke_is_handed_out_before_anything_else() -> None:
    made = plan()
    broken, _ = taken(made, 0), taken(made, 1)
    assert made.filled(broken, 100, 1.0)
    made.give_up(broken)
    rest = taken(made, 1)
    assert (rest.start, rest.end) == (100, PART // 2)


def test_bytes_after_a_gap_are_not_read_before_it_is_filled() -> None:
    made = plan()
    broken, later = taken(made, 0), taken(made, 1)
    fill(made, later, 1.0)
    made.give_up(broken)
    assert made.head is None
    rest = taken(made, 1)
    assert made.head is rest


def test_a_slow_lane_loses_the_rest_of_its_part_to_a_fast_one() -> None:
    made = plan()
    fast, slow = taken(made, 1), taken(made, 0)
    fill(made, fast, 0.1)
    read_head(made)
    assert made.filled(slow, 10, 1.0)
    assert made.rob(1, 0.2) is None
    robbed = made.rob(1, 10.0)
    assert robbed is not None
    assert robbed[0] is slow
    assert (robbed[1].start, robbed[1].end) == (slow.start + 10, 2 * fast.end)
    # What still comes from the slow one is not taken, and its buffer is not used meanwhile.
    assert not made.filled(slow, 50, 11.0)
    assert robbed[1].buffer != slow.buffer


def test_a_lane_that_has_shown_nothing_robs_nobody() -> None:
    made = plan()
    taken(made, 0)
    assert made.rob(1, 1000.0) is None


def test_what_is_nearly_done_is_left_to_whoever_does_it() -> None:
    made = plan()
    one, other = taken(made, 0), taken(made, 1)
    fill(made, one, 1.0)
    read_head(made)
    assert made.filled(other, other.missing_bytes - 10, 9.0)
    assert made.rob(0, 10.0) is None


def test_what_drains_hands_out_nothing_new() -> None:
    made = plan()
    part = taken(made, 0)
    made.draining = True
    assert made.take(1, 0.0) is None
    assert not made.finished
    fill(made, part, 1.0)
    read_head(made)
    assert made.finished


class Side:
    """Lanes that stop, break and are robbed at random, and a reader beside them."""

    def __init__(self, size_bytes: int, lanes: int, seed: int) -> None:
        self.chance = random.Random(seed)
        self.start = self.chance.randint(0, 500)
        self.content = self.chance.randbytes(self.start + size_bytes)
        self.plan = plan(len(self.content), start=self.start, buffers=lanes + 2)
        self.buffers = [bytearray(PART) for _ in range(lanes + 2)]
        self.lanes = lanes
        self.reading: dict[int, Part] = {}
        self.ghosts: list[Part] = []
        self.read = bytearray()
        self.now_s = 0.0

    def step(self) -> None:
        self.now_s += self.chance.random()
        lane = self.chance.randrange(self.lanes)
        part = self.reading.get(lane)
        if part is None:
            self.begin(lane)
        elif self.chance.random() < 0.1:
            self.plan.give_up(self.reading.pop(lane))
        else:
            self.receive(part)
        self.haunt()
        self.take()

    def begin(self, lane: int) -> None:
        part = self.plan.take(lane, self.now_s)
        if part is None and (robbed := self.plan.rob(lane, self.now_s)):
            self.ghosts.append(self.reading.pop(robbed[0].lane))
            part = robbed[1]
        if part is not None:
            self.reading[lane] = part

    def receive(self, part: Part) -> None:
        at, count = part.start + part.filled, self.chance.randint(1, part.missing_bytes)
        self.write(part, self.content[at : at + count])
        assert self.plan.filled(part, count, self.now_s)
        if not part.missing_bytes:
            self.plan.give_up(self.reading.pop(part.lane))

    def write(self, part: Part, content: bytes) -> None:
        self.buffers[part.buffer][part.filled : part.filled + len(content)] = content

    def haunt(self) -> None:
        """What was robbed still writes where nobody looks, until it has ended."""
        for ghost in self.ghosts:
            self.write(ghost, b"?" * (PART - ghost.filled))
            assert not self.plan.filled(ghost, 1, self.now_s)
        if self.ghosts and self.chance.random() < 0.2:
            self.plan.give_up(self.ghosts.pop())

    def take(self) -> None:
        head = self.plan.head
        if head is not None and head.ready_bytes:
            count = self.chance.randint(1, head.ready_bytes)
            self.read += self.buffers[head.buffer][head.taken : head.taken + count]
            self.plan.taken(head, count)


@settings(max_examples=200)
@given(st.integers(1, 12 * PART), st.integers(2, 4), st.integers(0, 1 << 32))
def test_b2_every_byte_is_read_once_and_in_order(size_bytes: int, lanes: int, seed: int) -> None:
    side = Side(size_bytes, lanes, seed)
    for _ in range(100_000):
        if side.plan.finished:
            break
        side.step()
    assert side.plan.finished
    assert bytes(side.read) == side.content[side.start :]
