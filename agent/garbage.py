"""The collector of cyclic garbage, which goes through all there is and stops everything meanwhile.

What a sled knows of a hundred thousand artifacts is half a million objects that stay and are in no
cycle. While they are made, at the start, nothing is collected; then they are put where the
collector does not look. What comes later is collected as usual.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from depot.freed_memory import give_back

# Objects made until the youngest are looked at, and how often until those that have stayed are: a
# young one costs nothing before that, and a look at some thousands takes a millisecond.
_THRESHOLDS: Final = (2000, 5, 50)


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect nothing in the block."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def keep_what_is_there() -> None:
    """Look no more at what there is now, and for the rest less often; give back what is free."""
    give_back()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
