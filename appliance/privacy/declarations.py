"""One declaration per class of stored data. There is no other way to store anything.

Read this file to know what the appliance can remember. A field is *clear*, *sealed* (encrypted under a key that can be
destroyed) or *keyed* (a MAC of a value, for looking it up without keeping it). Personal data of mail and of the log is
never clear.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Store(Enum):
    """The three stores, told apart by what they promise."""

    RECORDS = "records"
    """Accounts, domains, aliases and the log: survives everything, in backups (but for the log)."""
    SPOOL = "spool"
    """Mail under way: durable before the sender's 250, erased with the last delivery, never in a backup."""
    EPHEMERAL = "ephemeral"
    """What may be forgotten at any time, and is when its time is over: the store itself sees to that."""


class Protection(Enum):
    """How a field stands on the disk."""

    CLEAR = "clear"
    SEALED = "sealed"
    KEYED = "keyed"


class Kind(Enum):
    """The type of a field's value in Python."""

    TEXT = "text"
    INTEGER = "integer"
    """An int of at most 64 bits; also instants (milliseconds since the epoch)."""
    BOOLEAN = "boolean"
    OCTETS = "octets"
    LIST = "list"
    """A list of texts, or of mappings from text to text."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a collection."""

    name: str
    kind: Kind = Kind.TEXT
    protection: Protection = Protection.CLEAR
    optional: bool = False
    of: str = ""
    """For a keyed field: the name of the field that it is the MAC of. The ephemeral store has such fields of what it
    never gets to see."""


@dataclass(frozen=True, slots=True)
class Retention:
    """After how long a row is erased, counted from the instant in `since`."""

    setting: str
    """The configuration key that says how long, such as `log.error_retention`; or a fixed span such as `10d`."""
    since: str
    where: tuple[str, tuple[str, ...]] | None = None
    """Only rows whose field (first) has one of the values (second); None for every row."""


@dataclass(frozen=True, slots=True)
class Collection:
    """One class of stored data."""

    name: str
    store: Store
    purpose: str
    """For people: it stands in the privacy policy as it is here."""
    fields: tuple[Field, ...]
    key: tuple[str, ...] = ("id",)
    unique: tuple[tuple[str, ...], ...] = ()
    indexes: tuple[tuple[str, ...], ...] = ()
    retention: tuple[Retention, ...] = ()
    """Empty: kept until its owner deletes it or its work is done, as the purpose says."""
    sealed_under: str = ""
    """The name of the key for the sealed and keyed fields; see `appliance.privacy.secrets`. Empty in the ephemeral
    store: its key is as fleeting as itself."""
    sealed_as: str = ""
    """A sealed row opens only under this name; the collection's own where empty. Rows move between two alike."""
    at_most: int = 0
    """Ephemeral: beyond so many rows the oldest is forgotten, so that no stranger makes memory grow."""

    def field(self, name: str) -> Field:
        """Raises KeyError where no such field is declared."""
        for field in self.fields:
            if field.name == name:
                return field
        raise KeyError(f"{self.name} has no field {name!r}: declare it in appliance/privacy/declarations.py")

    def protected(self, protection: Protection) -> tuple[Field, ...]:
        """The fields that stand on the disk in this way, in the order of declaration."""
        return tuple(field for field in self.fields if field.protection is protection)


Row = Mapping[str, object]
"""One row as the rooms see it: values by field name, in the clear, without the keyed fields."""


def _sealed(name: str, *, kind: Kind = Kind.TEXT, optional: bool = False) -> Field:
    return Field(name, kind, Protection.SEALED, optional)


def _keyed(of: str) -> Field:
    return Field(f"{of}_key", Kind.OCTETS, Protection.KEYED, of=of)


def _number(name: str, *, optional: bool = False) -> Field:
    return Field(name, Kind.INTEGER, optional=optional)


# ------------------------------------------------------------------ records

ACCOUNTS = Collection(
    name="accounts",
    store=Store.RECORDS,
    purpose="Who owns domains: an email address to sign in with, and a password as an argon2id hash.",
    fields=(
        Field("id"),
        Field("email"),
        Field("email_verified", Kind.BOOLEAN),
        Field("password_hash", optional=True),
        Field("role"),
        Field("plan"),
        _number("created_at"),
    ),
    unique=(("email",),),
)

