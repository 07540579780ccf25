"""How one gets in to a MongoDB: by TLS, as a user, by the name of a service. Where one does not, it says what to do.

Real servers. Names are those of the tests' own DNS: dnspython, by which pymongo asks for services, is pointed to it;
the addresses of hosts, which are asked of the machine's own resolver, are given in its place.
"""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.resolver
import pytest
from certificates import Files, authority_file, certificate_for
from command_line_desk import Desk
from dns_server import Behaviour, DnsServer
from mongod import Mongod, running_mongod

from appliance.storage import mongo_database
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.records import StoreUnavailable

HOST, PASSWORD = "127.0.0.1", "hunter2/@:é"
WRITTEN = "hunter2%2F%40%3A%C3%A9"
"""The same as it stands in a URL."""

SERVICE, MEMBER = "mail.shared.test", "a.shared.test"


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is told here is the same after a second as after five.
    monkeypatch.setattr(mongo_database, "OPERATION_MS", 1000)
    monkeypatch.setattr(mongo_database, "SELECTION_MS", 1000)


@pytest.fixture(scope="module")
def server() -> Iterator[Mongod]:
    """It is spoken with under TLS only."""
    with running_mongod(tls=certificate_for(HOST)) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[Mongod]:
    """It knows one user, who may do what the README says."""
    with running_mongod(options=["--auth"]) as server:
        let_in(server, "onward", "onward", pwd=PASSWORD)
        yield server


def let_in(server: Mongod, database: str, user: str, **how: Any) -> None:
    """Make a user with the two roles, who is known to a database."""
    roles = [{"role": role, "db": "onward"} for role in ("readWrite", "dbAdmin")]
    with server.client() as client:
        client.admin.command("createUser", "root", pwd="root", roles=["root"])
    with server.client(username="root", password="root") as client:
        client[database].command("createUser", user, roles=roles, **how)


def said_by(url: str) -> str:
    """What is told of a store that can't be opened."""
    with pytest.raises(StoreUnavailable) as caught:
        MongoDatabase(url, ())
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None, "the words of others may have anything in them"
    return str(caught.value)


def opens(url: str) -> bool:
    MongoDatabase(url, ()).close()
    return True


def in_one_file(files: Files, directory: Path) -> Path:
    """A certificate and its key, as MongoDB wants them."""
    both = directory / "own.pem"
    both.write_bytes(files.certificate.read_bytes() + files.key.read_bytes())
    return both


# ------------------------------------------------------------------ TLS


def under_tls(server: Mongod, *options: str, host: str = HOST) -> str:
    return f"mongodb://{host}:{server.port}/onward?{'&'.join(('tls=true', *options))}"


def test_a_server_whose_authority_is_named_is_believed(server: Mongod) -> None:
    assert opens(under_tls(server, f"tlsCAFile={authority_file()}"))


def test_a_server_that_nobody_vouches_for_is_not_spoken_with(server: Mongod) -> None:
    another = certificate_for(HOST, self_signed=True).certificate
    for options in ((), (f"tlsCAFile={another}",)):
        said = said_by(under_tls(server, *options))
        assert "signed by nobody who is known here" in said
        assert "tlsCAFile in store.url has to name" in said


def test_a_certificate_for_another_name_is_told_from_that(server: Mongod) -> None:
    said = said_by(under_tls(server, f"tlsCAFile={authority_file()}", host="localhost"))
    assert "its certificate is for another name" in said


def test_a_certificate_for_another_address_is_told_from_that() -> None:
    with running_mongod(tls=certificate_for("127.0.0.9")) as server:
        said = said_by(under_tls(server, f"tlsCAFile={authority_file()}"))
    assert "its certificate is for another address" in said


def test_a_server_that_wants_tls_is_told(server: Mongod) -> None:
    assert "it may want TLS (tls=true)" in said_by(f"mongodb://{HOST}:{server.port}/onward")


def test_a_server_without_tls_is_told(guarded: Mongod) -> None:
    assert "there is no TLS with it" in said_by(under_tls(guarded, f"tlsCAFile={authority_file()}"))


def test_a_server_that_wants_a_certificate_gets_ours_or_says_so(tmp_path: Path) -> None:
    with running_mongod(tls=certificate_for(HOST), asks_for_certificates=True) as server:
        believed = f"tlsCAFile={authority_file()}"
        own = in_one_file(certificate_for("node.test"), tmp_path)
        assert opens(under_tls(server, believed, f"tlsCertificateKeyFile={own}"))
        assert "or a certificate (tlsCertificateKeyFile)" in said_by(under_tls(server, believed))


def test_who_we_are_may_be_said_by_a_certificate_alone(tmp_path: Path) -> None:
    own = in_one_file(certificate_for("node.test"), tmp_path)
    with running_mongod(tls=certificate_for(HOST), options=["--auth"]) as server:
        let_in(server, "$external", "CN=node.test")
        options = f"tlsCAFile={authority_file()}", f"tlsCertificateKeyFile={own}", "authMechanism=MONGODB-X509"
        assert opens(under_tls(server, *options))


