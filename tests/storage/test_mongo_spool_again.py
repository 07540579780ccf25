"""A node that was taken for dead becomes one of them again, and the server fails in the middle of that."""

from collections.abc import Iterator

import pytest
from mongod import running_mongod
from storage_backends import MongoBackend
from stored_values import NOON, a_delivery, an_id

from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Accept, AddPart, Complete

INTERRUPTED = 11600
"""InterruptedAtShutdown, as of a server that is being stopped."""


@pytest.fixture
def place() -> Iterator[MongoBackend]:
    """A database on a server that may be told to fail."""
    with running_mongod() as server:
        place = MongoBackend(server)
        yield place
        place.close()


def taken_for_dead(place: MongoBackend) -> MongoSpool:
    """A node that has one delivery under way, and of which the others have just said that it is gone."""
    spool = place.spool()
    spool.apply([AddPart(an_id(1), 0, b"content"), Accept([a_delivery(1)])])
    assert len(spool.claim(NOON, 1)) == 1
    with place.server.client() as client:
        client[place.database]["nodes"].update_many({}, {"$set": {"gone": True}})
    return spool


def test_what_it_has_under_way_is_not_lost_before_it_was_brought_along(place: MongoBackend) -> None:
    spool = taken_for_dead(place)
    with pytest.raises(StoreUnavailable):
        spool.renew()
    deliveries = f"{place.database}.deliveries"
    with place.server.failing(["update"], times=1, namespace=deliveries, errorCode=INTERRUPTED, appName="onward"):
        assert not spool.tidy()
        # It is one of them again, and its leases bear its old name.
        with pytest.raises(StoreUnavailable):
            spool.renew()
    assert spool.tidy()
    assert spool.renew() == []
    spool.apply([Complete(an_id(1), an_id(1))])
    assert spool.depth() == (0, None)
