"""Who sees what of what is somebody's: every type that has an id and every field of every type, asked by everybody.

Two walls are held to here, each for itself. A thing is found by its id only by those who may know of it. And where
somebody holds a thing that is another's, by whatever way, what is behind it is still not told: the fields that lead
further ask for themselves. Each type and each field has a row; one without a row fails.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import pytest
from control_api import operations
from control_api.callers import Caller, CallerKind
from control_api.context import Context
from control_api.execution import BoundedExecutor
from control_api.ids import global_id
from control_api.nouns.accounts import Account
from control_api.nouns.domains import Domain
from control_api.nouns.help import HelpRequest
from control_api.rooms import Rooms
from control_api.schema import SCHEMA
from graphql import (
    GraphQLField,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    build_schema,
    execute_sync,
    get_named_type,
    is_leaf_type,
    parse,
)
from served_api import Letters, furnished
from stored_values import an_event

from appliance.configuration import Configuration
from appliance.logbook.messages import message_key
from appliance.model.access import Scope
from appliance.model.account import Account as StoredAccount
from appliance.model.account import Role
from appliance.model.block import BlockKind
from appliance.model.domain import DeliveryMode, LogLevel
from appliance.model.time import wall_clock
from appliance.privacy.declarations import EVENTS
from appliance.storage.event_rows import event_to_row
from appliance.storage.records import Insert

READ, WRITE, LOGS, OPERATE = Scope
FOUND: Final = "found"
NOTHING: Final = "nothing"
"""As if there were no such thing."""


@dataclass(frozen=True)
class People:
    """Who asks, by what they are to the owner of the things."""

    rooms: Rooms
    owner: StoredAccount
    callers: Mapping[str, Caller]


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Iterator[People]:
    """An appliance whose engine is away, an owner of things, and others."""
    config = Configuration(hostname="mx.onward.test", data_dir=tmp_path_factory.mktemp("api") / "var")
    with furnished(config, Letters()) as rooms:
        owner, other = rooms.accounts.add("owner@people.test"), rooms.accounts.add("other@people.test")
        operator = rooms.accounts.add("operator@people.test", role=Role.OPERATOR)
        yield People(
            rooms,
            owner,
            {
                "nobody": Caller(CallerKind.ANONYMOUS),
                "owner": session(owner),
                "other": session(other),
                "operator": session(operator),
                "machine": Caller(CallerKind.LOCAL),
                "token": token(owner, *Scope),
                "token without READ": token(owner, WRITE, LOGS, OPERATE),
                "token without LOGS": token(owner, READ, WRITE, OPERATE),
                "operator's token without OPERATE": token(operator, READ, WRITE, LOGS),
            },
        )


def session(account: StoredAccount) -> Caller:
    return Caller(CallerKind.SESSION, account=account, credential_id="a session")


def token(account: StoredAccount, *scopes: Scope) -> Caller:
    return Caller(CallerKind.TOKEN, account=account, credential_id="a token", scopes=frozenset(scopes))


def outcomes(*told: str) -> dict[str, str]:
    """What the callers are told, in their order."""
    names = (
        "nobody",
        "owner",
        "other",
        "operator",
        "machine",
        "token",
        "token without READ",
        "token without LOGS",
        "operator's token without OPERATE",
    )
    return dict(zip(names, told, strict=True))


# ------------------------------------------------------------------ by id

U, F, AWAY = "UNAUTHENTICATED", "FORBIDDEN", "UNAVAILABLE"

OWN = outcomes(U, FOUND, NOTHING, FOUND, FOUND, FOUND, F, FOUND, NOTHING)
"""The owner's, and for operators to look after."""
PRIVATE = outcomes(U, FOUND, NOTHING, NOTHING, F, FOUND, F, FOUND, NOTHING)
"""The owner's alone. The operator of the machine has no account that could have one."""
LOGGED = outcomes(U, FOUND, NOTHING, F, FOUND, FOUND, F, F, NOTHING)
"""Of the owner's log, which is granted to nobody."""
OF_OPERATORS = outcomes(U, NOTHING, NOTHING, FOUND, FOUND, NOTHING, F, NOTHING, NOTHING)
OF_THE_ENGINE = outcomes(U, AWAY, AWAY, AWAY, AWAY, AWAY, F, AWAY, AWAY)
"""It is asked for no more than the caller may see; here it is away."""

