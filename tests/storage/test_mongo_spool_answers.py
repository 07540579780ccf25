"""The server's answer does not come: what was asked for has happened, or not, or comes later. Nobody is told a lie."""

from collections.abc import Iterator
from typing import Any

import pytest
import trio
from appliance_process import eventually
from mongod import Mongod, running_mongod
from pymongo.database import Database
from stored_values import NOON, a_delivery, a_keyring, an_event, an_id

from appliance.spool.committer import GroupCommitter
from appliance.storage import mongo_database
from appliance.storage.mongo_spool import MongoSpool
from appliance.storage.records import StoreFull, StoreUnavailable
from appliance.storage.spool import Accept, AddPart, Complete, Operation

ANSWER_MS = 400
"""For how long an answer is waited for here."""

LATE_MS = 2 * ANSWER_MS

LONG_MS = 2000
"""The same where something is to be done meanwhile, on a machine that is busy."""

LIMIT_S = 60.0

Raw = Database[dict[str, Any]]

GROUP: list[Operation] = [AddPart(an_id(1), 0, b"content"), Accept([a_delivery(1)], [an_event(1)])]


@pytest.fixture(scope="module", params=[False, True], ids=["mongod", "mongod_replica_set"])
def server(request: pytest.FixtureRequest) -> Iterator[Mongod]:
    """One that is told to fail, and is stopped."""
    with running_mongod(replica_set=request.param) as running:
        yield running


@pytest.fixture
def raw(server: Mongod) -> Iterator[Raw]:
    """An empty database, with nothing of ours in between."""
    with server.client() as client:
        client.drop_database("answers")
        yield client["answers"]


@pytest.fixture
def spool(server: Mongod, raw: Raw, monkeypatch: pytest.MonkeyPatch) -> Iterator[MongoSpool]:
    """A spool in it that does not wait for long."""
    MongoSpool(server.url_of(raw.name), a_keyring(), "one").close()
    opened = opened_with(ANSWER_MS, server.url_of(raw.name), monkeypatch)
    yield opened
    opened.close()


def opened_with(answer_ms: int, url: str, monkeypatch: pytest.MonkeyPatch) -> MongoSpool:
    """A spool that waits so long for an answer."""
    for limit in ("CONNECT_MS", "SELECTION_MS", "OPERATION_MS"):
        monkeypatch.setattr(mongo_database, limit, answer_ms)
    return MongoSpool(url, a_keyring(), "one")


def whole(spool: MongoSpool) -> bool:
    """Whether the group is there; it is so whole or not at all."""
    found = [spool.depth()[0] == 1, spool.part(an_id(1), 0) == b"content", len(spool.outbox(10)) == 1]
    assert len(set(found)) == 1
    return found[0]


def is_over(raw: Raw, collection: str) -> bool:
    """Whether the server is through with every update of one of its collections."""
    at_work = raw.client.admin.command("currentOp", {"$all": True})["inprog"]
    return not [each for each in at_work if each.get("ns") == f"{raw.name}.{collection}" and each.get("active")]


def test_a_word_that_was_given_counts_although_its_answer_got_lost(server: Mongod, raw: Raw, spool: MongoSpool) -> None:
    failed = {"code": 64, "errmsg": "waiting for replication timed out"}
    with server.failing(["update"], times=1, namespace=f"{raw.name}.nodes", writeConcernError=failed):
        spool.apply(GROUP)
    assert whole(spool)
    assert not spool.undecided


def test_a_word_that_was_not_given_is_never_given_later(server: Mongod, raw: Raw, spool: MongoSpool) -> None:
    """The command is carried out after it was given up: by then it finds nothing to change."""
    block = {"blockConnection": True, "blockTimeMS": LATE_MS}
    with (
        server.failing(["update"], times=1, namespace=f"{raw.name}.nodes", **block),
        pytest.raises(StoreUnavailable),
    ):
        spool.apply(GROUP)
    assert not spool.undecided
    assert not whole(spool)
    spool.apply([Accept([a_delivery(2)])])
    eventually(lambda: is_over(raw, "nodes"), what="the late command is carried out")
    assert spool.tidy()
    assert [each.id for each in spool.deliveries()] == [an_id(2)]
    spool.apply(GROUP)
    assert spool.depth()[0] == 2


def test_what_is_not_decided_is_seen_by_nobody(server: Mongod, raw: Raw, spool: MongoSpool) -> None:
    with server.failing(["update"], namespace=f"{raw.name}.nodes", closeConnection=True):
        with pytest.raises(StoreUnavailable):
            spool.apply(GROUP)
        assert spool.undecided
        assert raw["outbox"].count_documents({}) == raw["deliveries"].count_documents({}) == 1
        assert spool.outbox(10) == []
        assert spool.deliveries() == []
        assert spool.depth() == (0, None)
    assert spool.tidy()
    assert raw["outbox"].count_documents({}) == raw["deliveries"].count_documents({}) == 0


