"""What the configuration can already say and this version cannot do yet.

Such a key is refused, never ignored: who writes `mode = "transit"` must not find the mail on a disk. Building a feature
ends with taking its line out of this list.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from appliance.configuration.settings import Configuration, MailProvider
from appliance.model.domain import DeliveryMode


@dataclass(frozen=True, slots=True)
class Unbuilt:
    """A key, whether the configuration asks for what is not there, and what to write until it is."""

    key: tuple[str, str]
    asked_for: Callable[[Configuration], bool]
    what: str
    instead: str


UNBUILT: Final = (
    Unbuilt(("smtp", "trusted_proxies"), lambda c: bool(c.smtp.trusted_proxies), "the PROXY protocol", "[]"),
    Unbuilt(("http", "listen_tls"), lambda c: bool(c.http.listen_tls), "HTTP over TLS", "[]"),
    Unbuilt(("http", "trusted_proxies"), lambda c: bool(c.http.trusted_proxies), "believing a proxy's headers", "[]"),
    # The URLs are not repeated in the error: somebody may have written a password into one.
    Unbuilt(("store", "url"), lambda c: c.store.url != "sqlite:", "any store but SQLite in data_dir", '"sqlite:"'),
    Unbuilt(("store", "ephemeral"), lambda c: c.store.ephemeral != "memory:", "any store but memory", '"memory:"'),
    Unbuilt(("delivery", "mode"), lambda c: c.delivery.mode is DeliveryMode.TRANSIT, "transit mode", '"spool"'),
    Unbuilt(("delivery", "smarthost"), lambda c: c.delivery.smarthost != "", "delivery through a smarthost", '""'),
    Unbuilt(
        ("delivery", "source_addresses"), lambda c: bool(c.delivery.source_addresses), "choosing source addresses", "[]"
    ),
    Unbuilt(("forwarding", "arc"), lambda c: c.forwarding.arc, "ARC", "false"),
    Unbuilt(("mail", "provider"), lambda c: c.mail.provider is not MailProvider.SELF, "Postmark", '"self"'),
    Unbuilt(("tls", "certificate"), lambda c: c.tls.certificate != "", "TLS", '""'),
    Unbuilt(("tls", "key"), lambda c: c.tls.key != "", "TLS", '""'),
    Unbuilt(("tls", "acme_directory"), lambda c: c.tls.acme_directory != "", "ACME", '""'),
    Unbuilt(("tls", "acme_email"), lambda c: c.tls.acme_email != "", "ACME", '""'),
)
