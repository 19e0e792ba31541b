from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.http.negotiation import Wish, zstd_wish


@pytest.mark.parametrize(
    "header",
    [
        "zstd",
        "ZSTD",
        "gzip, deflate, br, zstd",
        "zstd;q=1",
        "zstd;q=1.000",
        "zstd ; q=0.5",
        "zstd;Q=0.001",
        "\tzstd\t",
        ",, zstd ,",
        "br;q=1.0, zstd;q=0.1",
        "zstd, identity",
        "zstd;q=0.5, identity;q=0.5",
        "zstd;q=0.5, identity;q=0.4",
        "zstd, *;q=0.5",
        "*, identity;q=0.5",
        "*;q=0.2, zstd;q=0.3",
        "zstd, *",
    ],
)
def test_who_names_zstd_and_does_not_prefer_the_bytes_may_get_it(header: str) -> None:
    assert zstd_wish(header) is Wish.ZSTD


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        " ",
        ",",
        "identity",
        "gzip, deflate, br",
        "zstd;q=0",
        "zstd;q=0.000",
        "zstd;q=0, *",
        "*",
        "*;q=0.5",
        "gzip, *;q=0.1",
        "zstd;q=0.5, identity",
        "zstd;q=0.5, *",
        "zstd;q=0.3, identity;q=0.4",
        # Nothing that is here is acceptable: it is as if nothing had been said.
        "*;q=0",
        "identity;q=0",
        "gzip, identity;q=0",
        "zstd;q=0, identity;q=0",
        # Twice: the lower weight counts.
        "zstd, zstd;q=0",
        "zstd;q=0, zstd",
        # Other codings whose names only look like it.
        "x-zstd",
        "zstd2",
        "dcz",
        # Malformed elements say nothing.
        "zstd;q=2",
        "zstd;q=1.001",
        "zstd;q=0.1234",
        "zstd;q=-1",
        "zstd;q=",
        "zstd;q",
        "zstd;",
        "zstd;q=.5",
        "zstd;q= 1",
        "zstd;q=1;q=1",
        "zstd;level=3",
        "zstd q=1",
        '"zstd"',
        "zstd;q=\u0661",
        "\u017ftd, zstd\u00a0",
        "gzip zstd",
    ],
)
def test_everybody_else_gets_the_bytes_themselves(header: str | None) -> None:
    assert zstd_wish(header) is Wish.IDENTITY


@pytest.mark.parametrize(
    "header",
    ["zstd, identity;q=0", "identity;q=0, *", "zstd, *;q=0", "zstd;q=0.1, *;q=0.0, gzip"],
)
def test_the_bytes_themselves_can_be_refused(header: str) -> None:
    assert zstd_wish(header) is Wish.ONLY_ZSTD


def test_a_malformed_element_takes_nothing_from_the_others() -> None:
    assert zstd_wish("gzip;q=maybe, zstd;q=0.7, ;;") is Wish.ZSTD


@given(st.text(alphabet="zstdZidenty*;q=01.5, \t\u0661\x00", max_size=60) | st.text(max_size=60))
def test_any_text_has_an_answer(header: str) -> None:
    wish = zstd_wish(header)
    assert wish is Wish.IDENTITY or "zstd" in header.lower() or "*" in header


@given(st.integers(0, 1000), st.integers(0, 1000))
def test_zstd_is_chosen_when_it_weighs_as_much(zstd: int, identity: int) -> None:
    wish = zstd_wish(f"zstd;q={zstd / 1000:.3f}, identity;q={identity / 1000:.3f}")
    expected = Wish.ZSTD if zstd >= identity else Wish.IDENTITY
    if not zstd or not identity:
        expected = Wish.ONLY_ZSTD if zstd else Wish.IDENTITY
    assert wish is expected
