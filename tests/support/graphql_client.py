"""A client of the GraphQL API that is as plain as its users' programs: one connection, cookies, a token."""

import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The document in the body."""
        return json.loads(self.body)

    @property
    def codes(self) -> list[str]:
        """The codes of the errors."""
        return [error["extensions"]["code"] for error in self.json.get("errors", [])]


class _ToSocket(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """See HTTPConnection."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


@dataclass(slots=True)
class GraphqlClient:
    """Use it in a `with`. It keeps the cookies that it is given."""

    where: int | Path
    """A port of this machine, or a Unix socket."""
    address: str = field(default="127.0.0.1", kw_only=True)
    """Of the machine, where that is another one."""
    token: str | None = None
    cookies: dict[str, str] = field(default_factory=dict)
    _connection: http.client.HTTPConnection = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.where, Path):
            self._connection = _ToSocket(self.where)
        else:
            self._connection = http.client.HTTPConnection(self.address, self.where, timeout=TIMEOUT_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(
        self, method: str, path: str = "/graphql", body: bytes | None = None, headers: Mapping[str, str] = {}
    ) -> Reply:
        """Any request, with the cookies and the token."""
        own = {"authorization": f"Bearer {self.token}"} if self.token else {}
        if self.cookies:
            own["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        self._connection.request(method, path, body, {**own, **headers})
        response = self._connection.getresponse()
        for line in response.headers.get_all("set-cookie") or ():
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
            if not value:
                del self.cookies[name]
        return Reply(response.status, {k.lower(): v for k, v in response.headers.items()}, response.read())

    def ask(self, query: str, headers: Mapping[str, str] = {}, **variables: object) -> Reply:
        """Post an operation."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        usual = {"content-type": "application/json", "accept": "application/graphql-response+json"}
        return self.send("POST", body=body, headers={**usual, **headers})

    def data(self, query: str, **variables: object) -> Any:
        """The data of an operation that has to go well."""
        reply = self.ask(query, {}, **variables)
        assert reply.status == 200, (reply.status, reply.body)
        assert "errors" not in reply.json, reply.json
        return reply.json["data"]
