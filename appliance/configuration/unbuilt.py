"""What the configuration can already say and this version cannot do yet.

Where it would matter, such a key is refused, never ignored: who writes `ephemeral = "redis://..."` must not find two
nodes that know nothing of each other. Where nothing is worse without it (a notice that is not sent, a limit that is not
enforced), it is taken, and a line at the start says that it has no effect yet. Building a feature ends with taking its
line out of these lists.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from appliance.configuration.lines import KeyPath
from appliance.configuration.settings import (
    Configuration,
    Delivery,
    Http,
    Log,
    MailProvider,
    read_plan,
)
from appliance.model.account import Plan


@dataclass(frozen=True, slots=True)
class Unbuilt:
    """A key, whether the configuration asks for what is not there, and what to write until it is."""

    key: tuple[str, str]
    asked_for: Callable[[Configuration], bool]
    what: str
    instead: str


UNBUILT: Final = (
    Unbuilt(("http", "listen_tls"), lambda c: bool(c.http.listen_tls), "HTTP over TLS", "[]"),
    Unbuilt(("http", "trusted_proxies"), lambda c: bool(c.http.trusted_proxies), "believing a proxy's headers", "[]"),
    # The URLs are not repeated in the error: somebody may have written a password into one.
    Unbuilt(("store", "url"), lambda c: c.store.url != "sqlite:", "any store but SQLite in data_dir", '"sqlite:"'),
    Unbuilt(("store", "ephemeral"), lambda c: c.store.ephemeral != "memory:", "any store but memory", '"memory:"'),
    Unbuilt(("forwarding", "arc"), lambda c: c.forwarding.arc, "ARC", "false"),
    Unbuilt(("mail", "provider"), lambda c: c.mail.provider is not MailProvider.SELF, "Postmark", '"self"'),
    Unbuilt(("tls", "acme_directory"), lambda c: c.tls.acme_directory != "", "ACME", '""'),
    Unbuilt(("tls", "acme_email"), lambda c: c.tls.acme_email != "", "ACME", '""'),
)

WITHOUT_EFFECT: Final = (
    Unbuilt(
        ("http", "public_url"),
        lambda c: c.http.public_url != Http().public_url,
        "links to its own pages",
        '"http://127.0.0.1:8025"',
    ),
    Unbuilt(
        ("delivery", "delay_notice_after"),
        # "" asks for no notices, and gets none.
        lambda c: c.delivery.delay_notice_after not in (None, Delivery().delay_notice_after),
        # They are there. Whether a sender is who it claims to be, nobody can say yet.
        "the authentication of senders, without which nobody gets a notice of delay,",
        '"4h" or ""',
    ),
    Unbuilt(
        ("log", "http_retention"), lambda c: c.log.http_retention != Log().http_retention, "a log of HTTP", '"30d"'
    ),
)

WITHOUT_EFFECT_IN_PLANS: Final[Mapping[str, tuple[Callable[[Plan], int], str]]] = {
    "max_message_size": (lambda plan: plan.max_message_octets, "a size of message by plan"),
    "max_messages_per_day": (lambda plan: plan.max_messages_per_day, "a number of messages by plan"),
}
"""By key of `[plans.NAME]`: its value in a plan, and what it asks for where it is not the default."""


def refused(config: Configuration) -> Iterator[tuple[KeyPath, str, str]]:
    """Each key that asks for what must not be missing: what that is, and what to write until it is there."""
    for unbuilt in UNBUILT:
        if unbuilt.asked_for(config):
            yield unbuilt.key, unbuilt.what, unbuilt.instead


def without_effect(config: Configuration) -> Iterator[tuple[KeyPath, str]]:
    """Each key that asks for what is not there and is not missed, and what that is."""
    for unbuilt in WITHOUT_EFFECT:
        if unbuilt.asked_for(config):
            yield unbuilt.key, unbuilt.what
    for name, plan in config.plans.items():
        default = read_plan(name, {})
        for key, (value_of, what) in WITHOUT_EFFECT_IN_PLANS.items():
            if value_of(plan) != value_of(default):
                yield ("plans", name, key), what
