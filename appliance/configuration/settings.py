"""Every key of the configuration, with its default written as a person would write it.

The attributes have the names of the TOML keys (`from` is `from_`: a keyword of Python). Sizes are octets, time spans
milliseconds. Defaults pass through the same readers as what is written in the file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Final, Literal

from appliance.configuration.mongo_urls import sqlite_or_mongodb
from appliance.configuration.redis_urls import redis_or_none
from appliance.configuration.values import (
    FROM_SYSTEMD,
    PORT,
    ListenAddress,
    Read,
    SmarthostAddress,
    Value,
    choice,
    count,
    distinct,
    domain_or_empty,
    file_or_empty,
    listen_address,
    mailbox_or_empty,
    many,
    name_server,
    network,
    size,
    smarthost_or_none,
    source_address,
    span,
    span_or_none,
    switch,
    text,
    web_address,
)
from appliance.model.account import Plan
from appliance.model.domain import DeliveryMode, LogLevel
from appliance.storage.redis_address import RedisAddress

__all__ = [
    "CONTROL_SOCKET",
    "ENGINE_SOCKET",
    "FROM_SYSTEMD",
    "PLAN_DEFAULTS",
    "PLAN_SETTINGS",
    "SECTIONS",
    "Configuration",
    "IpVersion",
    "ListenAddress",
    "MailProvider",
    "SmarthostAddress",
    "plan_default",
    "read_plan",
]

CONTROL_SOCKET: Final = "control.sock"
"""The name, in the data directory, of the socket on which a running appliance listens to its operator: HTTP, as on its
ports."""

ENGINE_SOCKET: Final = "engine.sock"
"""The name, in the data directory, of the socket on which the engine answers the control process."""

READ: Final = "read"
"""Where a field's metadata keep the reader of its value."""

# RFC 5321 §4.5.3.1.8: a server that takes fewer than 100 recipients in a message breaks senders that count on it.
LEAST_RECIPIENTS = 100


def setting(default: object, read: Read[Value]) -> Value:
    """A field of a section: its default, as TOML would have it, and what reads it."""
    made: Value = field(default_factory=lambda: read(default), metadata={READ: read})
    return made


class IpVersion(Enum):
    """Over which versions of IP mail leaves."""

    BOTH = "both"
    FOUR = "4"
    SIX = "6"


class MailProvider(Enum):
    """Who sends the appliance's own mail."""

    SELF = "self"
    POSTMARK = "postmark"


@dataclass(frozen=True, slots=True, kw_only=True)
class Smtp:
    """`[smtp]`: mail that arrives."""

    listen: tuple[ListenAddress | Literal["fd"], ...] = setting(
        ["127.0.0.1:2525"], distinct(many(listen_address, least=1))
    )
    max_message_size: int = setting("50 MiB", size)
    max_recipients: int = setting(100, count(LEAST_RECIPIENTS))
    max_connections: int = setting(1000, count())
    max_connections_per_client: int = setting(20, count())
    max_header_size: int = setting("512 KiB", size)
    """Of a message's header section. Beyond it 552."""
    max_in_flight: int = setting("256 MiB", size)
    """Memory for messages on their way in, of all connections together. Beyond it 452."""
    max_unknown_recipients: int = setting(50, count())
    """Of one client within ten minutes. From a fifth of it on the answers come slowly; beyond it 421."""
    minimum_rate: int = setting("256 B", size)
    """A second, for content; who is slower for a minute gets 421."""
    trusted_proxies: tuple[str, ...] = setting([], many(network))
    command_timeout: int = setting("5m", span)
    transaction_timeout: int = setting("30m", span)


