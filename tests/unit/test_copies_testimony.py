"""Who lied, told from what was said before and what has turned out to be right."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.copies.source_url import SourceUrl
from agent.copies.testimony import Account, Hearing, Span

TRUTH = random.Random(7).randbytes(1000)
A, B, C = (SourceUrl.parse(f"http://{name}") for name in "abc")


def said(start: int, end: int, source: SourceUrl, *, lie: bool = False) -> Span:
    part = TRUTH[start:end] if not lie else b"!" * (end - start)
    return Span(start, end, source, hashlib.sha256(part).digest())


def heard(testimony: Account, step: int = 64) -> frozenset[SourceUrl]:
    hearing = Hearing(testimony)
    for start in range(0, len(TRUTH), step):
        hearing.hear(memoryview(TRUTH)[start : start + step])
    return hearing.guilty()


def test_whoever_said_something_else_is_guilty() -> None:
    spans = [said(0, 300, A), said(300, 500, B, lie=True), said(500, 1000, A)]
    assert heard(Account(spans, frozenset({C}))) == {B}


def test_several_may_be_guilty() -> None:
    spans = [said(0, 300, A, lie=True), said(300, 500, B, lie=True), said(500, 1000, C)]
    assert heard(Account(spans)) == {A, B}


def test_when_all_that_is_remembered_was_right_the_rest_was_not() -> None:
    assert heard(Account([said(300, 1000, B)], frozenset({A}))) == {A}


def test_of_several_who_gave_the_rest_nobody_can_tell() -> None:
    assert heard(Account([said(300, 1000, B)], frozenset({A, C}))) == frozenset()


def test_what_was_read_twice_is_compared_twice() -> None:
    spans = [said(0, 600, A), said(300, 500, B, lie=True), said(300, 1000, C)]
    assert heard(Account(spans)) == {B}


@given(st.sets(st.integers(1, 999), max_size=12), st.integers(1, 400), st.data())
def test_the_honest_are_never_found_guilty(cuts: set[int], step: int, data: st.DataObject) -> None:
    edges = [0, *sorted(cuts), len(TRUTH)]
    spans, liars = [], set()
    for start, end in pairwise(edges):
        source = data.draw(st.sampled_from([A, B, C]))
        lie = source != A and data.draw(st.booleans())
        spans.append(said(start, end, source, lie=lie))
        liars |= {source} if lie else set()
    assert heard(Account(spans), step) == liars
