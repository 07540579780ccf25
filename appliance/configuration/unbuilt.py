"""What the configuration can already say and this version cannot do yet.

Where it would matter, such a key is refused, never ignored: who writes `arc = true` must not find mail without it.
Where nothing is worse without it (a notice that is not sent), it is taken, and a
line at the start says that it has no effect yet. Building a feature ends with taking its line out of these lists.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from appliance.configuration.lines import KeyPath
from appliance.configuration.settings import Configuration, Delivery


@dataclass(frozen=True, slots=True)
class Unbuilt:
    """A key, whether the configuration asks for what is not there, and what to write until it is."""

    key: tuple[str, str]
    asked_for: Callable[[Configuration], bool]
    what: str
    instead: str


UNBUILT: Final = (
    Unbuilt(("http", "listen_tls"), lambda c: bool(c.http.listen_tls), "HTTP over TLS", "[]"),
    Unbuilt(("forwarding", "arc"), lambda c: c.forwarding.arc, "ARC", "false"),
    Unbuilt(("tls", "acme_directory"), lambda c: c.tls.acme_directory != "", "ACME", '""'),
    Unbuilt(("tls", "acme_email"), lambda c: c.tls.acme_email != "", "ACME", '""'),
)

WITHOUT_EFFECT: Final = (
    Unbuilt(
        ("delivery", "delay_notice_after"),
        # "" asks for no notices, and gets none.
        lambda c: c.delivery.delay_notice_after not in (None, Delivery().delay_notice_after),
        # They are there. Whether a sender is who it claims to be, nobody can say yet.
        "the authentication of senders, without which nobody gets a notice of delay,",
        '"4h" or ""',
    ),
)


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