DOMAINS = Collection(
    name="domains",
    store=Store.RECORDS,
    purpose="The domains whose mail is forwarded, and how: delivery mode and log level.",
    fields=(
        Field("id"),
        Field("account_id"),
        Field("name"),
        Field("verified", Kind.BOOLEAN),
        Field("delivery_mode"),
        Field("log_level"),
        _number("created_at"),
    ),
    unique=(("name",),),
    indexes=(("account_id",),),
)

ALIASES = Collection(
    name="aliases",
    store=Store.RECORDS,
    purpose="Which addresses of a domain lead where.",
    fields=(
        Field("id"),
        Field("domain_id"),
        Field("pattern"),
        Field("action"),
        Field("targets", Kind.LIST),
        Field("reference"),
        Field("enabled", Kind.BOOLEAN),
        _number("expires_at", optional=True),
        Field("description", optional=True),
        _number("created_at"),
    ),
    unique=(("domain_id", "pattern"), ("reference",)),
)

DESTINATIONS = Collection(
    name="destinations",
    store=Store.RECORDS,
    purpose="The mailboxes an account forwards to, and since when their owners have agreed.",
    fields=(
        Field("id"),
        Field("account_id"),
        Field("target"),
        _number("confirmed_at", optional=True),
        _number("created_at"),
    ),
    unique=(("account_id", "target"),),
)

GENERATIONS = Collection(
    name="generations",
    store=Store.RECORDS,
    purpose="A number raised with every change of accounts, domains and aliases, so that a running appliance sees it.",
    fields=(Field("id"), _number("value")),
)

_EVENT_FIELDS = (
    Field("id"),
    Field("message_id"),
    Field("domain_id"),
    _number("at"),
    Field("type"),
    _number("size"),
    _number("code"),
    Field("enhanced_code", optional=True),
    Field("reason"),
    _number("attempt"),
    _number("duration_ms"),
    _sealed("sender"),
    _keyed("sender"),
    _sealed("recipient"),
    _keyed("recipient"),
    _sealed("response"),
    _sealed("client_address", optional=True),
    _sealed("client_name", optional=True),
    _sealed("subject", optional=True),
    _sealed("server_name", optional=True),
    _sealed("server_address", optional=True),
    _sealed("tls", optional=True),
)

EVENTS = Collection(
    name="events",
    store=Store.RECORDS,
    purpose="The delivery log: five kinds of event with data points, never content, as each domain's level allows.",
    fields=_EVENT_FIELDS,
    # A domain's log is read page by page in the order of ids, which is that of time.
    indexes=(("domain_id", "id"), ("at",), ("message_id",)),
    sealed_under="log",
    retention=(
        Retention("log.delivery_retention", since="at", where=("type", ("RECEIVED", "DELIVERED"))),
        Retention("log.error_retention", since="at", where=("type", ("SOFT_BOUNCED", "HARD_BOUNCED", "REFUSED"))),
    ),
)

# ------------------------------------------------------------------ spool

DELIVERIES = Collection(
    name="deliveries",
    store=Store.SPOOL,
    purpose="What is still to be done for each message under way; erased when it is delivered or has bounced.",
    fields=(
        Field("id"),
        Field("message_id"),
        _number("accepted_at"),
        _number("size"),
        _number("priority"),
        Field("eight_bit", Kind.BOOLEAN),
        Field("state"),
        _number("attempts"),
        _number("next_attempt_at"),
        _sealed("sender"),
        _sealed("return_path"),
        _sealed("target"),
        # The domain of the target in lower case, so that claiming can leave a destination out without opening a row.
        _sealed("destination"),
        _keyed("destination"),
        # Each with what the sender wants to hear about it (NOTIFY) and whom it was first addressed to (ORCPT).
        _sealed("recipients", kind=Kind.LIST),
        _sealed("last_response", optional=True),
        # Said by few senders, and absent where nothing was said: no column of their own, and no octet in most rows.
        _sealed("utf8", kind=Kind.BOOLEAN, optional=True),
        _sealed("require_tls", kind=Kind.BOOLEAN, optional=True),
        _sealed("ret", optional=True),
        _sealed("envid", optional=True),
        _sealed("running_since", kind=Kind.INTEGER, optional=True),
        _sealed("authentication", optional=True),
        _sealed("delay_told", kind=Kind.BOOLEAN, optional=True),
        _sealed("held_for", optional=True),
    ),
    # With the destination in it, what a claim leaves out is passed over in the index alone.
    indexes=(("message_id",), ("state", "priority", "next_attempt_at", "destination_key")),
    sealed_under="spool",
)

