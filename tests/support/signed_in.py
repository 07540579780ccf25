"""People who are signed in to a served API, each with an account and a browser."""

from collections.abc import Iterator
from contextlib import contextmanager

from argon2 import PasswordHasher
from graphql_client import GraphqlClient
from served_api import ServedApi

from appliance.model.account import Account, Role

PASSWORD = "correct horse"

_CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@contextmanager
def signed_in(
    api: ServedApi, email: str = "ada@people.test", role: Role = Role.MEMBER
) -> Iterator[tuple[GraphqlClient, Account]]:
    """A browser with a session, and the account that it is of."""
    account = api.rooms.accounts.add(email, role=role, password_hash=_CHEAP.hash(PASSWORD))
    with api.client() as client:
        asked = "mutation ($e: String!, $p: String!) { signIn(email: $e, password: $p) { errors { message } } }"
        answer = client.data(asked, e=email, p=PASSWORD)["signIn"]
        assert answer["errors"] == []
        yield client, account
