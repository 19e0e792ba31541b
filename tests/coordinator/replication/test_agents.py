from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from agent.copies.networks import AllowedNetworks
from coordinator.replication.agents import Agents
from coordinator.replication.verdict import Kind, judge
from coordinator.values import Sled
from depot.artifact import Generation
from depot.errors import BadSource
from tests.unit.fake_node import FakeNode

LOOPBACK = AllowedNetworks.of(["127.0.0.0/8"])


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode() as node:
        yield node


def sled(agent_url: str) -> Sled:
    return Sled("s1", agent_url, agent_url)


async def test_s4_a_name_is_judged_by_its_addresses_when_it_is_asked(node: FakeNode) -> None:
    async def lookup(host: str, _port: int) -> Sequence[str]:
        return {"inside": ["127.0.0.1", "203.0.113.7"], "outside": ["203.0.113.7"]}[host]

    port = node.agent_url.rpartition(":")[2]
    node.config = (7, [])
    async with Agents(LOOPBACK, lookup=lookup) as agents:
        assert (await agents(sled(f"http://inside:{port}")).config()).generation == 7
        with pytest.raises(BadSource, match=r"outside is at 203\.0\.113\.7, which is outside"):
            await agents(sled(f"http://outside:{port}")).config()


async def test_s4_an_address_that_the_database_has_is_judged_too() -> None:
    async with Agents(LOOPBACK) as agents:
        with pytest.raises(BadSource, match="outside the allowed networks") as caught:
            agents(sled("http://203.0.113.7:12345"))
    verdict = judge(caught.value, Generation(1))
    assert (verdict.kind, verdict.reason) == (Kind.REFUSED, str(caught.value))
