"""The delivery log over the API: who reads it, what it says of a message, and how it is followed."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import trio
from control_api import graphql_ws
from control_api.ids import global_id
from control_api.nouns import log
from engine_stand_in import EngineStandIn, standing_in
from graphql_client import GraphqlClient
from served_api import ServedApi
from signed_in import signed_in
from stored_values import an_event
from websocket_client import WebsocketClient, websocket

from appliance.configuration import Configuration
from appliance.logbook.messages import LoggedMessage, message
from appliance.model.access import Scope
from appliance.model.account import Account, Role
from appliance.model.domain import DeliveryMode, Domain, LogLevel
from appliance.model.event import DeliveryEvent, EventType
from appliance.model.ids import id_source
from appliance.model.time import DAY_MS, HOUR_MS, format_instant, wall_clock
from appliance.privacy.declarations import EVENTS
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert, RecordStore, StoreUnavailable

MESSAGES = """
query ($name: String!, $first: Int, $after: String, $filter: MessageFilter) {
  domain(name: $name) {
    messages(first: $first, after: $after, filter: $filter) {
      pageInfo { endCursor hasNextPage }
      edges { node {
        id receivedAt clientAddress clientName subject sender recipient sizeBytes
        events { id type at response code enhancedCode reason serverName serverAddress durationMs attempt }
      } }
    }
  }
}
"""
STATISTICS = """
query ($name: String!, $days: Int) {
  domain(name: $name) { statistics(days: $days) { day received delivered softBounced hardBounced refused } }
}
"""
FOLLOW = """
subscription ($domain: String, $recipient: String, $type: EventType, $after: ID) {
  deliveryEvents(domain: $domain, recipient: $recipient, type: $type, after: $after) { id reason }
}
"""
NODE = """
query ($id: ID!) { node(id: $id) { id ... on Message { recipient } ... on DeliveryEvent { reason } } }
"""


class Mail:
    """Makes events of domains of people, now."""

    def __init__(self, api: ServedApi) -> None:
        self._api = api
        self.new_id = id_source()

    def domain(self, account: Account, name: str) -> Domain:
        """A verified domain."""
        return self._api.rooms.domains.add(
            name, account, verified=True, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.EVENTS
        )

    def event(self, domain: Domain, reason: str = "accepted", **changes: Any) -> DeliveryEvent:
        """One of this moment."""
        usual = {"at": wall_clock(), "recipient": f"info@{domain.name}", "message_id": self.new_id()}
        return an_event(id=self.new_id(), domain_id=domain.id, reason=reason, **{**usual, **changes})

    def log(self, *events: DeliveryEvent) -> None:
        """These are in the log."""
        self._api.rooms.records.apply([Insert(EVENTS, event_to_row(event)) for event in events])

    def beginning(self, domain: Domain) -> str:
        """What to follow behind, so that one event of the domain is heard as soon as the following has begun.

        Nothing else tells of that: an operation that is sent later may be answered before.
        """
        first, second = self.event(domain), self.event(domain, "begun")
        self.log(first, second)
        return global_id("DeliveryEvent", first.id)


@pytest.fixture
def mail(api: ServedApi) -> Mail:
    return Mail(api)


@pytest.fixture
def engine(config: Configuration, api: ServedApi) -> Iterator[EngineStandIn]:
    with standing_in(config, []) as engine:
        yield engine


def nodes(client: GraphqlClient, name: str, **variables: object) -> list[Any]:
    """The messages of a page."""
    return [edge["node"] for edge in client.data(MESSAGES, name=name, **variables)["domain"]["messages"]["edges"]]


# ---------------------------------------------------------------------- reading


def test_a_message_has_its_data_points_and_all_its_events(api: ServedApi, mail: Mail) -> None:
    with signed_in(api) as (ada, account):
        domain = mail.domain(account, "ada.example")
        received = mail.event(domain, subject="Über 5 €", size=1000, message_id="m1")
        changed: dict[str, Any] = {
            "message_id": "m1",
            "subject": None,
            "client_address": None,
            "client_name": None,
            "size": 1400,
        }
        delivered = mail.event(domain, "delivered", type=EventType.DELIVERED, response="250 ok", **changed)
        mail.log(received, delivered)
        (message,) = nodes(ada, "ada.example")
        assert message["receivedAt"] == format_instant(received.at)
        assert (message["clientAddress"], message["clientName"]) == ("192.0.2.17", "mail.sender.example")
        assert (message["subject"], message["sizeBytes"]) == ("Über 5 €", 1000)
        assert (message["sender"], message["recipient"]) == ("stranger@sender.example", "info@ada.example")
        assert [each["type"] for each in message["events"]] == ["RECEIVED", "DELIVERED"]
        assert message["events"][1]["response"] == "250 ok"
        assert ada.data(NODE, id=message["id"])["node"] == {"id": message["id"], "recipient": "info@ada.example"}
        event_id = message["events"][1]["id"]
        assert ada.data(NODE, id=event_id)["node"] == {"id": event_id, "reason": "delivered"}


def test_messages_come_page_by_page_the_newest_first_and_by_a_filter(api: ServedApi, mail: Mail) -> None:
    with signed_in(api) as (ada, account):
        domain = mail.domain(account, "ada.example")
        mail.log(*(mail.event(domain, str(number)) for number in range(5)))
        mail.log(mail.event(domain, "nobody", type=EventType.REFUSED, recipient="nobody@ada.example"))
        page = ada.data(MESSAGES, name="ada.example", first=4)["domain"]["messages"]
        rest = ada.data(MESSAGES, name="ada.example", first=4, after=page["pageInfo"]["endCursor"])["domain"][
            "messages"
        ]
        assert (page["pageInfo"]["hasNextPage"], rest["pageInfo"]["hasNextPage"]) == (True, False)
        told = [edge["node"]["events"][0]["reason"] for edge in (*page["edges"], *rest["edges"])]
        assert told == ["nobody", "4", "3", "2", "1", "0"]
        assert len(nodes(ada, "ada.example", filter={"type": "REFUSED"})) == 1
        assert len(nodes(ada, "ada.example", filter={"recipient": "Nobody@ada.example"})) == 1
        assert nodes(ada, "ada.example", filter={"sender": ""}) == []
        assert nodes(ada, "ada.example", filter={"until": "2020-01-01T00:00:00Z"}) == []
        assert len(nodes(ada, "ada.example", filter={"since": "2020-01-01T00:00:00Z", "sender": None})) == 6


def test_days_are_counted(api: ServedApi, mail: Mail) -> None:
    with signed_in(api) as (ada, account):
        domain = mail.domain(account, "ada.example")
        now = wall_clock()
        mail.log(*(mail.event(domain, type=type, at=now) for type in (*EventType, EventType.DELIVERED)))
        mail.log(mail.event(domain, at=now - DAY_MS))
        days = ada.data(STATISTICS, name="ada.example", days=2)["domain"]["statistics"]
        assert [(each["day"], each["received"], each["delivered"], each["refused"]) for each in days] == [
            (format_instant(now - DAY_MS)[:10], 1, 0, 0),
            (format_instant(now)[:10], 1, 2, 1),
        ]
        assert len(ada.data(STATISTICS, name="ada.example")["domain"]["statistics"]) == 7
        for days_asked in (0, -1, 93):
            assert ada.ask(STATISTICS, name="ada.example", days=days_asked).codes == ["BAD_USER_INPUT"]


def test_a_log_is_its_owners_and_an_operators_only_while_it_is_granted(api: ServedApi, mail: Mail) -> None:
    with (
        signed_in(api) as (ada, account),
        signed_in(api, "bob@people.test") as (bob, _),
        signed_in(api, "op@people.test", Role.OPERATOR) as (operator, _),
        api.operator() as machine,
    ):
        mail.log(mail.event(mail.domain(account, "ada.example")))
        (message,) = nodes(ada, "ada.example")
        ids = [message["id"], message["events"][0]["id"]]
        assert bob.data(MESSAGES, name="ada.example") == {"domain": None}
        assert [bob.data(NODE, id=id)["node"] for id in ids] == [None, None]
        assert bob.data(STATISTICS, name="ada.example") == {"domain": None}
        assert operator.ask(MESSAGES, name="ada.example").codes == ["FORBIDDEN"]
        assert operator.ask(STATISTICS, name="ada.example", days=1).codes == ["FORBIDDEN"]
        assert [operator.ask(NODE, id=id).codes for id in ids] == [["FORBIDDEN"], ["FORBIDDEN"]]
        assert machine.data(NODE, id=ids[0])["node"] is not None
        api.rooms.help.ask(account, "Help", "It is late.", api.rooms.clock() + HOUR_MS)
        assert len(nodes(operator, "ada.example", filter={"type": "RECEIVED"})) == 1
        assert operator.data(NODE, id=ids[1])["node"] is not None
        assert len(operator.data(STATISTICS, name="ada.example", days=1)["domain"]["statistics"]) == 1
        read = [(access.operator, access.query) for access, _ in api.rooms.help.accesses(account.id)]
        assert read == [
            ("op@people.test", "statistics(days: 1)"),
            ("op@people.test", "deliveryEvent"),
            ("op@people.test", "messages(type)"),
        ]


def test_a_token_needs_the_scope_for_logs(api: ServedApi, mail: Mail) -> None:
    with signed_in(api) as (ada, account):
        mail.log(mail.event(mail.domain(account, "ada.example")))
        (message,) = nodes(ada, "ada.example")
        for scopes, codes in (({Scope.READ}, ["FORBIDDEN"]), ({Scope.READ, Scope.LOGS}, [])):
            secret, _ = api.rooms.entrance.api_tokens.create(account, "a program", frozenset(scopes), None)
            with api.client(token=secret) as program:
                for asked in (MESSAGES, STATISTICS):
                    assert program.ask(asked, name="ada.example").codes == codes
                for id in (message["id"], message["events"][0]["id"]):
                    assert program.ask(NODE, id=id).codes == codes


# ---------------------------------------------------------------------- following


@asynccontextmanager
async def following(api: ServedApi, browser: GraphqlClient, **variables: object) -> AsyncIterator[WebsocketClient]:
    """Somebody signed in who follows, as far as that can be known from here."""
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    async with websocket(api.port, headers=[("cookie", cookies)]) as client:
        await client.introduce()
        await client.subscribe("log", FOLLOW, **variables)
        yield client


async def told(client: WebsocketClient) -> Any:
    """The next event."""
    message = await client.hear()
    assert message["type"] == "next", message
    return message["payload"]["data"]["deliveryEvents"]


async def until_followed(engine: EngineStandIn) -> None:
    with trio.fail_after(20):
        while not engine.is_followed:
            await trio.sleep(0.01)


async def test_each_follows_own_domains(api: ServedApi, mail: Mail, engine: EngineStandIn) -> None:
    with signed_in(api) as (ada, one), signed_in(api, "bob@people.test") as (bob, other):
        adas, bobs = mail.domain(one, "ada.example"), mail.domain(other, "bob.example")
        refused = [mail.event(bobs, type=EventType.REFUSED) for _ in range(2)]
        mail.log(*refused)
        async with (
            following(api, ada, after=mail.beginning(adas)) as at_adas,
            following(api, bob, type="REFUSED", after=global_id("DeliveryEvent", refused[0].id)) as at_bobs,
        ):
            for client in (at_adas, at_bobs):
                await told(client)
            await until_followed(engine)
            engine.happens(
                mail.event(bobs, "1"),
                mail.event(adas, "2"),
                mail.event(bobs, "3", type=EventType.REFUSED),
                mail.event(adas, "4"),
            )
            assert [(await told(at_adas))["reason"] for _ in range(2)] == ["2", "4"]
            assert (await told(at_bobs))["reason"] == "3"


async def test_following_goes_on_behind_an_event(api: ServedApi, mail: Mail, engine: EngineStandIn) -> None:
    with signed_in(api) as (ada, account):
        domain = mail.domain(account, "ada.example")
        mail.log(*(mail.event(domain, str(number)) for number in range(3)))
        last_but_one = nodes(ada, "ada.example")[1]["events"][0]
        engine.happens(mail.event(domain, "3"))
        async with following(api, ada, after=last_but_one["id"]) as client:
            heard = [await told(client) for _ in range(2)]
            await until_followed(engine)
            engine.happens(mail.event(domain, "4"))
            heard.append(await told(client))
        assert [each["reason"] for each in heard] == ["2", "3", "4"]
        async with following(api, ada, after=heard[1]["id"]) as client:
            assert await told(client) == heard[2]


@pytest.mark.parametrize("after", ["nonsense", "RGVsaXZlcnk6MQ", "RGVsaXZlcnlFdmVudDp6eno"])
async def test_what_is_no_event_is_nothing_to_go_on_behind(api: ServedApi, after: str) -> None:
    with signed_in(api) as (ada, _):
        async with following(api, ada, after=after) as client:
            message = await client.hear()
            assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", "BAD_USER_INPUT")


async def test_nobody_follows_the_log_of_others(api: ServedApi, mail: Mail) -> None:
    with (
        signed_in(api, "bob@people.test") as (bob, account),
        signed_in(api) as (ada, _),
        signed_in(api, "op@people.test", Role.OPERATOR) as (operator, _),
    ):
        mail.domain(account, "bob.example")
        for browser, domain, code in (
            (ada, "bob.example", "NOT_FOUND"),
            (ada, "nobody.example", "NOT_FOUND"),
            (bob, "no domain", "BAD_USER_INPUT"),
            (operator, "bob.example", "FORBIDDEN"),
        ):
            async with following(api, browser, domain=domain) as client:
                message = await client.hear()
                assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", code)


async def test_a_domain_that_is_given_up_is_not_followed_any_more(
    api: ServedApi, mail: Mail, engine: EngineStandIn
) -> None:
    with signed_in(api) as (ada, account):
        going, next_to_go = mail.domain(account, "going.example"), mail.domain(account, "next.example")
        staying = mail.domain(account, "staying.example")
        behind = {domain.name: mail.beginning(domain) for domain in (going, next_to_go, staying)}
        async with following(api, ada, after=behind[staying.name]) as of_all:
            assert (await told(of_all))["reason"] == "begun"
            # All who follow are looked at together. Once a second one is found to have ended, the first is known of.
            for domain in (going, next_to_go):
                async with following(api, ada, domain=domain.name, after=behind[domain.name]) as of_one:
                    # One that had not begun would be turned away, and nobody would have looked at the others.
                    assert (await told(of_one))["reason"] == "begun"
                    await trio.to_thread.run_sync(api.rooms.domains.erase, domain)
                    message = await of_one.hear()
                    assert (message["type"], message["payload"][0]["extensions"]["code"]) == ("error", "NOT_FOUND")
            engine.happens(mail.event(going, "of nobody"), mail.event(staying, "of ada"))
            assert (await told(of_all))["reason"] == "of ada"


async def test_one_who_signs_out_hears_no_more(
    api: ServedApi, mail: Mail, engine: EngineStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graphql_ws, "STILL_KNOWN_S", 0.05)
    with signed_in(api) as (ada, account):
        domain = mail.domain(account, "ada.example")
        async with following(api, ada) as client:
            await until_followed(engine)
            engine.happens(mail.event(domain, "before"))
            assert (await told(client))["reason"] == "before"
            await trio.to_thread.run_sync(ada.data, "mutation { signOut { errors { code } } }")
            assert (await client.closed())[0] == 4403


async def test_an_event_knows_its_message_before_the_log_has_it(
    api: ServedApi, mail: Mail, engine: EngineStandIn
) -> None:
    asked = "subscription { deliveryEvents { type message { id subject clientAddress sizeBytes events { type } } } }"
    with signed_in(api) as (ada, account):
        domain = mail.domain(account, "ada.example")
        cookies = "; ".join(f"{name}={value}" for name, value in ada.cookies.items())
        async with websocket(api.port, headers=[("cookie", cookies)]) as client:
            await client.introduce()
            await client.subscribe("log", asked)
            await until_followed(engine)
            changed: dict[str, Any] = {"message_id": "m1", "subject": None, "client_address": None, "size": 1400}
            engine.happens(
                mail.event(domain, subject="Figures", message_id="m1", size=1000),
                mail.event(domain, type=EventType.DELIVERED, **changed),
            )
            first, second = (await told(client))["message"], (await told(client))["message"]
        assert (second["id"], second["subject"], second["sizeBytes"]) == (first["id"], "Figures", 1000)
        assert second["clientAddress"] == "192.0.2.17"
        assert [each["type"] for each in second["events"]] == ["RECEIVED", "DELIVERED"]


ALIKE = "subscription ($after: ID) { deliveryEvents(after: $after) { id message { subject } } }"


@asynccontextmanager
async def asking_alike(api: ServedApi, browser: GraphqlClient, **variables: object) -> AsyncIterator[WebsocketClient]:
    cookies = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    async with websocket(api.port, headers=[("cookie", cookies)]) as client:
        await client.introduce()
        await client.subscribe("log", ALIKE, **variables)
        yield client


async def test_what_many_ask_in_the_same_words_is_looked_up_once(
    api: ServedApi, mail: Mail, engine: EngineStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_up: list[str] = []

    def looking_up(records: RecordStore, key: str) -> LoggedMessage | None:
        looked_up.append(key)
        return message(records, key)

    monkeypatch.setattr(log, "message", looking_up)
    with signed_in(api) as (ada, account):
        domain = mail.domain(account, "ada.example")
        behind = mail.beginning(domain)
        async with AsyncExitStack() as stack:
            crowd = [await stack.enter_async_context(asking_alike(api, ada, after=behind)) for _ in range(5)]
            for client in crowd:
                await told(client)
            await until_followed(engine)
            looked_up.clear()
            engine.happens(mail.event(domain, subject="Figures"))
            heard = [await told(client) for client in crowd]
    assert heard[0]["message"] == {"subject": "Figures"}
    assert heard == heard[:1] * 5
    assert len(looked_up) == 1


async def test_an_answer_that_failed_is_tried_anew_for_who_comes_later(
    api: ServedApi, mail: Mail, engine: EngineStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(records: RecordStore, key: str) -> LoggedMessage | None:
        raise StoreUnavailable("the store is away")

    with signed_in(api) as (ada, account):
        domain = mail.domain(account, "ada.example")
        before, event = mail.event(domain), mail.event(domain, subject="Figures")
        mail.log(before, event)
        after = global_id("DeliveryEvent", before.id)
        with monkeypatch.context() as patch:
            patch.setattr(log, "message", away)
            async with asking_alike(api, ada, after=after) as client:
                (error,) = (await client.hear())["payload"]["errors"]
                assert error["extensions"]["code"] == "UNAVAILABLE"
        async with asking_alike(api, ada, after=after) as client:
            assert (await told(client))["message"] == {"subject": "Figures"}
