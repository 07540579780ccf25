"""Asking the running appliance: the operations of `graphql/operations`, over HTTP on its `control.sock`.

Whoever can open that socket is the operator, so nobody signs in. What is followed is in `following.py`.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from control_api.operation_files import operation

from appliance.model.refused import Refused
from appliance.wire import STATUS_S, NotRunning, WireError, call

if TYPE_CHECKING:
    from appliance.configuration import Configuration

PATIENCE_S = 3600.0
"""How long the appliance may take for an answer: it looks at every delivery, and a million of them take minutes."""

CONNECT_S = 10.0
"""How long it may take to let us in."""


class ControlAway(WireError):
    """Mail flows, and the process that answers people does not."""


def ask(config: Configuration, name: str, **variables: object) -> Any:
    """The answer's `data` to the operation of this name. Raises NotRunning, ControlAway, or WireError with its words.

    Where it is a mutation that answers with errors of what was typed, Refused is raised for the first of them.
    """
    connection = _Connection(config.control_socket)
    try:
        try:
            connection.connect()
        except (FileNotFoundError, NotADirectoryError, ConnectionError, TimeoutError, BlockingIOError) as error:
            raise not_answering(config) from error
        try:
            given = {key: value for key, value in variables.items() if value is not None}
            body = json.dumps({"query": operation(name), "variables": given})
            connection.request("POST", "/graphql", body, {"Content-Type": "application/json"})
            answer = json.loads(connection.getresponse().read())
        except (http.client.HTTPException, ConnectionError) as error:
            raise NotRunning("the appliance died in the middle of its answer") from error
        except TimeoutError:
            raise WireError(f"the appliance did not answer within {PATIENCE_S:.0f} s") from None
        except ValueError:
            raise WireError(f"what answers on {config.control_socket} is no appliance") from None
    finally:
        connection.close()
    return data_of(answer)


def pages(config: Configuration, name: str, root: str, **variables: object) -> Iterator[dict[str, Any]]:
    """Every node of the connection at the root of this query, page by page. Raises the same."""
    after: str | None = None
    while True:
        page = ask(config, name, after=after, **variables)[root]
        yield from (edge["node"] for edge in page["edges"])
        if not page["pageInfo"]["hasNextPage"]:
            return
        after = page["pageInfo"]["endCursor"]


def data_of(answer: Mapping[str, Any]) -> Any:
    """The data of an answer without errors. Raises WireError, or Refused."""
    if answer.get("errors"):
        raise WireError(str(answer["errors"][0]["message"]))
    for payload in (answer.get("data") or {}).values():
        for error in (payload.get("errors") or ()) if isinstance(payload, dict) else ():
            raise Refused(error["message"], (error["field"] or [None])[0])
    return answer.get("data")


def not_answering(config: Configuration) -> NotRunning | WireError:
    """What to tell where nobody is behind `control.sock`: nothing runs, or the half that mail needs."""
    try:
        next(call(config.engine_socket, "status", limit_s=STATUS_S), None)
    except NotRunning:
        return NotRunning(f"no appliance answers on {config.control_socket}")
    except WireError:
        pass  # It is there, and busy.
    return ControlAway(
        "The engine of the appliance runs, and mail flows; but its control process, which answers this, does not: "
        f"there is nobody behind {config.control_socket}. The appliance starts it again by itself, and its log says "
        "why it died."
    )


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        """See HTTPConnection."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_S)
        self.sock.connect(str(self._path))
        self.sock.settimeout(PATIENCE_S)
