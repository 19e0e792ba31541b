from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import suppress

import pytest

from agent import garbage


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.enable()


def test_nothing_is_collected_in_the_block_and_again_after_it() -> None:
    seen = []
    with suppress(KeyError), garbage.uncollected():
        seen.append(gc.isenabled())
        raise KeyError
    assert seen == [False]
    assert gc.isenabled()


def test_what_was_off_stays_off() -> None:
    gc.disable()
    with garbage.uncollected():
        pass
    assert not gc.isenabled()


def test_what_is_kept_is_looked_at_no_more_and_what_comes_later_is() -> None:
    kept = [[number] for number in range(1000)]
    garbage.keep_what_is_there()
    assert gc.get_freeze_count() > len(kept)
    later: list[object] = []
    later.append(later)
    looked_at = len(gc.get_objects())
    assert looked_at < gc.get_freeze_count()
    assert any(each is later for each in gc.get_objects())