BY_ID = {
    "Account": OWN,
    "Alias": OWN,
    "ApiToken": PRIVATE,
    "Block": OF_OPERATORS,
    "Delivery": OF_THE_ENGINE,
    "DeliveryEvent": LOGGED,
    "Domain": OWN,
    "HelpRequest": OWN,
    "Hold": OF_THE_ENGINE,
    "Message": LOGGED,
    "Session": PRIVATE,
}


@pytest.fixture(scope="module")
def things(people: People) -> dict[str, str]:
    """The stored id of one thing of each kind, all the owner's."""
    rooms, owner = people.rooms, people.owner
    domain = rooms.domains.add(
        "forward.test", owner, verified=True, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.EVENTS
    )
    event = an_event(domain_id=domain.id, at=wall_clock())
    rooms.records.apply([Insert(EVENTS, event_to_row(event))])
    _, a_session = rooms.entrance.sessions.begin(owner, "a browser")
    _, a_token = rooms.entrance.api_tokens.create(owner, "a program", [READ], None)
    return {
        "Account": owner.id,
        "Alias": rooms.aliases.create(domain, "info", ["owner@dest.test"], confirmed=True).alias.id,
        "ApiToken": a_token.id,
        "Block": rooms.blocks.create(BlockKind.SENDER_DOMAIN, "spam.test", "Nothing but spam.").id,
        "Delivery": "d1",
        "DeliveryEvent": event.id,
        "Domain": domain.id,
        "HelpRequest": rooms.help.ask(owner, "A question", "How?").id,
        "Hold": "h1",
        "Message": message_key(event),
        "Session": a_session.id,
    }


BUILT = build_schema(SCHEMA.as_str())


def test_each_type_with_an_id_has_a_row() -> None:
    node = BUILT.type_map["Node"]
    assert isinstance(node, GraphQLInterfaceType)
    assert BY_ID.keys() == {one.name for one in BUILT.get_possible_types(node)}


@pytest.mark.parametrize("kind", BY_ID)
def test_a_thing_is_found_by_its_id_only_by_those_who_may_know_of_it(
    people: People, things: Mapping[str, str], kind: str
) -> None:
    text = f'{{ node(id: "{global_id(kind, things[kind])}") {{ id }} }}'
    found = {}
    for who, caller in people.callers.items():
        answer = operations.execute(
            operations.read(text, signed_in=True), operations.Request(text), Context(caller, people.rooms)
        )
        found[who] = code_of(answer) or (NOTHING if answer["data"]["node"] is None else FOUND)
    assert found == BY_ID[kind]


def code_of(answer: Mapping[str, Any]) -> str | None:
    """What is wrong, where something is."""
    return next((str(error["extensions"]["code"]) for error in answer.get("errors", ())), None)


# ------------------------------------------------------------------ what is behind a thing

READERS = outcomes(U, FOUND, F, FOUND, FOUND, FOUND, F, FOUND, F)
"""The owner and operators, who may read."""
OWNER = outcomes(U, FOUND, F, F, F, FOUND, F, FOUND, F)
SIGNED_IN = outcomes(U, FOUND, FOUND, FOUND, FOUND, FOUND, F, FOUND, FOUND)
"""Whoever may read at all, and holds the thing: that somebody does is seen to where it is found."""
LOG = outcomes(U, FOUND, F, F, FOUND, FOUND, FOUND, F, F)
"""The owner's log, which is granted to nobody. It has a scope of its own."""

BEHIND = {
    "Account.domains": READERS,
    "Account.helpRequests": READERS,
    "Account.logAccesses": READERS,
    "Account.apiTokens": OWNER,
    "Account.sessions": OWNER,
    "Domain.aliases": SIGNED_IN,
    "Domain.messages": LOG,
    "Domain.statistics": LOG,
    "HelpRequest.account": SIGNED_IN,
    "HelpRequest.replies": SIGNED_IN,
}