@pytest.mark.parametrize("by", ["itself", "another node"])
def test_what_counts_is_finished_although_the_server_has_refused_that(
    server: Mongod, raw: Raw, spool: MongoSpool, by: str
) -> None:
    with server.failing(["update"], times=1, namespace=f"{raw.name}.deliveries", errorCode=8):
        spool.apply(GROUP)
    assert spool.depth() == (0, None)
    if by == "itself":
        spool.apply([Accept([a_delivery(2)]), Complete(an_id(2), an_id(2))])
        assert whole(spool)
        return
    spool.close()
    other = MongoSpool(server.url_of(raw.name), a_keyring(), "two")
    assert other.tidy()
    assert whole(other)
    other.close()


def test_what_is_marked_late_is_seen_by_nobody_and_goes(raw: Raw, spool: MongoSpool) -> None:
    """As by a command that stood in a server's queue, for a group that was given up long ago."""
    spool.apply(GROUP)
    (document,) = raw["deliveries"].find()
    unit = f"{spool.nodes()[0].id}.1000"
    raw["deliveries"].insert_one({**document, "_id": an_id(2), "unit": unit, "fresh": True})
    raw["deliveries"].update_one({"_id": an_id(1)}, {"$set": {"unit": unit, "next": {"attempts": 7}}})
    assert spool.deliveries() == [a_delivery(1)]
    assert spool.claim(NOON, 10) == []
    assert spool.tidy()
    assert [document["_id"] for document in raw["deliveries"].find()] == [an_id(1)]
    assert [each.attempts for each in spool.claim(NOON, 10)] == [0]


def test_a_claim_whose_answer_got_lost_is_given_back(server: Mongod, raw: Raw, spool: MongoSpool) -> None:
    spool.apply(GROUP)
    failed = {"code": 64, "errmsg": "waiting for replication timed out"}
    with (
        server.failing(["update"], times=1, namespace=f"{raw.name}.deliveries", writeConcernError=failed),
        pytest.raises(StoreUnavailable),
    ):
        spool.claim(NOON, 10)
    assert spool.claim(NOON, 10) == []
    spool.renew()
    assert spool.tidy()
    assert [each.id for each in spool.claim(NOON, 10)] == [an_id(1)]


def test_a_server_without_room_takes_no_new_mail_until_it_says_otherwise(
    server: Mongod, raw: Raw, spool: MongoSpool
) -> None:
    assert spool.has_room(1)
    with server.failing(["insert"], times=1, errorCode=14031), pytest.raises(StoreFull):
        spool.apply(GROUP)
    assert not spool.has_room(1)
    with pytest.raises(StoreFull):
        spool.apply(GROUP)
    assert spool.tidy()
    assert spool.has_room(1)
    spool.apply(GROUP)
    assert whole(spool)


def test_nobody_is_told_anything_while_it_is_not_known_what_counts(
    server: Mongod, raw: Raw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server hangs with the word on its way. Who waits for it hears what is true, when it goes on."""
    # The word waits in the server for a moment: enough to see that it is there, and to let the server hang.
    block = {"blockConnection": True, "blockTimeMS": LONG_MS * 3 // 4}
    spool = opened_with(LONG_MS, server.url_of(raw.name), monkeypatch)
    heard: list[bool] = []
    words = raw.client.admin.command("configureFailPoint", "failCommand", mode="off")["count"]

    def the_word_is_there() -> None:
        waited_for = {"timesEntered": words + 1, "maxTimeMS": int(LIMIT_S * 1000)}
        raw.client.admin.command("waitForFailPoint", "failCommand", **waited_for)

    async def wait_for_the_250(committer: GroupCommitter) -> None:
        try:
            await committer.commit(GROUP)
        except StoreUnavailable:
            heard.append(False)
        else:
            heard.append(True)

    async def play() -> None:
        async with GroupCommitter(spool) as committer, trio.open_nursery() as nursery:
            nursery.start_soon(wait_for_the_250, committer)
            await trio.to_thread.run_sync(the_word_is_there)
            server.freeze()
            while not spool.undecided:
                await trio.sleep(0.01)
            assert not await committer.call(spool.tidy)
            assert spool.undecided
            assert heard == []
            server.thaw()
            while spool.undecided:
                await committer.call(spool.tidy)
            await committer.call(spool.tidy)

    async def play_for_a_while() -> None:
        try:
            with trio.fail_after(LIMIT_S):
                await play()
        finally:
            server.thaw()

    with server.failing(["update"], times=1, namespace=f"{raw.name}.nodes", **block):
        trio.run(play_for_a_while)
    assert heard == [whole(spool)]
    spool.close()
