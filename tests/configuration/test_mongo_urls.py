"""Where the records of several nodes are, as an operator writes it."""

import pytest

from appliance.configuration.mongo_urls import sqlite_or_mongodb, user_of, with_password
from appliance.configuration.values import Impossible


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:",
        "mongodb://localhost",
        "mongodb://host/",
        "mongodb://host:27018/onward",
        "mongodb://192.0.2.1,[2001:db8::1]:27018,third.example./mail-2?replicaSet=rs0",
        "mongodb://onward@host/onward?authSource=admin&tls=true&tlsCAFile=/etc/ca.pem",
        "mongodb://host/onward?authMechanism=MONGODB-X509&tlsCertificateKeyFile=/etc/own.pem",
        "mongodb+srv://a%40b@cluster.example/onward?retryWrites=true&w=majority&appName=Mail",
    ],
)
def test_a_store_is_taken_as_it_is_written(url: str) -> None:
    assert sqlite_or_mongodb(url) == url


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "is neither SQLite nor the URL of a MongoDB"),
        ("mongodb:", "is neither SQLite nor the URL of a MongoDB"),
        ("MongoDB at hunter2", "is neither SQLite nor the URL of a MongoDB"),
        ("postgres://hunter2", "is neither SQLite nor the URL of a MongoDB"),
        ("sqlite:///hunter2", "names a file"),
        ("mongodb://:hunter2@host", "has a password in it"),
        ("mongodb+srv://user:hunter2@host/onward", "has a password in it"),
        ("mongodb://@host", "has no user before the @"),
        ("mongodb://hunter2@user@host", "has no user before the @"),
        ("mongodb://hunter%0A2@host", "has no user before the @"),
        ("mongodb:///onward", "has something in the place of a host"),
        ("mongodb://host,/onward", "has something in the place of a host"),
        ("mongodb://hunter_2!/onward", "has something in the place of a host"),
        ("mongodb://192.0.2.256", "has something in the place of a host"),
        ("mongodb://[hunter2]", "has something in the place of a host"),
        ("mongodb://host:hunter2/onward", "has no host with a port"),
        ("mongodb://host:0", "has no possible port"),
        ("mongodb://host:65536", "has no possible port"),
        ("mongodb+srv://host:27017", "names more than one host, or a port"),
        ("mongodb+srv://host,other", "names more than one host, or a port"),
        ("mongodb://host/hunter 2", "has no name of a database"),
        ("mongodb://host/a/b", "has no name of a database"),
        ("mongodb://host/onward?hunter=2", "says something behind the question mark that is none of replicaSet"),
        ("mongodb://host/onward?readPreference=secondary", "says something behind the question mark"),
        ("mongodb://host/onward?replicaSet=", "has replicaSet without a value"),
        ("mongodb://host/onward?tls=true&tls=false", "has tls without a value, or twice"),
        ("mongodb://host/onward?tls=hunter2", "has tls as neither true nor false"),
        (
            "mongodb://host/onward?authMechanism=hunter2",
            "has an authMechanism that is none of SCRAM-SHA-256, SCRAM-SHA-1",
        ),
        ("mongodb://host/onward?w=1", "wants writes to be acknowledged by less than a majority"),
    ],
)
def test_what_is_no_store_is_said_without_repeating_it(url: str, told: str) -> None:
    with pytest.raises(Impossible, match=told) as caught:
        sqlite_or_mongodb(url)
    assert "hunter" not in str(caught.value)


def test_a_password_stands_behind_its_user() -> None:
    url = "mongodb://a%40b@host:1,other/onward?replicaSet=rs0"
    assert user_of(url) == "a@b"
    assert user_of("mongodb://host/onward?authSource=x@y") == ""
    assert with_password(url, "p@ss:/wörd") == (
        "mongodb://a%40b:p%40ss%3A%2Fw%C3%B6rd@host:1,other/onward?replicaSet=rs0"
    )