@dataclass(frozen=True, slots=True, kw_only=True)
class Http:
    """`[http]`: the web page, the API and health."""

    listen: tuple[ListenAddress | Literal["fd"], ...] = setting(["127.0.0.1:8025"], distinct(many(listen_address)))
    public_url: str = setting("http://127.0.0.1:8025", web_address)
    listen_tls: tuple[ListenAddress | Literal["fd"], ...] = setting([], distinct(many(listen_address)))
    trusted_proxies: tuple[str, ...] = setting([], many(network))


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """`[store]`: where records, the spool and what may be forgotten are kept."""

    url: str = setting("sqlite:", sqlite_or_mongodb)
    ephemeral: RedisAddress | None = setting("memory:", redis_or_none)  # noqa: RUF009 (it is a field)
    """None: the memory of each process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Dns:
    """`[dns]`: whom to ask for names."""

    nameservers: tuple[tuple[str, int], ...] = setting([], many(name_server))
    """Empty: the system's."""
    timeout: int = setting("5s", span)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """`[delivery]`: mail that leaves."""

    mode: DeliveryMode = setting("spool", choice(DeliveryMode))  # noqa: RUF009 (it is a field)
    port: int = setting(25, PORT)
    smarthost: SmarthostAddress | None = setting("", smarthost_or_none)  # noqa: RUF009 (it is a field)
    """Where there is one, all mail that leaves goes to it."""
    retry: tuple[int, ...] = setting(["1m", "5m", "15m", "30m", "1h", "2h", "4h"], many(span, least=1))
    give_up_after: int = setting("5d", span)
    delay_notice_after: int | None = setting("4h", span_or_none)
    max_per_destination: int = setting(20, count())
    source_addresses: tuple[str, ...] = setting([], distinct(many(source_address)))
    """Empty: the kernel chooses. A version of IP that has none here is not used."""
    ip: IpVersion = setting("both", choice(IpVersion))  # noqa: RUF009 (it is a field)
    loopback_destinations: bool = setting(False, switch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forwarding:
    """`[forwarding]`: what is changed on the way."""

    srs_domain: str = setting("", domain_or_empty)
    """Once loaded never empty: `srs.<hostname>` where none is written."""
    arc: bool = setting(False, switch)


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """`[log]`: what the log may remember, and for how long."""

    level: LogLevel = setting("events", choice(LogLevel))  # noqa: RUF009 (it is a field)
    delivery_retention: int = setting("7d", span)
    error_retention: int = setting("7d", span)
    http_retention: int = setting("30d", span)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """`[mail]`: the appliance's own mail."""

    from_: str = setting("", mailbox_or_empty)
    """Once loaded never empty: `postmaster@<hostname>` where none is written."""
    postmaster: str = setting("", mailbox_or_empty)
    """Empty: the first operator."""
    provider: MailProvider = setting("self", choice(MailProvider))  # noqa: RUF009 (it is a field)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """`[tls]`: the certificate."""

    certificate: str = setting("", file_or_empty)
    """A PEM file with the certificate and those between it and the authority; empty: a self-signed one is made."""
    key: str = setting("", file_or_empty)
    """The PEM file with its key."""
    acme_directory: str = setting("", text)
    acme_email: str = setting("", text)


PLAN_SETTINGS: Final[Mapping[str, Read[int]]] = {
    "max_message_size": size,
    "max_domains": count(0),
    "max_aliases_per_domain": count(0),
    "max_messages_per_day": count(0),
    "priority": count(-1000, 1000),
}
"""The keys of `[plans.NAME]`."""

_FREE: Final[Mapping[str, object]] = {
    "max_message_size": "25 MiB",
    "max_domains": 5,
    "max_aliases_per_domain": 50,
    "max_messages_per_day": 500,
    "priority": 0,
}
_PREMIUM: Final[Mapping[str, object]] = {
    "max_message_size": "50 MiB",
    "max_domains": 100,
    "max_aliases_per_domain": 1000,
    "max_messages_per_day": 15000,
    "priority": 10,
}
PLAN_DEFAULTS: Final[Mapping[str, Mapping[str, object]]] = {"free": _FREE, "premium": _PREMIUM}
"""The plans that are there without being written. What another plan leaves out is as in `free`."""


def plan_default(name: str) -> Mapping[str, object]:
    """What a plan of this name is where nothing is written of it, as a person would write it."""
    return PLAN_DEFAULTS.get(name, _FREE)


def read_plan(name: str, written: Mapping[str, object]) -> Plan:
    """A plan from what is written of it. Raises Impossible where a value is impossible."""
    values = {**plan_default(name), **written}
    read = {key: reader(values[key]) for key, reader in PLAN_SETTINGS.items()}
    return Plan(name=name, max_message_octets=read.pop("max_message_size"), **read)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    """The whole of it, with every default resolved."""

    hostname: str
    data_dir: Path
    """Absolute."""
    smtp: Smtp = field(default_factory=Smtp)
    http: Http = field(default_factory=Http)
    store: Store = field(default_factory=Store)
    dns: Dns = field(default_factory=Dns)
    delivery: Delivery = field(default_factory=Delivery)
    forwarding: Forwarding = field(default_factory=Forwarding)
    log: Log = field(default_factory=Log)
    mail: Mail = field(default_factory=Mail)
    tls: Tls = field(default_factory=Tls)
    plans: Mapping[str, Plan] = field(default_factory=lambda: {name: read_plan(name, {}) for name in PLAN_DEFAULTS})

    @property
    def control_socket(self) -> Path:
        """Where the control process of a running appliance listens to its operator, over HTTP."""
        return self.data_dir / CONTROL_SOCKET

    @property
    def engine_socket(self) -> Path:
        """Where the engine of a running appliance answers (`appliance.wire`)."""
        return self.data_dir / ENGINE_SOCKET


SECTIONS: Final[Mapping[str, type]] = {
    "smtp": Smtp,
    "http": Http,
    "store": Store,
    "dns": Dns,
    "delivery": Delivery,
    "forwarding": Forwarding,
    "log": Log,
    "mail": Mail,
    "tls": Tls,
}
"""The tables of the file, but for the plans, whose names people choose."""
