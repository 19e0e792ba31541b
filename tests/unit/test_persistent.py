from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from depot.state.persistent import PersistentMap

# More rows than are kept in one dict, so that both shapes are met, and keys that fall together.
STARTS = st.sampled_from([0, 3, 255, 256, 257, 2000])
STEPS = st.lists(
    st.tuples(
        st.booleans(), st.one_of(st.integers(0, 2100), st.sampled_from([1 << 20, 2 << 20, 3 << 20]))
    ),
    max_size=40,
)


def inserted(rows: PersistentMap[int, str], key: int, row: str) -> PersistentMap[int, str]:
    draft = rows.draft()
    draft.insert(key, row)
    return draft.finished()


def discarded(rows: PersistentMap[int, str], key: int) -> PersistentMap[int, str]:
    draft = rows.draft()
    draft.discard(key)
    return draft.finished()


@given(STARTS, STEPS, st.sampled_from([1, 7, 40]))
def test_it_is_a_dict_to_whoever_reads_it(
    start: int, steps: list[tuple[bool, int]], at_once: int
) -> None:
    expected = {number: str(number) for number in range(start)}
    rows = PersistentMap.of(expected)
    for first in range(0, len(steps), at_once):
        draft = rows.draft()
        for inserts, key in steps[first : first + at_once]:
            assert (key in draft) == (key in expected)
            if inserts:
                expected[key] = f"changed {key}"
                draft.insert(key, expected[key])
            elif key in expected:
                del expected[key]
                draft.discard(key)
        rows = draft.finished()
    assert rows == expected
    assert len(rows) == len(expected)
    assert sorted(rows) == sorted(expected)
    assert sorted(rows.items()) == sorted(expected.items())
    assert sorted(rows.values()) == sorted(expected.values())
    assert all(rows.get(key) == expected.get(key) for key in range(2200))


@given(STARTS, STEPS)
def test_a_change_leaves_what_others_hold_as_it_was(
    start: int, steps: list[tuple[bool, int]]
) -> None:
    rows = PersistentMap.of({number: str(number) for number in range(start)})
    seen = []
    for inserts, key in steps:
        seen.append((rows, dict(rows)))
        if inserts:
            rows = inserted(rows, key, "new")
        elif key in rows:
            rows = discarded(rows, key)
    assert all(held == before for held, before in seen)


def test_the_dict_it_was_made_of_may_change_afterwards() -> None:
    for count in (1, 1000):
        given_rows = dict.fromkeys(range(count), "row")
        rows = PersistentMap.of(given_rows)
        given_rows.clear()
        assert len(dict(rows)) == count


def test_rows_that_lie_in_such_a_mapping_already_are_shared() -> None:
    rows = PersistentMap.of({1: "one"})
    assert PersistentMap.of(rows) is rows


def test_a_change_copies_few_rows_however_many_there_are() -> None:
    rows = PersistentMap.of({number: str(number) for number in range(50_000)})
    after = inserted(rows, 7, "seven")
    copied = [new for old, new in zip(rows._parts, after._parts, strict=True) if old is not new]
    assert sum(map(len, copied)) < 200
