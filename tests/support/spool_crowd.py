"""A node that accepts, claims, delivers and defers at random, for as long as it lives; run as a program.

It says in a line each: `accepted ID` when a message is ours, `sent ID` when a next hop would have read it, and `done
ID` when that is written down.
"""

import contextlib
import random
import sys
import threading
import time

from msgspec.structs import replace
from stored_values import NOON, a_delivery, a_keyring, an_event, an_id

from appliance.model.delivery import Delivery, DeliveryState
from appliance.model.event import EventType
from appliance.model.ids import id_source
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.records import StoreUnavailable
from appliance.storage.spool import Accept, AddPart, Complete, Keep, LeaseLost, Operation, Prepared, Undecided

AT_ONCE = 4
"""Messages that are accepted in one group, and deliveries that are claimed in one go, at most."""

RENEW_S = 0.05

new_id = id_source()


def main() -> None:
    """Be the node: the server, the node's name, the first number of its messages, how long its leases are."""
    url, name, first, lease_ms = sys.argv[1:]
    spool = MongoSpool(url, a_keyring(), name, lease_ms=int(lease_ms))
    spool.recover()
    threading.Thread(target=_keep_renewing, args=(spool,), daemon=True).start()
    chance = random.Random(first)
    number = int(first)
    while True:
        try:
            if chance.random() < 0.1:
                spool.tidy()
            if chance.random() < 0.5:
                number = _accept(spool, chance, number)
            else:
                for delivery in spool.claim(NOON, AT_ONCE):
                    _deliver(spool, chance, delivery)
        except StoreUnavailable:
            spool.tidy()


def _accept(spool: MongoSpool, chance: random.Random, number: int) -> int:
    following = number + chance.randint(1, AT_ONCE)
    units = []
    for each in range(number, following):
        operations: list[Operation] = [AddPart(an_id(each), 0, b"the beginning")]
        if chance.random() < 0.3:
            spool.apply(operations)
            operations = [AddPart(an_id(each), 1, b"and the end")]
        operations.append(Accept([a_delivery(each)], [an_event(each)]))
        units.append(spool.prepare(operations))
    if _happens(spool, units):
        for each in range(number, following):
            _say("accepted", an_id(each))
    return following


def _happens(spool: MongoSpool, units: list[Prepared]) -> bool:
    """Write, and wait until it is known whether it counts."""
    try:
        spool.write(units)
    except Undecided as error:
        while spool.undecided:
            spool.tidy()
        return error.happened
    except StoreUnavailable:
        spool.tidy()
        return False
    return True


def _deliver(spool: MongoSpool, chance: random.Random, delivery: Delivery) -> None:
    operation: Operation = Keep(replace(delivery, state=DeliveryState.WAITING, attempts=delivery.attempts + 1))
    delivered = chance.random() < 0.5
    if delivered:
        _say("sent", delivery.id)
        event = an_event(id=new_id(), type=EventType.DELIVERED)
        operation = Complete(delivery.id, delivery.message_id, [event], delivered=True)
    unit = spool.prepare([operation])
    try:
        while not _happens(spool, [unit]):
            pass
    except LeaseLost:
        return
    if delivered:
        _say("done", delivery.id)


def _keep_renewing(spool: MongoSpool) -> None:
    while True:
        with contextlib.suppress(StoreUnavailable):
            spool.renew()
        time.sleep(RENEW_S)


def _say(word: str, id: str) -> None:
    sys.stdout.write(f"{word} {id}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
