"""When what failed may be tried again."""

from __future__ import annotations

from depot.concurrency.backoff import Backoff


def test_what_never_failed_is_due() -> None:
    pauses: Backoff[str] = Backoff()
    assert pauses.is_due("x", 0.0)
    assert pauses.next_due_s() is None


def test_each_failure_waits_twice_as_long_up_to_a_bound() -> None:
    pauses: Backoff[str] = Backoff(first_s=5, longest_s=30)
    now_s, waited = 100.0, []
    for _ in range(5):
        pauses.failed("x", now_s)
        due_s = pauses.next_due_s()
        assert due_s is not None
        assert not pauses.is_due("x", due_s - 0.1)
        assert pauses.is_due("x", due_s)
        waited.append(due_s - now_s)
        now_s = due_s
    assert waited == [5, 10, 20, 30, 30]


def test_success_or_a_change_makes_it_due_at_once() -> None:
    pauses: Backoff[str] = Backoff()
    for key in ("x", "y", "z"):
        pauses.failed(key, 0.0)
    pauses.forget("x")
    assert [pauses.is_due(key, 1.0) for key in ("x", "y", "z")] == [True, False, False]
    pauses.keep_only(frozenset("z"))
    assert [pauses.is_due(key, 1.0) for key in ("x", "y", "z")] == [True, True, False]
    pauses.clear()
    assert pauses.is_due("z", 1.0)
