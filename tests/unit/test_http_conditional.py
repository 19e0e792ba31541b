from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.http.conditional import Conditions, Plan, plan_answer

ETAG = '"sha256:ab"'
WHOLE = Plan(200, 0, 10)


def ask(
    byte_range: str | None = None,
    *,
    size_bytes: int = 10,
    method: str = "GET",
    if_match: str | None = None,
    if_none_match: str | None = None,
    if_range: str | None = None,
) -> Plan:
    conditions = Conditions(
        if_match=if_match, if_none_match=if_none_match, if_range=if_range, byte_range=byte_range
    )
    return plan_answer(method, size_bytes, ETAG, conditions)


def test_without_conditions_the_whole_is_sent() -> None:
    assert ask() == WHOLE


@pytest.mark.parametrize(
    ("byte_range", "start", "length_bytes"),
    [
        ("bytes=0-", 0, 10),
        ("bytes=0-0", 0, 1),
        ("bytes=3-5", 3, 3),
        ("bytes=9-9", 9, 1),
        ("bytes=9-", 9, 1),
        ("bytes=5-1000", 5, 5),
        ("bytes=5-" + "9" * 8000, 5, 5),
        ("bytes=" + "0" * 8000 + "5-", 5, 5),
        ("bytes=-1", 9, 1),
        ("bytes=-10", 0, 10),
        ("bytes=-11", 0, 10),
        ("bytes=-" + "9" * 8000, 0, 10),
        ("BYTES=3-5", 3, 3),
        (" bytes=3-5 ", 3, 3),
        ("bytes= 3-5 ,", 3, 3),
    ],
)
def test_a_single_range_gets_its_part(byte_range: str, start: int, length_bytes: int) -> None:
    assert ask(byte_range) == Plan(206, start, length_bytes)


@pytest.mark.parametrize(
    "byte_range",
    ["bytes=10-", "bytes=10-20", "bytes=-0", "bytes=-000", "bytes=" + "9" * 8000 + "-"],
)
def test_a_range_past_the_end_is_not_satisfiable(byte_range: str) -> None:
    assert ask(byte_range) == Plan(416)


@pytest.mark.parametrize(
    "byte_range",
    [
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=5-3",
        "bytes=a-b",
        "bytes=1-2-3",
        "bytes=+1-2",
        "bytes=1.0-2",
        "bytes=0x1-2",
        "bytes=\u0661-\u0662",
        "bytes 1-2",
        "items=0-5",
        "bytes=0-1,3-4",
        "bytes=0-1, -1",
        "bytes=0-1, bytes=3-4",
    ],
)
def test_several_ranges_and_malformed_ones_are_ignored(byte_range: str) -> None:
    assert ask(byte_range) == WHOLE


@pytest.mark.parametrize(
    ("byte_range", "plan"),
    [
        (None, Plan(200, 0, 0)),
        ("bytes=0-", Plan(416)),
        ("bytes=0-0", Plan(416)),
        ("bytes=-5", Plan(200, 0, 0)),
        ("bytes=-0", Plan(416)),
    ],
)
def test_an_empty_artifact_has_no_ranges(byte_range: str | None, plan: Plan) -> None:
    assert ask(byte_range, size_bytes=0) == plan


def test_only_get_has_ranges() -> None:
    assert ask("bytes=3-5", method="HEAD") == WHOLE
    assert ask("bytes=100-", method="HEAD") == WHOLE


def test_a_range_is_kept_when_if_range_names_this_representation() -> None:
    assert ask("bytes=3-5", if_range=ETAG) == Plan(206, 3, 3)
    assert ask("bytes=100-", if_range=ETAG) == Plan(416)


@pytest.mark.parametrize(
    "if_range",
    ['"sha256:cd"', f"W/{ETAG}", "sha256:ab", "Sat, 21 Nov 2026 02:53:03 GMT", "", "*"],
)
def test_a_range_is_dropped_when_if_range_names_anything_else(if_range: str) -> None:
    assert ask("bytes=3-5", if_range=if_range) == WHOLE
    assert ask("bytes=100-", if_range=if_range) == WHOLE


def test_if_range_without_a_range_means_nothing() -> None:
    assert ask(if_range='"sha256:cd"') == WHOLE


@pytest.mark.parametrize(
    "if_none_match",
    [
        ETAG,
        f"W/{ETAG}",
        "*",
        " * ",
        f'"other", {ETAG}',
        f'{ETAG},"other"',
        f', W/"x" ,, {ETAG} ,',
        f'"a,b", {ETAG}',
        f'"", {ETAG}',
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_client_that_has_the_representation_gets_304(if_none_match: str, method: str) -> None:
    assert ask(if_none_match=if_none_match, method=method) == Plan(304)
    assert ask("bytes=3-5", if_none_match=if_none_match, method=method) == Plan(304)


@pytest.mark.parametrize(
    "if_none_match",
    ['"other"', "sha256:ab", "", '"sha256:ab', f"w/{ETAG}", f"*, {ETAG}", f"{ETAG} {ETAG}"],
)
def test_other_or_malformed_tags_do_not_make_a_304(if_none_match: str) -> None:
    assert ask(if_none_match=if_none_match) == WHOLE


@pytest.mark.parametrize("if_match", [ETAG, "*", f'"other", {ETAG}'])
def test_if_match_lets_this_representation_through(if_match: str) -> None:
    assert ask("bytes=3-5", if_match=if_match) == Plan(206, 3, 3)


@pytest.mark.parametrize("if_match", ['"other"', f"W/{ETAG}", "", "nonsense"])
def test_if_match_refuses_everything_else(if_match: str) -> None:
    assert ask(if_match=if_match) == Plan(412)
    assert ask(if_match=if_match, if_none_match="*") == Plan(412)


@given(header=st.text(), size_bytes=st.integers(0, 20))
def test_no_range_header_leads_outside_the_representation(header: str, size_bytes: int) -> None:
    for byte_range in (header, f"bytes={header}"):
        plan = ask(byte_range, size_bytes=size_bytes)
        assert plan.status in (200, 206, 416)
        assert 0 <= plan.start <= plan.start + plan.length_bytes <= size_bytes


@given(first=st.integers(0, 12), last=st.integers(0, 12), size_bytes=st.integers(1, 12))
def test_a_range_is_the_slice_it_names(first: int, last: int, size_bytes: int) -> None:
    content = bytes(range(size_bytes))
    plan = ask(f"bytes={first}-{last}", size_bytes=size_bytes)
    if plan.status == 206:
        assert content[plan.start :][: plan.length_bytes] == content[first : last + 1]
    else:
        assert plan.status == (200 if last < first else 416)
