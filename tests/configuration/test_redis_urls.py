"""Where a Redis is, as an operator writes it."""

from pathlib import Path

import pytest

from appliance.configuration.redis_urls import redis_or_none
from appliance.configuration.values import Impossible
from appliance.storage.redis_address import RedisAddress


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("memory:", None),
        ("redis://host", RedisAddress(hosts=(("host", 6379),))),
        ("redis://host:6380/3", RedisAddress(hosts=(("host", 6380),), database=3)),
        ("REDIS://Redis.Example.:1/", RedisAddress(hosts=(("redis.example", 1),))),
        ("redis://192.0.2.1", RedisAddress(hosts=(("192.0.2.1", 6379),))),
        ("redis://[2001:db8::1]:6380/0", RedisAddress(hosts=(("2001:db8::1", 6380),))),
        ("redis://onward@host", RedisAddress(hosts=(("host", 6379),), user="onward")),
        ("redis://a%40b@host", RedisAddress(hosts=(("host", 6379),), user="a@b")),
        ("rediss://host/1", RedisAddress(hosts=(("host", 6379),), database=1, tls=True)),
        (
            "rediss://host?tlsCAFile=/etc/ca.pem&tlsCertificateKeyFile=/etc/o%20wn.pem",
            RedisAddress(hosts=(("host", 6379),), tls=True, authorities="/etc/ca.pem", certificate="/etc/o wn.pem"),
        ),
        (
            "rediss://host?tlsCAFile=ca.pem",
            RedisAddress(hosts=(("host", 6379),), tls=True, authorities="<here>/ca.pem"),
        ),
        (
            "redis+sentinel://host:26379,host2:26380/mymaster/2",
            RedisAddress(hosts=(("host", 26379), ("host2", 26380)), service="mymaster", database=2),
        ),
        (
            "rediss+sentinel://onward@[::1],192.0.2.1/my.master-1",
            RedisAddress(hosts=(("::1", 26379), ("192.0.2.1", 26379)), service="my.master-1", user="onward", tls=True),
        ),
    ],
)
def test_a_redis_and_how_it_is_written(url: str, address: RedisAddress | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    read = redis_or_none(url)
    assert repr(read).replace(str(Path("/tmp").resolve()), "<here>") == repr(address)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("", "is not the URL of a Redis"),
        ("redis", "is not the URL of a Redis"),
        ("memory", "is not the URL of a Redis"),
        ("mongodb://host", "is not the URL of a Redis"),
        ("unix:///run/redis.sock", "is not the URL of a Redis"),
        ("sentinel://host", "is not the URL of a Redis"),
        ("redis://:hunter2@host", "has a password in it"),
        ("rediss+sentinel://user:hunter2@host/mymaster", "has a password in it"),
        ("redis://@host", "has no user before the @"),
        ("redis://a\n@host", "has no user before the @"),
        ("redis://", "in the place of a host that is none"),
        ("redis://ho st", "in the place of a host that is none"),
        ("redis://192.0.2.256", "in the place of a host that is none"),
        ("redis://[192.0.2.1]", "in the place of a host that is none"),
        ("redis://b\u00fccher.example", "in the place of a host that is none"),
        ("redis://::1", "no host with a port"),
        ("redis://host:\u0665", "no host with a port"),
        ("redis://host:0", "has no possible port"),
        ("redis://host:65536", "has no possible port"),
        ("redis://host/10000", "has no number of a database"),
        ("redis://host/-1", "has no number of a database"),
        ("redis://host/mymaster/0", "has no number of a database"),
        ("redis://host,host2/0", "several hosts without Sentinels"),
        ("redis+sentinel://host", "what the Sentinels call the server"),
        ("redis+sentinel://host//0", "what the Sentinels call the server"),
        ("redis+sentinel://host/my master/0", "what the Sentinels call the server"),
        ("redis+sentinel://host,/mymaster", "in the place of a host that is none"),
        ("redis://host?password=hunter2", "behind the question mark that is none of tlsCAFile"),
        ("redis://host?tlsCAFile=/ca.pem", "is not for TLS"),
        ("rediss://host?tlsCAFile=", "has tlsCAFile without a file"),
        ("rediss://host?tlsCAFile=/a&tlsCAFile=/b", "or twice"),
        ("rediss://host?tlsCAFile=/a%00", "has tlsCAFile without a file"),
        (6379, "is not a text"),
    ],
)
def test_no_redis_and_what_is_said_of_it(url: object, told: str) -> None:
    with pytest.raises(Impossible, match=told) as raised:
        redis_or_none(url)
    assert "hunter2" not in str(raised.value)