CONTENT = Collection(
    name="content",
    store=Store.SPOOL,
    purpose="The octets of each message under way, encrypted; erased with its last delivery.",
    fields=(Field("message_id"), _number("part"), _sealed("octets", kind=Kind.OCTETS)),
    key=("message_id", "part"),
    sealed_under="spool",
)

OUTBOX = Collection(
    name="outbox",
    store=Store.SPOOL,
    purpose="Events on their way from the spool to the delivery log; moved within moments.",
    fields=_EVENT_FIELDS,
    sealed_under="log",
    sealed_as="events",
)

RETURN_PATHS = Collection(
    name="return_paths",
    store=Store.SPOOL,
    purpose="Senders whose address is too long to be carried inside a rewritten one, so that a bounce can find them.",
    fields=(
        Field("token"),
        _sealed("sender"),
        Field("reference"),
        _number("created_at"),
    ),
    key=("token",),
    sealed_under="spool",
    retention=(Retention("21d", since="created_at"),),
)

HOLDS = Collection(
    name="holds",
    store=Store.SPOOL,
    purpose="Which mail an operator keeps back: by domain, destination or sender; erased when the hold is lifted.",
    fields=(
        Field("id"),
        _number("created_at"),
        _sealed("domain", optional=True),
        _sealed("destination", optional=True),
        _sealed("sender", optional=True),
    ),
    sealed_under="spool",
)

CLOCKS = Collection(
    name="clocks",
    store=Store.SPOOL,
    purpose="For how long the appliance has run, so that a wall clock that jumps neither bounces nor delays mail.",
    fields=(Field("id"), _number("value")),
)

# ------------------------------------------------------------------ ephemeral

TRANSIT_DELIVERED = Collection(
    name="transit_delivered",
    store=Store.EPHEMERAL,
    purpose="Which mailboxes have a message already that its sender was asked to send again (a MAC of the envelope and "
    "the message), so that the next attempt leaves them out.",
    fields=(_keyed("handover"), _number("remembered_at")),
    key=("handover_key",),
    # RFC 5321 §4.5.4.1: senders give up after four or five days.
    retention=(Retention("5d", since="remembered_at"),),
    at_most=100_000,
)

TRANSIT_REFUSED = Collection(
    name="transit_refused",
    store=Store.EPHEMERAL,
    purpose="Which aliases a message was refused for while others took it, so that its sender hears that at the next "
    "attempt.",
    fields=(_keyed("envelope"), _number("remembered_at"), _sealed("code"), _sealed("text"), _sealed("status")),
    key=("envelope_key",),
    # Whoever was put off comes back within that (RFC 5321 §4.5.4.1: after half an hour or so). Longer would catch more
    # messages that only look like the retry; shorter costs the sender one more round.
    retention=(Retention("4h", since="remembered_at"),),
    at_most=10_000,
)

TRANSIT_RETURN_PATHS = Collection(
    name="transit_return_paths",
    store=Store.EPHEMERAL,
    purpose="Senders whose address is too long to be carried inside a rewritten one, so that a bounce can find them.",
    fields=(
        _keyed("token"),
        _number("remembered_at"),
        _sealed("sender"),
        _sealed("reference"),
        _sealed("created_at"),
    ),
    key=("token_key",),
    # As long as a rewritten sender is valid (`appliance.forwarding.srs.VALID_DAYS`).
    retention=(Retention("21d", since="remembered_at"),),
    at_most=100_000,
)

COLLECTIONS: tuple[Collection, ...] = (
    ACCOUNTS,
    DOMAINS,
    ALIASES,
    DESTINATIONS,
    GENERATIONS,
    EVENTS,
    DELIVERIES,
    CONTENT,
    OUTBOX,
    RETURN_PATHS,
    HOLDS,
    CLOCKS,
    TRANSIT_DELIVERED,
    TRANSIT_REFUSED,
    TRANSIT_RETURN_PATHS,
)


def collections_of(store: Store) -> tuple[Collection, ...]:
    """Every declared class of data that this store holds."""
    return tuple(collection for collection in COLLECTIONS if collection.store is store)
