from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.artifact import ArtifactHash
from depot.http.conditional import (
    Choice,
    Conditions,
    Plan,
    entity_tag,
    plan_answer,
    plan_choice,
    zstd_entity_tag,
)
from depot.http.negotiation import Wish

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


# ---- with a second representation, the zstd coding

ARTIFACT = ArtifactHash.of(b"an artifact")
BYTES_TAG, ZSTD_TAG = entity_tag(ARTIFACT), zstd_entity_tag(ARTIFACT)


def choose(wish: Wish, *, method: str = "GET", **conditions: str) -> Choice:
    return plan_choice(method, 10, ARTIFACT, Conditions(**conditions), wish)


def test_who_does_not_want_zstd_has_no_choice() -> None:
    assert choose(Wish.IDENTITY) == Choice(WHOLE)
    assert choose(Wish.IDENTITY, if_none_match=ZSTD_TAG) == Choice(WHOLE)
    assert choose(Wish.IDENTITY, if_match=ZSTD_TAG) == Choice(Plan(412))


def test_who_wants_zstd_may_get_either() -> None:
    for method in ("GET", "HEAD"):
        assert choose(Wish.ZSTD, method=method) == Choice(WHOLE, WHOLE)


def test_who_refuses_the_bytes_is_to_get_zstd() -> None:
    assert choose(Wish.ONLY_ZSTD) == Choice(WHOLE, WHOLE, needs_zstd=True)


@pytest.mark.parametrize("wish", [Wish.ZSTD, Wish.ONLY_ZSTD])
@pytest.mark.parametrize("header", [ZSTD_TAG, f"W/{ZSTD_TAG}", f'"other", {ZSTD_TAG}'])
def test_who_has_the_zstd_coding_is_told_so(header: str, wish: Wish) -> None:
    assert choose(wish, if_none_match=header).zstd == Plan(304)


@pytest.mark.parametrize("header", [BYTES_TAG, f"{ZSTD_TAG}, {BYTES_TAG}", "*"])
def test_who_has_the_bytes_needs_no_coding(header: str) -> None:
    assert choose(Wish.ZSTD, if_none_match=header) == Choice(Plan(304))


def test_the_bytes_are_of_no_use_to_who_refuses_them() -> None:
    assert choose(Wish.ONLY_ZSTD, if_none_match=BYTES_TAG).zstd == WHOLE


def test_if_match_decides_for_the_representation_that_it_names() -> None:
    assert choose(Wish.ZSTD, if_match=BYTES_TAG) == Choice(WHOLE)
    assert choose(Wish.ZSTD, if_match=ZSTD_TAG) == Choice(Plan(412), WHOLE, needs_zstd=True)
    assert choose(Wish.ZSTD, if_match=f"{BYTES_TAG}, {ZSTD_TAG}") == Choice(WHOLE, WHOLE)
    assert choose(Wish.ZSTD, if_match='"other"') == Choice(Plan(412))
    assert choose(Wish.ZSTD, if_match=f"W/{ZSTD_TAG}") == Choice(Plan(412))


def test_a_range_is_always_of_the_bytes() -> None:
    assert choose(Wish.ZSTD, byte_range="bytes=3-5") == Choice(Plan(206, 3, 3))
    assert choose(Wish.ZSTD, byte_range="bytes=10-") == Choice(Plan(416))
    in_range = choose(Wish.ZSTD, byte_range="bytes=3-5", if_range=BYTES_TAG)
    assert in_range == Choice(Plan(206, 3, 3))
    # Who refuses the bytes gets no range of them, but the whole in the coding.
    assert choose(Wish.ONLY_ZSTD, byte_range="bytes=3-5").zstd == WHOLE


@pytest.mark.parametrize("wish", Wish)
def test_b2_the_tag_of_the_zstd_coding_never_gets_a_range(wish: Wish) -> None:
    choice = choose(wish, byte_range="bytes=3-5", if_range=ZSTD_TAG)
    assert choice.identity == WHOLE
    assert choice.zstd in (WHOLE, None)


@given(
    wish=st.sampled_from(Wish),
    method=st.sampled_from(["GET", "HEAD"]),
    conditions=st.fixed_dictionaries(
        {},
        optional={
            name: st.sampled_from([BYTES_TAG, ZSTD_TAG, f"{ZSTD_TAG},{BYTES_TAG}", "*", '"x"'])
            for name in ("if_match", "if_none_match", "if_range")
        }
        | {"byte_range": st.sampled_from(["bytes=3-5", "bytes=10-", "bytes=5-3", "bytes=-0"])},
    ),
)
def test_the_zstd_coding_is_sent_whole_or_not_at_all(
    wish: Wish, method: str, conditions: dict[str, str]
) -> None:
    choice = choose(wish, method=method, **conditions)
    assert choice.zstd in (None, WHOLE, Plan(304))
    assert choice.zstd is None or wish is not Wish.IDENTITY
    if choice.zstd is not None and not choice.needs_zstd:
        assert choice.identity == WHOLE, "the bytes are sent whenever compressing does not pay"
    if choice.zstd == Plan(304):
        assert "zstd" in conditions["if_none_match"] or conditions["if_none_match"] == "*"
