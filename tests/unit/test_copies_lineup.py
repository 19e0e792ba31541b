from __future__ import annotations

import pytest

from agent.copies.lineup import MAX_SOURCES, Choice, Lineup, RetryPolicy
from agent.copies.source_url import SourceUrl
from depot.artifact import ArtifactHash
from depot.errors import BadSource, DepotCopy, DepotError, HashMismatch, QuotaExceeded, TooLarge

ARTIFACT = ArtifactHash.of(b"artifact")
WRONG = HashMismatch(ARTIFACT, ArtifactHash.of(b"other"))
A, B, C = (SourceUrl.parse(f"http://{name}") for name in "abc")
POLICY = RetryPolicy(max_tries=3, first_delay_s=1.0, max_delay_s=3.0, progress_bytes=100)


def lineup(*sources: SourceUrl) -> Lineup:
    made = Lineup(ARTIFACT, POLICY)
    made.add(sources)
    assert made.begin_attempt()
    return made


def chosen(made: Lineup) -> SourceUrl | None:
    choice = made.choose()
    return choice.source if choice else None


def breaks(made: Lineup, source: SourceUrl, gave_bytes: int = 0) -> None:
    made.broke(source, "reset", at_byte=40, gave_bytes=gave_bytes)


def refusal(*, transient: bool = False) -> DepotCopy:
    return DepotCopy("no", transient=transient)


def test_sources_are_asked_in_the_order_they_were_named() -> None:
    made = lineup(B, A)
    assert made.sources == (B, A)
    assert made.choose() == Choice(B, 0.0)


def test_where_one_breaks_the_next_goes_on() -> None:
    made = lineup(A, B, C)
    order = []
    for _ in range(6):
        source = chosen(made)
        assert source is not None
        order.append(source)
        breaks(made, source)
    assert order == [A, B, C, A, B, C]


def test_pauses_grow_up_to_their_bound_and_only_before_a_source_is_asked_again() -> None:
    made = Lineup(ARTIFACT, RetryPolicy(max_tries=5, first_delay_s=1.0, max_delay_s=3.0))
    made.add([A])
    made.begin_attempt()
    delays = []
    while choice := made.choose():
        delays.append(choice.delay_s)
        breaks(made, A)
    assert delays == [0.0, 1.0, 2.0, 3.0, 3.0]


def test_a_source_that_makes_progress_is_not_spent_by_breaking() -> None:
    made = lineup(A)
    for _ in range(10):
        breaks(made, A, gave_bytes=100)
    assert made.choose() == Choice(A, 1.0)
    for _ in range(2):
        breaks(made, A, gave_bytes=99)
    assert made.choose() is None


def test_another_source_comes_before_one_that_made_progress_and_broke() -> None:
    made = lineup(A, B)
    assert chosen(made) == A
    breaks(made, A, gave_bytes=1000)
    assert chosen(made) == B
    breaks(made, B, gave_bytes=1000)
    assert chosen(made) == A


def test_a_final_refusal_spends_a_source_and_a_transient_one_counts_as_a_try() -> None:
    made = lineup(A, B)
    made.refused(A, refusal(), at_byte=0)
    assert chosen(made) == B
    for _ in range(3):
        made.refused(B, refusal(transient=True), at_byte=0)
    assert made.choose() is None
    assert not made.begin_attempt()


def test_untried_sources_can_be_asked_for_alone() -> None:
    made = lineup(A, B)
    made.refused(A, refusal(transient=True), at_byte=0)
    assert made.choose(untried_only=True) == Choice(B, 0.0)
    made.refused(B, refusal(transient=True), at_byte=0)
    assert made.choose(untried_only=True) is None
    assert made.choose() is not None


def test_a_source_alone_that_gave_wrong_bytes_is_spent() -> None:
    made = lineup(A, B)
    assert chosen(made) == A
    made.wrong_bytes(A, WRONG)
    assert made.begin_attempt()
    assert chosen(made) == B
    made.wrong_bytes(B, WRONG)
    assert not made.begin_attempt()
    assert str(made.failure()).count(f"hash to {WRONG.actual}") == 2


def test_after_a_wrong_mixture_each_source_is_heard_alone() -> None:
    made = lineup(A, B, C)
    chosen(made)
    breaks(made, A, gave_bytes=40)
    chosen(made)
    made.wrong_bytes(B, WRONG)
    alone = []
    while made.begin_attempt():
        choice = made.choose()
        assert choice is not None
        alone.append(choice.source)
        breaks(made, choice.source)
        assert chosen(made) == choice.source
        made.wrong_bytes(choice.source, WRONG)
    assert alone == [A, B, C]
    assert f"{A} and {B} gave together" in str(made.failure())


def test_a_source_that_gave_nothing_does_not_share_the_blame() -> None:
    made = lineup(A, B)
    breaks(made, A, gave_bytes=0)
    made.wrong_bytes(B, WRONG)
    assert made.begin_attempt()
    assert chosen(made) == A
    made.wrong_bytes(A, WRONG)
    assert not made.begin_attempt()


@pytest.mark.parametrize("how", ["refused", "disagrees"])
def test_a_source_that_contradicts_another_is_heard_alone_later(how: str) -> None:
    made = lineup(A, B)
    breaks(made, A, gave_bytes=40)
    if how == "refused":
        made.refused(B, refusal(), at_byte=40)
    else:
        made.disagrees(B, "it announces 30 bytes")
    while chosen(made) is not None:
        breaks(made, A)
    assert made.begin_attempt()
    assert chosen(made) == B
    assert not made.begin_attempt()


