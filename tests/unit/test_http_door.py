from __future__ import annotations

import pytest

from depot.errors import TooManyConnections
from depot.http.door import Door, affordable_connections
from depot.http.limits import HttpLimits


def test_a_client_may_not_have_more_than_its_share() -> None:
    door = Door(max_connections=10, max_connections_per_client=2)
    door.enter("a")
    door.enter("a")
    with pytest.raises(TooManyConnections, match="a has 2"):
        door.enter("a")
    door.enter("b")
    assert door.connections == 3


def test_all_clients_together_may_not_have_more_than_there_are() -> None:
    door = Door(max_connections=2, max_connections_per_client=2)
    door.enter("a")
    door.enter("b")
    with pytest.raises(TooManyConnections, match="this server has 2"):
        door.enter("c")


def test_whoever_leaves_makes_room() -> None:
    door = Door(max_connections=1, max_connections_per_client=1)
    door.enter("a")
    door.leave("a")
    door.enter("b")
    assert door.connections == 1


def test_the_descriptor_limit_bounds_the_connections() -> None:
    assert affordable_connections(HttpLimits(max_connections=17)) == 17
    assert affordable_connections(HttpLimits(max_connections=1 << 40)) < 1 << 40
