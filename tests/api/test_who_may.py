"""Who may ask for what: every field of the three roots, asked by everybody there is.

The table says what is meant, apart from the code: a field without a row fails, and so does one that lets in anybody
else. Whatever is asked is made from the schema, with arguments that fit their types and name nothing.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import trio
from control_api import operations, subscriptions
from control_api.callers import Access, Caller, CallerKind
from control_api.context import Context
from control_api.ids import global_id
from control_api.rooms import Rooms
from control_api.schema import SCHEMA
from graphql import (
    GraphQLArgument,
    GraphQLEnumType,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    build_schema,
    get_named_type,
    is_leaf_type,
)
from served_api import Letters, furnished

from appliance.configuration import Configuration
from appliance.model.access import Scope
from appliance.model.account import Account, Role
from appliance.model.domain import DeliveryMode, LogLevel
from appliance.privacy.declarations import ACCOUNTS, ALIASES, API_TOKENS, DOMAINS, HELP_REPLIES, HELP_REQUESTS

READ, WRITE, LOGS, OPERATE = Scope

MEANT: dict[str, tuple[Access, Scope | None]] = {
    "viewer": (Access.ANYONE, READ),
    "node": (Access.SIGNED_IN, READ),
    "domain": (Access.SIGNED_IN, READ),
    "explain": (Access.SIGNED_IN, READ),
    "privacyPolicy": (Access.ANYONE, None),
    "warrantCanary": (Access.ANYONE, None),
    "queue": (Access.SIGNED_IN, READ),
    "holds": (Access.SIGNED_IN, READ),
    "status": (Access.ANYONE, None),
    "accounts": (Access.OPERATOR, READ),
    "blocks": (Access.OPERATOR, READ),
    "helpRequests": (Access.OPERATOR, READ),
    "signUp": (Access.ANYONE, None),
    "verifyEmail": (Access.ANYONE, None),
    "signIn": (Access.ANYONE, None),
    "signOut": (Access.ANYONE, None),
    "requestPasswordReset": (Access.ANYONE, None),
    "resetPassword": (Access.ANYONE, None),
    "changePassword": (Access.IN_PERSON, WRITE),
    "deleteAccount": (Access.IN_PERSON, WRITE),
    "exportAccount": (Access.IN_PERSON, WRITE),
    "enableTwoFactor": (Access.IN_PERSON, WRITE),
    "confirmTwoFactor": (Access.IN_PERSON, WRITE),
    "disableTwoFactor": (Access.IN_PERSON, WRITE),
    "endSession": (Access.IN_PERSON, WRITE),
    "createApiToken": (Access.IN_PERSON, WRITE),
    "revokeApiToken": (Access.SIGNED_IN, WRITE),
    "addDomain": (Access.SIGNED_IN, WRITE),
    "checkDomain": (Access.SIGNED_IN, WRITE),
    "updateDomain": (Access.SIGNED_IN, WRITE),
    "removeDomain": (Access.SIGNED_IN, WRITE),
    "createAlias": (Access.SIGNED_IN, WRITE),
    "updateAlias": (Access.SIGNED_IN, WRITE),
    "deleteAlias": (Access.SIGNED_IN, WRITE),
    "confirmDestination": (Access.ANYONE, None),
    "neverAskAgain": (Access.ANYONE, None),
    "retryDeliveries": (Access.SIGNED_IN, WRITE),
    "holdDeliveries": (Access.SIGNED_IN, WRITE),
    "releaseDeliveries": (Access.SIGNED_IN, WRITE),
    "failDeliveries": (Access.SIGNED_IN, WRITE),
    "dropDeliveries": (Access.SIGNED_IN, WRITE),
    "addHold": (Access.SIGNED_IN, WRITE),
    "liftHold": (Access.SIGNED_IN, WRITE),
    "askForHelp": (Access.SIGNED_IN, WRITE),
    "setLogAccess": (Access.SIGNED_IN, WRITE),
    "replyToHelpRequest": (Access.SIGNED_IN, WRITE),
    "createBlock": (Access.OPERATOR, WRITE),
    "deleteBlock": (Access.OPERATOR, WRITE),
    "setPlan": (Access.OPERATOR, WRITE),
    "publishCanary": (Access.OPERATOR, WRITE),
    "deliveryEvents": (Access.SIGNED_IN, LOGS),
}

BUILT = build_schema(SCHEMA.as_str())
ROOTS = {
    name: (kind, field)
    for kind, root in (
        ("query", BUILT.query_type),
        ("mutation", BUILT.mutation_type),
        ("subscription", BUILT.subscription_type),
    )
    if root is not None
    for name, field in root.fields.items()
}


@pytest.fixture(scope="module")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rooms]:
    """The rooms of an appliance, whose engine is away."""
    config = Configuration(hostname="mx.onward.test", data_dir=tmp_path_factory.mktemp("api") / "var")
    with furnished(config, Letters()) as rooms:
        yield rooms


@pytest.fixture(scope="module")
def member(rooms: Rooms) -> Account:
    return rooms.accounts.add("member@people.test")


@pytest.fixture(scope="module")
def operator(rooms: Rooms) -> Account:
    return rooms.accounts.add("operator@people.test", role=Role.OPERATOR)


def session(account: Account) -> Caller:
    return Caller(CallerKind.SESSION, account=account, credential_id="a session")


def token(account: Account, *scopes: Scope) -> Caller:
    return Caller(CallerKind.TOKEN, account=account, credential_id="a token", scopes=frozenset(scopes))


def codes(rooms: Rooms, caller: Caller, name: str, **given: str) -> list[str]:
    """What is wrong when this caller asks for this field."""
    return [error["extensions"]["code"] for error in asked(rooms, caller, name, **given).get("errors", [])]


def asked(rooms: Rooms, caller: Caller, name: str, **given: str) -> Any:
    kind, field = ROOTS[name]
    arguments = ", ".join(
        f"{argument}: {given.get(argument) or literal(of.type)}"
        for argument, of in field.args.items()
        if argument in given or isinstance(of.type, GraphQLNonNull)
    )
    selection = "" if is_leaf_type(get_named_type(field.type)) else " { __typename }"
    if isinstance(get_named_type(field.type), GraphQLObjectType) and kind == "mutation":
        selection = " { errors { code } }"
    text = f"{kind} {{ {name}{f'({arguments})' if arguments else ''}{selection} }}"
    known = operations.read(text, signed_in=True)
    context = Context(caller, rooms)
    if kind != "subscription":
        return operations.execute(known, operations.Request(text), context)

    async def begin() -> dict[str, Any]:
        try:
            answers = await subscriptions.subscribe(known, operations.Request(text), context)
        except operations.Refusal as refusal:
            return {"errors": refusal.errors}
        await answers.aclose()
        return {}

    return trio.run(begin)


def literal(type_: Any) -> str:
    """Something of this type."""
    if isinstance(type_, GraphQLNonNull):
        return literal(type_.of_type)
    if isinstance(type_, GraphQLList):
        return "[]"
    if isinstance(type_, GraphQLEnumType):
        return str(next(iter(type_.values)))
    if isinstance(type_, GraphQLInputObjectType):
        needed = {name: one for name, one in type_.fields.items() if isinstance(one.type, GraphQLNonNull)}
        return "{" + ", ".join(f"{name}: {literal(one.type)}" for name, one in needed.items()) + "}"
    usual = {"Int": "1", "Boolean": "true", "DateTime": '"2026-11-20T10:00:00.000Z"'}
    return usual.get(str(type_.name), '"nothing"')


def test_each_field_has_a_row() -> None:
    assert MEANT.keys() == ROOTS.keys()


@pytest.mark.parametrize("name", MEANT)
def test_a_field_answers_those_who_may_and_nobody_else(
    rooms: Rooms, member: Account, operator: Account, name: str
) -> None:
    access, scope = MEANT[name]
    others = [one for one in Scope if one is not scope]
    in_person = access is Access.IN_PERSON
    for_operators = access is Access.OPERATOR
    callers: list[tuple[str, Caller, bool]] = [
        ("a stranger", Caller(CallerKind.ANONYMOUS), access is Access.ANYONE),
        ("a member", session(member), not for_operators),
        ("an operator", session(operator), True),
        ("a token of a member", token(member, *Scope), not in_person and not for_operators),
        ("a token of a member without the scope", token(member, *others), scope is None),
        ("a token of a member without any scope", token(member), scope is None),
        ("a token of an operator", token(operator, *Scope), not in_person),
        ("a token of an operator without the scope", token(operator, *others), scope is None),
        (
            "a token of an operator that may not operate",
            token(operator, READ, WRITE, LOGS),
            not in_person and not for_operators,
        ),
    ]
    for who, caller, may in callers:
        seen = codes(rooms, caller, name)
        refusal = "FORBIDDEN" if caller.is_signed_in else "UNAUTHENTICATED"
        assert (refusal in seen) is not may, f"{name}, asked by {who}: {seen}"


@pytest.mark.parametrize("name", [name for name, (access, _) in MEANT.items() if access is Access.OPERATOR])
def test_the_operator_of_the_machine_may_do_what_operators_may(rooms: Rooms, name: str) -> None:
    assert not {"FORBIDDEN", "UNAUTHENTICATED"} & set(codes(rooms, Caller(CallerKind.LOCAL), name))


def ids_of(arguments: dict[str, GraphQLArgument]) -> list[str]:
    """The arguments that name a thing."""
    return [name for name, one in arguments.items() if get_named_type(one.type).name == "ID"]


def test_no_change_by_an_id_reaches_what_is_anothers(rooms: Rooms, member: Account) -> None:
    owner = rooms.accounts.add("owner@people.test")
    domain = rooms.domains.add(
        "forward.test", owner, verified=True, delivery_mode=DeliveryMode.SPOOL, log_level=LogLevel.EVENTS
    )
    alias = rooms.aliases.add("info@forward.test", ["owner@dest.test"], confirmed=True)
    _, key = rooms.entrance.api_tokens.create(owner, "a token", [READ], None)
    _, a_session = rooms.entrance.sessions.begin(owner, "a browser")
    help_request = rooms.help.ask(owner, "A question", "How?", None)
    things = {
        "Domain": domain.id,
        "Alias": alias.alias.id,
        "ApiToken": key.id,
        "HelpRequest": help_request.id,
        "Account": owner.id,
        "Session": a_session.id,
    }

    def stored() -> list[Any]:
        changing = (ACCOUNTS, DOMAINS, ALIASES, API_TOKENS, HELP_REQUESTS, HELP_REPLIES)
        return [rooms.entrance.sessions.of(owner), *(rooms.records.find(each, {}) for each in changing)]

    before = stored()
    tried = 0
    for name, (kind, field) in ROOTS.items():
        for argument in ids_of(field.args) if kind == "mutation" else ():
            for thing, stored_id in things.items():
                answer = asked(rooms, session(member), name, **{argument: f'"{global_id(thing, stored_id)}"'})
                assert answer.get("errors") or answer["data"][name]["errors"], f"{name} of another's {thing}"
                tried += 1
    assert tried >= 40
    assert stored() == before
    for thing, stored_id in things.items():
        answer = asked(rooms, session(member), "node", id=f'"{global_id(thing, stored_id)}"')
        assert answer["data"]["node"] is None, f"node of another's {thing}"
