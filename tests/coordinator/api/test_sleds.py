from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from agent.config.settings import StorageTable
from coordinator.api.sled_desk import ASK_TIMEOUT_S, RESET_ANSWER_S
from coordinator.client import ANSWER_TIMEOUT_S, RESET_TIMEOUT_S, CoordinatorClient
from depot.errors import Refused
from tests.coordinator.running import client_of, coordinating
from tests.unit.fake_node import FakeNode

AGENT = "http://[fd00::5]:12345"


async def test_a_sleds_depot_is_on_its_agents_host_unless_it_says_otherwise(
    client: CoordinatorClient,
) -> None:
    assert (await client.put_sled("s1", AGENT)).depot_url == "http://[fd00::5]:12348"
    moved = await client.put_sled("s1", AGENT, repo_depot_port=9)
    assert moved.depot_url == "http://[fd00::5]:9"
    moved = await client.put_sled("s1", AGENT, depot_url="http://peer/")
    assert moved.depot_url == "http://peer"
    assert [sled.id for sled in await client.sleds()] == ["s1"]
    assert await client.sled("s1") == moved


@pytest.mark.parametrize(
    ("sled_id", "agent_url", "code"),
    [
        ("a b", AGENT, "InvalidRequest"),
        ("-a", AGENT, "InvalidRequest"),
        ("a", "ftp://x", "BadSource"),
        ("a", "http://user:pw@host", "BadSource"),
    ],
)
async def test_a_sled_has_a_plain_id_and_a_url(
    client: CoordinatorClient, sled_id: str, agent_url: str, code: str
) -> None:
    with pytest.raises(Refused) as caught:
        await client.put_sled(sled_id, agent_url)
    assert (caught.value.status, caught.value.remote_code) == (400, code)
    assert not await client.sleds()


async def test_the_port_of_a_depot_is_said_once(client: CoordinatorClient) -> None:
    with pytest.raises(Refused, match="repo_depot_port"):
        await client.put_sled("a", AGENT, depot_url="http://x", repo_depot_port=9)


async def test_a_sled_that_is_none_is_not_found(client: CoordinatorClient) -> None:
    with pytest.raises(Refused) as caught:
        await client.sled("nobody")
    assert (caught.value.status, caught.value.remote_code) == (404, "NotFound")


async def test_an_expunged_sled_does_not_come_back_by_registering(
    client: CoordinatorClient, node: FakeNode
) -> None:
    held = node.hold(b"one")
    node.config = (4, [held])
    await client.put_sled("s1", node.agent_url)
    expunged = await client.set_sled_policy("s1", "expunged")
    assert expunged.policy == "expunged"
    assert "stay on its disks: 1, of generation 4" in expunged.notes[0]
    with pytest.raises(Refused) as caught:
        await client.put_sled("s1", node.agent_url)
    assert (caught.value.status, caught.value.remote_code) == (409, "SledExpunged")
    with pytest.raises(Refused, match="was expunged"):
        await client.reset_sled("s1")
    restored = await client.set_sled_policy("s1", "in_service")
    assert (restored.policy, restored.notes) == ("in_service", ())
    await client.put_sled("s1", node.agent_url)


async def test_only_an_expunged_sled_is_removed(client: CoordinatorClient) -> None:
    await client.put_sled("s1", "http://127.0.0.1:9")
    with pytest.raises(Refused) as caught:
        await client.remove_sled("s1")
    assert (caught.value.status, caught.value.remote_code) == (409, "SledInService")
    await client.set_sled_policy("s1", "expunged")
    await client.remove_sled("s1")
    assert not await client.sleds()


async def test_a_second_sled_with_the_same_agent_is_refused_and_the_first_is_named(
    client: CoordinatorClient,
) -> None:
    await client.put_sled("s1", AGENT)
    with pytest.raises(Refused, match="sled 's1'") as caught:
        await client.put_sled("s2", f"{AGENT}/")
    assert (caught.value.status, caught.value.remote_code) == (409, "SledAddressTaken")


async def test_a_sled_is_expunged_although_its_agent_does_not_answer(
    client: CoordinatorClient,
) -> None:
    await client.put_sled("s1", "http://127.0.0.1:9")
    assert "did not say what" in (await client.set_sled_policy("s1", "expunged")).notes[0]


async def test_a_reset_makes_the_agent_forget_the_generation_that_it_is_at(
    client: CoordinatorClient, node: FakeNode
) -> None:
    node.config = (17, [])
    node.script["POST /artifacts-config/reset"] = [(204, {})]
    await client.put_sled("s1", node.agent_url)
    assert (await client.reset_sled("s1")).forgotten_generation == 17
    assert node.requests["POST /artifacts-config/reset"] == 1