@pytest.mark.parametrize(
    ("option", "told"),
    [
        ("tlsCAFile", "a file with a certificate that store.url names can't be used: no certificate or crl found"),
        (
            "tlsCertificateKeyFile",
            "tlsCertificateKeyFile in store.url has to name one file, with a certificate and the",
        ),
    ],
)
def test_a_file_that_is_not_there_or_is_no_certificate_is_told(
    server: Mongod, tmp_path: Path, option: str, told: str
) -> None:
    file = tmp_path / "written.pem"
    believed = () if option == "tlsCAFile" else (f"tlsCAFile={authority_file()}",)
    said = said_by(under_tls(server, *believed, f"{option}={file}"))
    assert f"the file {file} that store.url names can't be used: No such file" in said
    file.write_text("hunter2\n")
    assert told in said_by(under_tls(server, *believed, f"{option}={file}"))


def test_a_certificate_without_its_key_is_told(server: Mongod) -> None:
    alone = certificate_for("node.test").certificate
    said = said_by(under_tls(server, f"tlsCAFile={authority_file()}", f"tlsCertificateKeyFile={alone}"))
    assert "one file, with a certificate and the key that is its own" in said


# ------------------------------------------------------------------ users


def test_a_user_with_the_two_roles_may_do_all_that_is_needed(guarded: Mongod) -> None:
    assert opens(f"mongodb://onward:{WRITTEN}@{guarded.address}/onward")


@pytest.mark.parametrize("who", ["", "onward:wrong-hunter2@", "nobody:hunter2@"])
def test_who_is_not_let_in_is_told_so(guarded: Mongod, who: str) -> None:
    began = time.monotonic()
    assert "the user in store.url is not known there" in said_by(f"mongodb://{who}{guarded.address}/onward")
    assert time.monotonic() - began < 1, "there is nothing to wait for"


# ------------------------------------------------------------------ the name of a service


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[DnsServer]:
    """The DNS that this process asks."""
    with DnsServer() as server:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.lifetime = [server.address], server.port, 1.0
        monkeypatch.setattr(dns.resolver, "default_resolver", resolver)
        usual = socket.getaddrinfo

        def getaddrinfo(host: Any, *more: Any, **named: Any) -> Any:
            return usual(HOST if host == MEMBER else host, *more, **named)

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield server


def test_the_dns_says_where_a_service_is(names: DnsServer, guarded: Mongod) -> None:
    names.set(f"_mongodb._tcp.{SERVICE}", f"SRV 0 0 {guarded.port} {MEMBER}.")
    names.set(SERVICE, 'TXT "authSource=onward"')
    assert opens(f"mongodb+srv://onward:{WRITTEN}@{SERVICE}/onward?tls=false")
    assert names.queries[f"_mongodb._tcp.{SERVICE}", "SRV"]


def test_a_service_is_spoken_with_under_tls(names: DnsServer) -> None:
    with running_mongod(tls=certificate_for(MEMBER)) as server:
        names.set(f"_mongodb._tcp.{SERVICE}", f"SRV 0 0 {server.port} {MEMBER}.")
        assert opens(f"mongodb+srv://{SERVICE}/onward?tlsCAFile={authority_file()}")


def test_a_service_that_is_not_in_the_dns_is_told(names: DnsServer) -> None:
    names.set("other.test", "A 127.0.0.1")
    for name in (SERVICE, "other.test"):
        said = said_by(f"mongodb+srv://onward:hunter2@{name}/onward")
        assert said.startswith(f"MongoDB at {name}, database onward: the DNS has no such service")
        assert "put the name right" in said


def test_the_check_says_so_too(names: DnsServer, tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    desk.configure(f'[store]\nurl = "mongodb+srv://{SERVICE}/onward"')
    checked = desk.type("check", "--json")
    assert checked.exit_code == 1
    (found,) = [each for each in map(json.loads, checked.stdout.splitlines()) if each["check"] == "MongoDB"]
    assert found["grade"] == "fault"
    assert "the DNS has no such service" in found["detail"]
    assert "put store.url right" in found["advice"]


@pytest.mark.parametrize("behaviour", [Behaviour.SERVFAIL, Behaviour.TIMEOUT])
def test_a_dns_that_does_not_know_is_told_from_one_that_says_no(names: DnsServer, behaviour: Behaviour) -> None:
    names.behave(f"_mongodb._tcp.{SERVICE}", behaviour)
    assert "the DNS does not say which servers that is" in said_by(f"mongodb+srv://{SERVICE}/onward")


def test_a_service_in_the_hands_of_strangers_is_told(names: DnsServer) -> None:
    names.set(f"_mongodb._tcp.{SERVICE}", "SRV 0 0 27017 a.elsewhere.test.")
    assert "names servers outside of the domain" in said_by(f"mongodb+srv://{SERVICE}/onward")
