"""Several processes claim from one queue."""

from collections import Counter

from mongod import Mongod
from spool_claimers import claim_all
from storage_backends import MongoBackend
from stored_values import NOON, a_delivery, an_id

from appliance.storage.spool import Accept

QUEUE = 2000
WORKERS = 8


def test_of_eight_workers_on_one_queue_none_has_what_another_has(mongod: Mongod) -> None:
    house = MongoBackend(mongod)
    numbers = range(1, QUEUE + 1)
    house.spool().apply([Accept([a_delivery(number, priority=number % 3) for number in numbers])])
    shares = claim_all(house.url, WORKERS, NOON, 20)
    times = Counter(id for share in shares for id in share.ids)
    assert set(times) == {an_id(number) for number in numbers}
    assert set(times.values()) == {1}
    # And no one is left out because others are quicker.
    assert len([share for share in shares if share.ids]) > WORKERS // 2
    house.close()
