"""Strangers abuse the API of a whole appliance, in every way that is known here, and mail goes on as if nobody did."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from abusive_requests import ABUSE, MALFORMED, ONLY_WRONG
from appliance_process import Appliance
from graphql_client import GraphqlClient

AT_ONCE = 4
"""Strangers."""
SECONDS = 5
"""More than a message may take beside them, on a machine that runs other tests as well. It takes a hundredth of it."""
MESSAGE = b"From: ann@sender.test\r\nSubject: On time\r\n\r\nHello.\r\n"


@pytest.fixture(scope="module")
def appliance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Appliance]:
    """An appliance that forwards info@forward.test to a destination that no name server knows of now."""
    one = Appliance(tmp_path_factory.mktemp("appliance"), nameserver="127.0.0.1:9", delivery_port=9)
    one.settle("account", "add", "owner@people.test")
    one.settle("domain", "add", "forward.test", "--account", "owner@people.test", "--verified")
    one.settle("alias", "add", "info@forward.test", "owner@dest.test", "--confirmed")
    with one:
        yield one


def asks_too_much(appliance: Appliance, name: str) -> None:
    """A document that is refused with its code."""
    with GraphqlClient(appliance.http_port) as client:
        reply = client.ask(ABUSE[name])
    assert set(reply.codes) == {"BAD_USER_INPUT" if name in ONLY_WRONG else "TOO_COMPLEX"}, name


def speaks_nonsense(appliance: Appliance, name: str) -> None:
    """Octets that are no request, from one who leaves at once."""
    where = ("127.0.0.1", appliance.http_port)
    with contextlib.suppress(OSError), socket.create_connection(where, 10) as connection:
        connection.sendall(MALFORMED[name])


def sends_too_much(appliance: Appliance, _: str) -> None:
    """A body that is larger than any may be."""
    with GraphqlClient(appliance.http_port) as client:
        assert client.ask("{ status { version } } #" + "x" * 1_000_000).status == 413


def guesses_passwords(appliance: Appliance, _: str) -> None:
    """Many at once, in one request."""
    attempts = " ".join(
        f'a{n}: signIn(email: "owner@people.test", password: "{n}") {{ errors {{ code }} }}' for n in range(20)
    )
    with GraphqlClient(appliance.http_port) as client:
        assert client.ask(f"mutation {{ {attempts} }}").status == 200


def says_where_it_comes_from(appliance: Appliance, _: str) -> None:
    """At a length that would keep a careless reader busy."""
    with GraphqlClient(appliance.http_port) as client:
        said = {"forwarded": "for=" + " " * 12_000 + '"'}
        assert client.ask("{ status { version } }", said).status == 200


def test_strangers_who_abuse_the_api_are_refused_and_mail_goes_on(appliance: Appliance) -> None:
    children = appliance.children()
    abuses: list[tuple[Callable[[Appliance, str], None], str]] = [
        *((asks_too_much, name) for name in ABUSE),
        *((speaks_nonsense, name) for name in MALFORMED),
        *((one, "") for one in (sends_too_much, guesses_passwords, says_where_it_comes_from) for _ in range(4)),
    ]
    assert len(abuses) >= 25 + 13
    slowest, accepted = 0.0, 0
    over = threading.Event()

    def abused() -> None:
        try:
            with ThreadPoolExecutor(AT_ONCE) as strangers:
                for done in [strangers.submit(abuse, appliance, name) for abuse, name in abuses]:
                    done.result()
        finally:
            over.set()

    with ThreadPoolExecutor(1) as beside, slow_ones(appliance.http_port, 20), appliance.client() as client:
        strangers = beside.submit(abused)
        while not over.is_set() or accepted < 10:
            began = time.monotonic()
            assert client.message("ann@sender.test", ["info@forward.test"], MESSAGE).code == 250
            slowest = max(slowest, time.monotonic() - began)
            accepted += 1
        strangers.result()
    assert slowest < SECONDS
    assert appliance.children() == children, "neither process has been started anew"
    with GraphqlClient(Path(appliance.data_dir) / "control.sock") as operator:
        assert operator.data("{ status { healthy queued } }")["status"] == {"healthy": True, "queued": accepted}


@contextlib.contextmanager
def slow_ones(port: int, number: int) -> Iterator[None]:
    """Connections on which half of a request was sent, and nothing more is."""
    with contextlib.ExitStack() as stack:
        for _ in range(number):
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            connection.sendall(b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        yield
