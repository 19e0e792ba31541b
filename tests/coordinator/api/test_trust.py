from __future__ import annotations

import pytest

from coordinator.client import CoordinatorClient
from depot.errors import Refused
from tests.coordinator.releases.builder import PAST, ReleaseBuilder


async def test_a_root_is_added_once_listed_read_back_and_removed(
    client: CoordinatorClient,
) -> None:
    content = ReleaseBuilder().trusted
    root_id = await client.add_trust_root(content)
    assert await client.add_trust_root(content) == root_id
    assert [root.id for root in await client.trust_roots()] == [root_id]
    assert await client.trust_root(root_id) == content
    await client.remove_trust_root(root_id)
    assert not await client.trust_roots()
    with pytest.raises(Refused) as caught:
        await client.trust_root(root_id)
    assert (caught.value.status, caught.value.remote_code) == (404, "NotFound")


async def test_a_root_that_has_expired_can_be_added(client: CoordinatorClient) -> None:
    await client.add_trust_root(ReleaseBuilder(expires=PAST).trusted)
    assert len(await client.trust_roots()) == 1


async def test_what_is_no_root_is_refused(client: CoordinatorClient) -> None:
    with pytest.raises(Refused) as caught:
        await client.add_trust_root(b'{"signed": {}}')
    assert (caught.value.status, caught.value.remote_code) == (400, "InvalidRequest")
    assert not await client.trust_roots()