async def test_a_reset_is_of_the_generation_that_was_seen(
    client: CoordinatorClient, node: FakeNode
) -> None:
    node.config = (19, [])
    node.script["POST /artifacts-config/reset"] = [(204, {})]
    await client.put_sled("s1", node.agent_url)
    with pytest.raises(Refused, match="is at generation 19, not 17") as caught:
        await client.reset_sled("s1", 17)
    assert (caught.value.status, caught.value.remote_code) == (409, "CONFIG_GENERATION")
    assert node.requests["POST /artifacts-config/reset"] == 0
    assert (await client.reset_sled("s1", 19)).forgotten_generation == 19


@pytest.mark.parametrize("ledger", ["conflicted", "behind"])
async def test_a_sled_that_cannot_say_what_it_is_to_hold_can_be_reset(
    client: CoordinatorClient, node: FakeNode, ledger: str
) -> None:
    node.status = {"ledger": ledger, "generation": 17}
    node.refuse("GET /artifacts-config", 503, "LedgerUnknown", f"the ledger is {ledger}")
    node.script["POST /artifacts-config/reset"] = [(204, {})]
    await client.put_sled("s1", node.agent_url)
    assert (await client.reset_sled("s1", 17)).forgotten_generation == 17
    assert node.requests["POST /artifacts-config/reset"] == 1


async def test_a_sled_that_was_told_nothing_has_nothing_to_forget(
    client: CoordinatorClient, node: FakeNode
) -> None:
    node.status = {"ledger": "empty", "generation": None}
    await client.put_sled("s1", node.agent_url)
    with pytest.raises(Refused) as caught:
        await client.reset_sled("s1")
    assert (caught.value.status, caught.value.remote_code) == (502, "Refused")
    assert node.requests["POST /artifacts-config/reset"] == 0


def test_a_reset_is_waited_for_longer_than_an_agent_waits_for_its_disks() -> None:
    """Each of its datasets may take that long, and one that does not answer is told by then."""
    assert 2 * StorageTable().device_timeout_s < RESET_ANSWER_S
    assert ANSWER_TIMEOUT_S + RESET_TIMEOUT_S > 2 * ASK_TIMEOUT_S + RESET_ANSWER_S


async def test_no_other_sled_is_reset_that_answers_at_the_address(
    client: CoordinatorClient, node: FakeNode
) -> None:
    mine, other = (str(UUID(int=number, version=4)) for number in (1, 2))
    node.config = (17, [])
    node.status = {"sled_id": other, "generation": 17}
    await client.put_sled(mine, node.agent_url)
    with pytest.raises(Refused, match=f"sled {other} answers") as caught:
        await client.reset_sled(mine)
    assert (caught.value.status, caught.value.remote_code) == (409, "SledAddressTaken")
    assert node.requests["POST /artifacts-config/reset"] == 0
    assert f"sled {other} answers" in (await client.set_sled_policy(mine, "expunged")).notes[0]


async def test_a_reset_that_the_agent_refuses_is_refused(
    client: CoordinatorClient, node: FakeNode
) -> None:
    node.config = (17, [])
    node.refuse("POST /artifacts-config/reset", 503, "NoDataset", "one is missing")
    await client.put_sled("s1", node.agent_url)
    with pytest.raises(Refused, match="one is missing") as caught:
        await client.reset_sled("s1")
    assert caught.value.status == 502


async def test_the_generation_can_be_advanced_and_never_goes_back(
    client: CoordinatorClient,
) -> None:
    before = await client.generation()
    assert await client.advance_generation(before + 5) == before + 5
    with pytest.raises(Refused) as caught:
        await client.advance_generation(before)
    assert (caught.value.status, caught.value.remote_code) == (409, "CONFIG_GENERATION")
    assert await client.generation() == before + 5


@pytest.mark.parametrize(
    ("agent_url", "depot_url"),
    [
        ("http://203.0.113.7:12345", None),
        ("http://[2001:db8::7]:12345", None),
        ("http://169.254.169.254", None),
        ("http://0.0.0.0:12345", None),
        ("http://[::ffff:203.0.113.7]:12345", None),
        (AGENT, "http://203.0.113.7:12348"),
    ],
)
async def test_s4_a_sled_outside_the_allowed_networks_is_refused(
    client: CoordinatorClient, agent_url: str, depot_url: str | None
) -> None:
    with pytest.raises(Refused, match=r"_url: .* is outside the allowed networks: 127") as caught:
        await client.put_sled("s1", agent_url, depot_url=depot_url)
    assert (caught.value.status, caught.value.remote_code) == (400, "BadSource")
    assert not await client.sleds()


async def test_s4_networks_of_the_configuration_are_allowed_and_no_others(tmp_path: Path) -> None:
    sleds = {"allowed_networks": ["203.0.113.0/24"]}
    async with coordinating(tmp_path, sleds=sleds) as running, client_of(running) as client:
        await client.put_sled("s1", "http://203.0.113.7:12345")
        with pytest.raises(Refused, match=r"outside the allowed networks: 203\.0\.113\.0/24"):
            await client.put_sled("s1", "http://127.0.0.1:12345")