TOLD = {
    "Account": "id email emailVerified role createdAt plan twoFactorEnabled",
    "AccountConnection": "edges pageInfo totalCount",
    "AccountEdge": "cursor node",
    "AddDomainPayload": "errors domain",
    "Alias": "id pattern kind action enabled expiresAt remainingUses description createdAt domain destinations",
    "AliasConnection": "edges pageInfo totalCount",
    "AliasEdge": "cursor node",
    "ApiToken": "id name scopes createdAt expiresAt lastUsedAt",
    "ApplianceNode": "name seenAt queued clockAheadSeconds",
    "AskForHelpPayload": "errors helpRequest",
    "Block": "id kind value reason createdAt expiresAt",
    "BlockConnection": "edges pageInfo totalCount",
    "BlockEdge": "cursor node",
    "ChangePasswordPayload": "errors",
    "CheckDomainPayload": "errors domain",
    "ConfirmDestinationPayload": "errors destination",
    "ConfirmTwoFactorPayload": "errors",
    "CreateAliasPayload": "errors alias",
    "CreateApiTokenPayload": "errors apiToken secret",
    "CreateBlockPayload": "errors block",
    "DataCollection": "name store purpose fields retentionSeconds count oldest",
    "DayStatistics": "day received delivered softBounced hardBounced refused",
    "DeleteAccountPayload": "errors receipt",
    "DeleteAliasPayload": "errors",
    "DeleteBlockPayload": "errors",
    "DeletionReceipt": "deletedAt removed signature publicKey signedText",
    "Delivery": "id state messageId sender recipient destinationDomain sizeBytes priority acceptedAt attempts "
    "nextAttemptAt expiresAt lastResponse why",
    "DeliveryConnection": "edges pageInfo totalCount",
    "DeliveryEdge": "cursor node",
    "DeliveryEvent": "id at type response code enhancedCode reason serverName serverAddress tls durationMs attempt "
    "message",
    "Destination": "target confirmed",
    "DisableTwoFactorPayload": "errors",
    "DnsRecord": "purpose name type expected found ok required advice",
    "Domain": "id name verified deliveryMode logLevel quarantineAction allowFromRewrite createdAt dnsRecords",
    "DomainConnection": "edges pageInfo totalCount",
    "DomainEdge": "cursor node",
    "EnableTwoFactorPayload": "errors otpauthUrl recoveryCodes",
    "EndSessionPayload": "errors",
    "Explanation": "accepted code enhancedCode reply reason steps deliveries",
    "ExplanationStep": "check outcome detail",
    "ExportAccountPayload": "errors json",
    "HelpReply": "at fromOperator body",
    "HelpRequest": "id subject body open logAccessUntil createdAt",
    "HelpRequestConnection": "edges pageInfo totalCount",
    "HelpRequestEdge": "cursor node",
    "Hold": "id domain destinationDomain sender createdAt",
    "HoldPayload": "errors hold affected",
    "LogAccess": "at operator helpRequest query",
    "Message": "id sender recipient receivedAt clientAddress clientName subject sizeBytes events",
    "MessageConnection": "edges pageInfo",
    "MessageEdge": "cursor node",
    "NeverAskAgainPayload": "errors",
    "PageInfo": "endCursor hasNextPage",
    "Plan": "name maxMessageBytes maxDomains maxAliasesPerDomain maxMessagesPerDay priority",
    "PlannedDelivery": "target envelopeSender hosts mode",
    "PrivacyPolicy": "text digest collections",
    "PublishCanaryPayload": "errors warrantCanary",
    "QueuePayload": "errors affected lifted",
    "RemoveDomainPayload": "errors",
    "RemovedData": "collection count",
    "RequestPasswordResetPayload": "errors",
    "ResetPasswordPayload": "errors account",
    "RevokeApiTokenPayload": "errors",
    "Session": "id createdAt lastSeenAt userAgent current",
    "SetPlanPayload": "errors account",
    "SignInPayload": "errors account",
    "SignOutPayload": "errors",
    "SignUpPayload": "errors account",
    "Status": "version healthy startedAt queued oldestQueuedAt openConnections nodes",
    "UpdateAliasPayload": "errors alias",
    "UpdateDomainPayload": "errors domain",
    "UserError": "code message field",
    "VerifyEmailPayload": "errors account",
    "WarrantCanary": "statements issuedAt expiresAt expired signature publicKey signedText",
}
"""What is told to whoever has been given the thing. Nothing here leads to what is another's, or is only listed."""