def test_a_source_that_joins_late_is_asked_in_whatever_attempt_runs() -> None:
    made = lineup(A)
    made.wrong_bytes(A, WRONG)
    made.add([A, B])
    assert made.sources == (A, B)
    assert made.begin_attempt()
    assert chosen(made) == B


def test_sources_are_bounded() -> None:
    made = lineup()
    made.add(SourceUrl.parse(f"http://node-{index}") for index in range(MAX_SOURCES + 5))
    assert len(made.sources) == MAX_SOURCES


def test_every_sequence_of_breaks_comes_to_an_end() -> None:
    made = lineup(A, B, C)
    steps = 0
    while True:
        while (source := chosen(made)) is not None:
            breaks(made, source, gave_bytes=10)
            steps += 1
        if not made.begin_attempt():
            break
    assert steps == 9


def test_the_failure_names_each_source_and_why_it_was_given_up() -> None:
    made = lineup(A, B)
    made.refused(A, DepotCopy("expected 200, it answered 404"), at_byte=0)
    breaks(made, B)
    message = str(made.failure())
    assert str(ARTIFACT) in message
    assert "http://a: expected 200, it answered 404" in message
    assert "http://b: it broke off at byte 40: reset" in message


@pytest.mark.parametrize("error", [BadSource("x"), TooLarge("x"), QuotaExceeded("x")])
def test_what_all_sources_have_in_common_is_what_the_copy_fails_with(error: DepotError) -> None:
    made = lineup(A, B)
    made.refused(A, error, at_byte=0)
    made.refused(B, error, at_byte=0)
    assert type(made.failure()) is type(error)


def test_sources_that_fail_differently_make_a_failed_copy() -> None:
    made = lineup(A, B)
    made.refused(A, BadSource("x"), at_byte=0)
    made.refused(B, refusal(), at_byte=0)
    assert type(made.failure()) is DepotCopy


def test_of_sources_that_are_being_asked_none_is_chosen_again() -> None:
    made = lineup(A, B)
    assert made.choose(but=[A]) == Choice(B, 0.0)
    assert made.choose(but=[A, B]) is None


def test_those_that_were_outrun_come_after_those_that_were_not() -> None:
    made = lineup(A, B, C)
    made.answered(B, outrun=[A])
    breaks(made, B)
    assert chosen(made) == C
    breaks(made, C)
    assert chosen(made) == A


def test_a_relay_that_broke_is_not_blamed_for_what_two_of_its_transfers_gave_together() -> None:
    made = lineup(A)
    made.answered(A, arriving=True)
    made.broke(A, "cut", at_byte=200, gave_bytes=200, arriving=True)
    made.wrong_bytes(A, WRONG)
    assert "together" in str(made.failure())
    assert made.begin_attempt()
    assert chosen(made) == A
    # From its first byte on and in one piece, it is to blame like any other.
    made.wrong_bytes(A, WRONG)
    assert not made.begin_attempt()


def test_after_a_wrong_mixture_who_holds_the_artifact_is_heard_before_a_relay() -> None:
    made = lineup(A, B)
    made.answered(A, arriving=True)
    made.broke(A, "cut", at_byte=200, gave_bytes=200, arriving=True)
    made.answered(B)
    made.wrong_bytes(B, WRONG)
    order = []
    while made.begin_attempt():
        order.append(chosen(made))
    assert order == [B, A]


def test_a_relay_that_lost_what_it_was_receiving_is_asked_again() -> None:
    made = lineup(A)
    made.answered(A, arriving=True)
    for _ in range(POLICY.max_tries):
        assert chosen(made) == A
        made.refused(A, refusal(), at_byte=0)
    assert chosen(made) is None


def test_one_that_is_distrusted_is_asked_after_all_others_and_never_for_parts() -> None:
    made = lineup(A, B)
    made.distrust([A, C])
    assert made.another(but=[]) == B
    assert made.another(but=[B]) is None
    assert chosen(made) == B
    made.refused(B, refusal(), at_byte=0)
    assert chosen(made) == A


def test_another_is_of_another_host_in_no_trouble_and_no_relay() -> None:
    same_host = SourceUrl.parse("http://a:1")
    made = lineup(A, same_host, B, C)
    assert made.another(but=[A]) == B
    made.answered(B, arriving=True)
    assert made.another(but=[A]) == C
    made.gives_no_parts(C)
    assert made.another(but=[A]) is None
    breaks(made, A, gave_bytes=1000)
    assert made.another(but=[B]) == same_host


def test_who_gave_wrong_bytes_is_told_once_it_is_known() -> None:
    made = lineup(A, B, C)
    made.contributed(A)
    made.wrong_bytes(B, WRONG)
    assert not made.liars
    assert made.begin_attempt()
    made.answered(C, arriving=True)
    made.convict([B, C])
    assert made.liars == (B,)


def test_a_source_is_left_only_for_one_that_has_done_no_worse() -> None:
    made = lineup(A, B)
    assert made.has_better_than(A)
    breaks(made, A)
    assert not made.has_better_than(B)
    assert made.has_better_than(A)
    made.refused(B, refusal(), at_byte=0)
    assert not made.has_better_than(A)
