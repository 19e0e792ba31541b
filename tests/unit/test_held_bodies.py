from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from depot.errors import TooManyBodies
from depot.http.held_bodies import FREE_BYTES, HeldBodies


def test_s1_bodies_are_held_up_to_the_limit_in_sum() -> None:
    bodies = HeldBodies(1000)
    with bodies.request() as one, bodies.request() as other:
        one.arrived(FREE_BYTES + 600)
        with pytest.raises(TooManyBodies, match="600 bytes are being worked on, at most 1000"):
            other.arrived(FREE_BYTES + 401)
        assert bodies.held_bytes == 600
    with bodies.request() as one:
        one.arrived(FREE_BYTES + 1000)


def test_what_ends_makes_room_however_it_ends() -> None:
    bodies = HeldBodies(1000)
    for end in (None, KeyError()):
        try:
            with bodies.request() as one:
                one.arrived(FREE_BYTES + 1000)
                if end is not None:
                    raise end
        except KeyError:
            pass
        assert bodies.held_bytes == 0


def test_a_small_body_has_room_while_large_ones_have_all_there_is() -> None:
    bodies = HeldBodies(1000)
    with bodies.request() as large, bodies.request() as small:
        large.arrived(FREE_BYTES + 1000)
        small.arrived(FREE_BYTES)


@given(st.lists(st.integers(0, FREE_BYTES), max_size=20))
def test_it_does_not_matter_in_how_many_pieces_a_body_arrives(pieces: list[int]) -> None:
    bodies = HeldBodies(1 << 30)
    with bodies.request() as body:
        for piece in pieces:
            body.arrived(piece)
        assert bodies.held_bytes == max(0, sum(pieces) - FREE_BYTES)