ROOTS = {"Query", "Mutation", "Subscription"}
"""Their fields are asked in test_who_may.py."""


def test_each_field_of_each_type_has_a_row() -> None:
    fields = {
        f"{name}.{field}"
        for name, of in BUILT.type_map.items()
        if isinstance(of, GraphQLObjectType) and not name.startswith("__") and name not in ROOTS
        for field in of.fields
    }
    told = {f"{name}.{field}" for name, these in TOLD.items() for field in these.split()}
    assert told.isdisjoint(BEHIND)
    assert told | BEHIND.keys() == fields


@pytest.mark.parametrize("name", BEHIND)
def test_what_is_behind_a_thing_asks_for_itself(people: People, things: Mapping[str, str], name: str) -> None:
    kind, _, field = name.partition(".")
    rooms = people.rooms
    domain, request = rooms.domains.with_id(things["Domain"]), rooms.help.request(things["HelpRequest"])
    assert domain is not None
    assert request is not None
    thing = {"Account": Account.of(people.owner), "Domain": Domain.of(domain), "HelpRequest": HelpRequest.of(request)}[
        kind
    ]
    found = {who: asked_of_a_thing(rooms, caller, kind, field, thing) for who, caller in people.callers.items()}
    assert found == BEHIND[name]


def asked_of_a_thing(rooms: Rooms, caller: Caller, kind: str, field: str, thing: object) -> str:
    """What is told to one who holds this thing, and asks for a field of it."""
    of = operations.SCHEMA_OF_CORE.type_map[kind]
    assert isinstance(of, GraphQLObjectType)
    holds = GraphQLField(of, resolve=lambda *_: thing)
    schema = GraphQLSchema(query=GraphQLObjectType("Holding", {"it": holds}))
    selection = "" if is_leaf_type(get_named_type(of.fields[field].type)) else " { __typename }"
    result = execute_sync(
        schema,
        parse(f"{{ it {{ {field}{selection} }} }}"),
        context_value=Context(caller, rooms),
        executor_class=BoundedExecutor,
    )
    return code_of(operations.response(result)) or FOUND


# ------------------------------------------------------------------ by name, and within an input


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{ domain(name: "forward.test") { id } }', NOTHING),
        ('{ explain(recipient: "info@forward.test") { code } }', "NOT_FOUND"),
        ('mutation { createAlias(input: {domainId: "DOMAIN", pattern: "x"}) { errors { code } } }', "NOT_FOUND"),
        ('mutation { addHold(domain: "forward.test") { errors { code } } }', "REFUSED"),
        ("mutation { addHold { errors { code } } }", "REFUSED"),
        ('mutation { addHold(sender: "a@far.test") { errors { code } } }', "REFUSED"),
    ],
)
def test_no_name_of_anothers_leads_anywhere(people: People, things: Mapping[str, str], text: str, told: str) -> None:
    text = text.replace("DOMAIN", global_id("Domain", things["Domain"]))
    for who in ("other", "operator's token without OPERATE"):
        answer = operations.execute(
            operations.read(text, signed_in=True),
            operations.Request(text),
            Context(people.callers[who], people.rooms),
        )
        (field,) = (answer["data"] or {"": None}).values()
        refused = field["errors"][0]["code"] if field and field.get("errors") else None
        assert (code_of(answer) or refused or (NOTHING if field is None else FOUND)) == told
