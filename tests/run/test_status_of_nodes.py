"""What the engine tells of the nodes that share its store: who they are, and what each of them has under way."""

from collections.abc import Iterator
from typing import Any, cast

import pytest
from mongod import Mongod
from storage_backends import MongoBackend
from stored_values import NOON, a_delivery, an_id

from appliance.run.control_verbs import ControlVerbs
from appliance.run.present_queue import PresentQueue
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.spool import Accept, AddPart, Complete, SpoolStore
from smtp.server.serving import Statistics


@pytest.fixture
def place(mongod: Mongod) -> Iterator[MongoBackend]:
    """A database with nothing in it."""
    place = MongoBackend(mongod)
    yield place
    place.close()


async def told(store: SpoolStore) -> dict[str, Any]:
    """The engine's answer about its status; the rooms that have no part in it are not there."""
    absent = cast(Any, None)
    verbs = ControlVerbs(
        queue=absent,
        submission=absent,
        present_queue=PresentQueue(store),
        live=absent,
        statistics=Statistics(),
        measurements=absent,
        started_at=NOON,
        trouble=lambda: None,
        catch_up=absent,
    )
    (answer,) = [each async for each in verbs.by_name()["status"]({})]
    return dict(answer)


async def queued(store: MongoSpool) -> dict[str, int]:
    """Of each node, by its name, what it is said to have."""
    return {each["name"]: each["queued"] for each in (await told(store))["nodes"]}


async def test_status_says_of_each_node_what_it_has_under_way_whichever_is_asked(place: MongoBackend) -> None:
    one, two = place.spool(node="one"), place.spool(node="two")
    for number in range(5):
        one.apply([AddPart(an_id(number), 0, b"content"), Accept([a_delivery(number)])])
    assert await queued(one) == {"one": 0, "two": 0}, "what waits is nobody's"
    (first,) = one.claim(NOON, 1)
    assert len(two.claim(NOON, 3)) == 3
    for asked in (one, two):
        assert await queued(asked) == {"one": 1, "two": 3}
        assert (await told(asked))["queued"] == 5
    one.apply([Complete(first.id, first.message_id)])
    assert await queued(two) == {"one": 0, "two": 3}
