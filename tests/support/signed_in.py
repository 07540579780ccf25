"""People who are signed in to a served API, each with an account and a browser."""

from collections.abc import Iterator
from contextlib import contextmanager

from entrance_hall import CHEAP
from graphql_client import GraphqlClient
from served_api import ServedApi

from appliance.model.account import Account, Role

PASSWORD = "correct horse"


@contextmanager
def signed_in(
    api: ServedApi, email: str = "ada@people.test", role: Role = Role.MEMBER
) -> Iterator[tuple[GraphqlClient, Account]]:
    """A browser with a session, and the account that it is of."""
    account = api.rooms.accounts.add(email, role=role, password_hash=CHEAP.hash(PASSWORD))
    with api.client() as client:
        asked = "mutation ($e: String!, $p: String!) { signIn(email: $e, password: $p) { errors { message } } }"
        answer = client.data(asked, e=email, p=PASSWORD)["signIn"]
        assert answer["errors"] == []
        yield client, account
