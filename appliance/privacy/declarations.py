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
    secret: bool = False
    """It proves who somebody is, as the hash of a password or a token does: it never leaves the store, not even in what
    an account is given of its own data."""


@dataclass(frozen=True, slots=True)
class Retention:
    """After how long a row is erased, counted from the instant in `since`."""

    setting: str
    """The configuration key that says how long, such as `log.error_retention`; or a fixed span such as `10d`."""
    since: str
    where: tuple[str, tuple[str | bool, ...]] | None = None
    """Only rows whose field (first) has one of the values (second); None for every row."""


@dataclass(frozen=True, slots=True)
class BelongsTo:
    """Whose a row is: it goes when its owner goes, and is part of what an account is given of its own data."""

    owner: str
    """The name of the collection that the owner stands in: `accounts`, or one that belongs to an account in turn."""
    by: str
    """The field that has the owner's id; a row without one is nobody's."""


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
    store, whose key is chosen with the store itself: all of it has one (`appliance.run.ephemeral`)."""
    sealed_as: str = ""
    """A sealed row opens only under this name; the collection's own where empty. Rows move between two alike."""
    at_most: int = 0
    """Ephemeral: beyond so many rows the oldest is forgotten, so that no stranger makes memory grow."""
    group: str = ""
    """Ephemeral: the keyed field by which several rows are found together, beside their key."""
    belongs_to: BelongsTo | None = None
    """What is of an account is erased with it, and exported for it, by this. None needs `nobodys`."""
    nobodys: str = ""
    """Why rows of the record store that belong to no account do not: they outlive every account."""
    shared: bool = False
    """Only in a store that several nodes share."""
    books: bool = False
    """Kept by such a store itself, about the other collections; no room can ask for it."""
    marks: tuple[str, ...] = ()
    """What such a store writes into a row beside its fields, to keep a group of changes whole and to know which node is
    at work: names of groups and nodes, instants, and in `next` the same fields again, protected as they are. Into every
    row of records it writes one, `batch`: the name of the group that has changed it last."""

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


def _sealed(name: str, *, kind: Kind = Kind.TEXT, optional: bool = False, secret: bool = False) -> Field:
    return Field(name, kind, Protection.SEALED, optional, secret=secret)


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
        Field("password_hash", optional=True, secret=True),
        Field("role"),
        Field("plan"),
        _number("created_at"),
        _number("password_changed_at", optional=True),
    ),
    unique=(("email",),),
    # Somebody typed it and nobody ever answered: perhaps the address of a stranger.
    retention=(Retention("7d", since="created_at", where=("email_verified", (False,))),),
    belongs_to=BelongsTo("accounts", by="id"),
)

DOMAINS = Collection(
    name="domains",
    store=Store.RECORDS,
    purpose="The domains whose mail is forwarded, or will be once its owner has proven to be it, and in which manner.",
    fields=(
        Field("id"),
        Field("account_id"),
        Field("name"),
        Field("verified", Kind.BOOLEAN),
        # The name once more where it is proven: several accounts may claim a name, and one can have it.
        Field("verified_name", optional=True),
        Field("delivery_mode"),
        Field("log_level"),
        Field("quarantine_action", optional=True),
        Field("allow_from_rewrite", Kind.BOOLEAN, optional=True),
        _number("created_at"),
    ),
    unique=(("account_id", "name"), ("verified_name",)),
    indexes=(("name",),),
    belongs_to=BelongsTo("accounts", by="account_id"),
)

ALIASES = Collection(
    name="aliases",
    store=Store.RECORDS,
    purpose="Which addresses of a domain lead where, until when, and for how many messages.",
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
        _number("max_uses", optional=True),
        Field("use_counter", optional=True),
        # A copy of what stands in `alias_uses`, so that it can be shown without the spool.
        _number("uses", optional=True),
        _number("created_at"),
    ),
    unique=(("domain_id", "pattern"), ("reference",)),
    indexes=(("use_counter",),),
    belongs_to=BelongsTo("domains", by="domain_id"),
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
    belongs_to=BelongsTo("accounts", by="account_id"),
)

CONFIRMATIONS = Collection(
    name="confirmations",
    store=Store.RECORDS,
    purpose="Questions to the owners of mailboxes, whether they agree to be forwarded to: the hash of the link that "
    "was mailed to them, erased once it is used, and after a month.",
    fields=(
        Field("token_hash", secret=True),
        Field("account_id"),
        Field("destination_id"),
        _number("asked_at"),
    ),
    key=("token_hash",),
    indexes=(("account_id", "asked_at"), ("destination_id",), ("asked_at",)),
    # For a yes it is good for a week (`appliance.accounts.consent`); to say "never again" one may take longer.
    retention=(Retention("30d", since="asked_at"),),
    belongs_to=BelongsTo("accounts", by="account_id"),
)

ASKED_MAILBOXES = Collection(
    name="asked_mailboxes",
    store=Store.RECORDS,
    purpose="When a mailbox was last asked, so that nobody is pestered: the mailbox as a MAC, for a week.",
    fields=(Field("id"), Field("mailbox_mac"), _number("asked_at")),
    indexes=(("mailbox_mac", "asked_at"), ("asked_at",)),
    retention=(Retention("7d", since="asked_at"),),
    nobodys="It protects the owners of mailboxes from accounts, and must not go with the account that asked.",
)

NEVER_ASKED = Collection(
    name="never_asked",
    store=Store.RECORDS,
    purpose="Mailboxes whose owners want no more questions from this appliance: each as a MAC, which says nothing to "
    "who does not know the mailbox.",
    fields=(Field("mailbox_mac"), _number("since")),
    key=("mailbox_mac",),
    nobodys="It is the word of the owners of mailboxes, who have no account here.",
)

GENERATIONS = Collection(
    name="generations",
    store=Store.RECORDS,
    purpose="A number raised with every change of accounts, domains and aliases, so that a running appliance sees it.",
    fields=(Field("id"), _number("value")),
    nobodys="It has a number, and nothing about anybody.",
)

ROUTING_CHANGES = Collection(
    name="routing_changes",
    store=Store.RECORDS,
    purpose="Which domains, aliases and accounts have changed within the last hour, by their ids, so that a running "
    "appliance loads these anew and not all.",
    fields=(
        Field("id"),
        _number("at"),
        Field("domains", Kind.LIST),
        # Where nothing but these has changed of the domain; absent where it may be anything.
        Field("aliases", Kind.LIST, optional=True),
        Field("accounts", Kind.LIST),
        Field("blocks", Kind.BOOLEAN),
    ),
    indexes=(("at",),),
    # A node that was away for longer loads everything.
    retention=(Retention("1h", since="at"),),
    nobodys="It tells running appliances that something is gone, which they must hear after it has gone.",
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
    # A domain's log is read page by page in the order of ids, which is that of time; its messages in the order of
    # theirs; and its events are counted by day and type, which is done in the index alone.
    indexes=(("domain_id", "id"), ("domain_id", "message_id"), ("domain_id", "type", "at"), ("at",), ("message_id",)),
    sealed_under="log",
    retention=(
        Retention("log.delivery_retention", since="at", where=("type", ("RECEIVED", "DELIVERED"))),
        Retention("log.error_retention", since="at", where=("type", ("SOFT_BOUNCED", "HARD_BOUNCED", "REFUSED"))),
    ),
    belongs_to=BelongsTo("domains", by="domain_id"),
)

LATE_EVENTS = Collection(
    name="late_events",
    store=Store.RECORDS,
    purpose="Where several machines of the operator write the log: which events a machine that was away has brought "
    "later than others, so that who follows the log is told of each once.",
    fields=(
        # Sorts as the ids of events do: the event has its place here.
        Field("id"),
        Field("event_id"),
        Field("domain_id"),
        # Of the event, with which it goes.
        _number("at"),
        Field("type"),
    ),
    unique=(("event_id",),),
    indexes=(("domain_id", "id"), ("at",)),
    retention=(
        Retention("log.delivery_retention", since="at", where=("type", ("RECEIVED", "DELIVERED"))),
        Retention("log.error_retention", since="at", where=("type", ("SOFT_BOUNCED", "HARD_BOUNCED", "REFUSED"))),
    ),
    belongs_to=BelongsTo("domains", by="domain_id"),
)

LOG_HORIZONS = Collection(
    name="log_horizons",
    store=Store.RECORDS,
    purpose="Where several machines of the operator write the log: how far each has brought its events to it, so that "
    "who follows the log is told all of them in order.",
    fields=(
        # The name of the node.
        Field("id"),
        Field("moved_to"),
        _number("marked_at"),
        # A digest of where it runs, by which a second node of the same name is noticed.
        Field("machine", optional=True),
    ),
    retention=(Retention("1d", since="marked_at"),),
    nobodys="It is about the operator's machines.",
)

# ------------------------------------------------------------------ records: who may come in

MAILED_TOKENS = Collection(
    name="mailed_tokens",
    store=Store.RECORDS,
    purpose="Links that were mailed to verify an address or to set a new password: a hash of what stands in each, and "
    "the argon2id hash of the password that a sign-up asks for; erased once used.",
    fields=(
        Field("id", secret=True),
        Field("account_id"),
        Field("purpose"),
        Field("password_hash", optional=True, secret=True),
        _number("created_at"),
    ),
    indexes=(("account_id",), ("created_at",)),
    # As long as the links work (`appliance.access.mailed_tokens`).
    retention=(
        Retention("7d", since="created_at", where=("purpose", ("verify-email",))),
        Retention("2h", since="created_at", where=("purpose", ("reset-password",))),
    ),
    belongs_to=BelongsTo("accounts", by="account_id"),
)

API_TOKENS = Collection(
    name="api_tokens",
    store=Store.RECORDS,
    purpose="The tokens that programs of an account come in with: a hash of each, what it may do, until when, and when "
    "it was last used; erased when it is revoked, or some time after it has expired.",
    fields=(
        Field("id"),
        Field("account_id"),
        Field("name"),
        Field("scopes", Kind.LIST),
        Field("secret_hash", secret=True),
        _number("created_at"),
        _number("expires_at", optional=True),
        _number("last_used_at", optional=True),
    ),
    unique=(("secret_hash",),),
    indexes=(("account_id", "id"), ("expires_at",)),
    # Its owner still sees in the list why a program is turned away.
    retention=(Retention("30d", since="expires_at"),),
    belongs_to=BelongsTo("accounts", by="account_id"),
)

TWO_FACTORS = Collection(
    name="two_factors",
    store=Store.RECORDS,
    purpose="The secret that an account shares with an app for one-time codes, sealed, and the last time step that a "
    "code was taken for; erased when the second factor is switched off.",
    fields=(
        Field("account_id"),
        _sealed("secret", secret=True),
        Field("confirmed", Kind.BOOLEAN),
        _number("last_step"),
        _number("created_at"),
    ),
    key=("account_id",),
    sealed_under="accounts",
    # One that was shown and never confirmed.
    retention=(Retention("1d", since="created_at", where=("confirmed", (False,))),),
    belongs_to=BelongsTo("accounts", by="account_id"),
)

RECOVERY_CODES = Collection(
    name="recovery_codes",
    store=Store.RECORDS,
    purpose="Hashes of the codes that an account signs in with when its app for one-time codes is lost; each is erased "
    "when it is used.",
    fields=(Field("id", secret=True), Field("account_id"), _number("created_at")),
    indexes=(("account_id",),),
    belongs_to=BelongsTo("accounts", by="account_id"),
)

# ------------------------------------------------------------------ records: help, refused senders, the canary

_HELP_KEPT = "365d"
"""For questions that come again with the season. A request is counted from its end and what was said or read under it
from when it happened: no reply and no reading outlives its request."""

HELP_REPLIES = Collection(
    name="help_replies",
    store=Store.RECORDS,
    purpose="What was answered to help requests, by their authors and by operators.",
    fields=(
        Field("id"),
        Field("help_request_id"),
        Field("from_operator", Kind.BOOLEAN),
        Field("body"),
        _number("created_at"),
    ),
    indexes=(("help_request_id", "id"), ("created_at",)),
    retention=(Retention(_HELP_KEPT, since="created_at"),),
    belongs_to=BelongsTo("help_requests", by="help_request_id"),
)

LOG_ACCESSES = Collection(
    name="log_accesses",
    store=Store.RECORDS,
    purpose="Every time an operator read somebody's delivery log: which operator, when, under which help request and "
    "what was asked for, so that the account can see it.",
    fields=(
        Field("id"),
        Field("account_id"),
        Field("help_request_id"),
        Field("operator"),
        Field("query"),
        _number("created_at"),
    ),
    indexes=(("account_id", "id"), ("created_at",)),
    retention=(Retention(_HELP_KEPT, since="created_at"),),
    belongs_to=BelongsTo("accounts", by="account_id"),
)

HELP_REQUESTS = Collection(
    name="help_requests",
    store=Store.RECORDS,
    purpose="What accounts asked the operators for help with, and until when operators may read the account's delivery "
    "log for it; kept until some time after it is closed.",
    fields=(
        Field("id"),
        Field("account_id"),
        Field("subject"),
        Field("body"),
        _number("log_access_until", optional=True),
        _number("created_at"),
        _number("closed_at", optional=True),
    ),
    indexes=(("account_id", "id"), ("closed_at", "id")),
    retention=(Retention(_HELP_KEPT, since="closed_at"),),
    belongs_to=BelongsTo("accounts", by="account_id"),
)

BLOCKS = Collection(
    name="blocks",
    store=Store.RECORDS,
    purpose="Senders, their domains, and clients whose mail is refused, each with the operator's reason.",
    fields=(
        Field("id"),
        Field("kind"),
        Field("value"),
        Field("reason"),
        _number("created_at"),
        _number("expires_at", optional=True),
    ),
    unique=(("kind", "value"),),
    indexes=(("expires_at",),),
    # Refused until then, and still there for a day: whoever asks why mail did not come finds the reason.
    retention=(Retention("1d", since="expires_at"),),
    nobodys="It is about strangers who write to this appliance, and the operators' to keep.",
)

CANARIES = Collection(
    name="canaries",
    store=Store.RECORDS,
    purpose="The signed warrant canary, for everybody to read; the next one takes its place.",
    fields=(
        Field("id"),
        Field("signed_text"),
        Field("signature"),
        Field("public_key"),
        _number("published_at"),
    ),
    nobodys="It is a statement of the operators to everybody.",
)

# ------------------------------------------------------------------ records: requests over HTTP

HTTP_REQUESTS = Collection(
    name="http_requests",
    store=Store.RECORDS,
    purpose="The log of HTTP and of the API: which client and which account asked for what, with which status it was "
    "answered and how long that took; never what was sent, and never the answer.",
    fields=(
        Field("id"),
        _number("at"),
        Field("method"),
        _number("status"),
        _number("duration_ms"),
        Field("account_id", optional=True),
        Field("code", optional=True),
        # What a client has written itself may name somebody.
        _sealed("path"),
        _sealed("operation", optional=True),
        _sealed("client_address", optional=True),
    ),
    indexes=(("account_id", "id"), ("at",)),
    sealed_under="log",
    retention=(Retention("log.http_retention", since="at"),),
    belongs_to=BelongsTo("accounts", by="account_id"),
)

# ------------------------------------------------------------------ records: what plans allow

RECEIVED_TODAY = Collection(
    name="received_today",
    store=Store.RECORDS,
    purpose="How many messages an account has received today (UTC), so that the limit of its plan holds after a "
    "restart as well: a number, erased when the day is over.",
    fields=(
        # Of the account and the node, since each machine counts for itself what it has received.
        Field("id"),
        Field("account_id"),
        Field("node"),
        _number("day"),
        _number("messages"),
    ),
    indexes=(("account_id",), ("day",)),
    # `day` is the instant at which it began.
    retention=(Retention("1d", since="day"),),
    belongs_to=BelongsTo("accounts", by="account_id"),
)

# ------------------------------------------------------------------ records: what several nodes have in common

CLUSTER_KEYS = Collection(
    name="cluster_keys",
    store=Store.RECORDS,
    purpose="The keys that all nodes use, and the certificate that they show: encrypted under a key that each node has "
    "as a file, and no backup of the database.",
    fields=(Field("name"), _sealed("octets", kind=Kind.OCTETS, secret=True), _number("created_at")),
    key=("name",),
    sealed_under="cluster",
    nobodys="They are the operators' keys, and say nothing about anybody.",
    shared=True,
)

CHORES = Collection(
    name="chores",
    store=Store.RECORDS,
    purpose="What one node at a time does for all of them: which node is at it, and until when the others wait.",
    fields=(Field("name"), Field("node"), _number("until")),
    key=("name",),
    nobodys="It has names of nodes, and nothing about anybody.",
    shared=True,
)

INTENTS = Collection(
    name="intents",
    store=Store.RECORDS,
    purpose="Where several machines share a store: changes that belong together, written down before they are made, "
    "so that all of them are made or none, also where a machine dies over them. What is encrypted in its own "
    "collection is encrypted here, too. Erased when they are made; what became of those that another machine had to "
    "finish is kept for a day.",
    fields=(
        Field("id"),
        _number("at"),
        Field("writes", Kind.OCTETS, optional=True),
        # How far it has come, and how often others have looked at it.
        _number("certain", optional=True),
        Field("outcome", optional=True),
        _number("looks", optional=True),
    ),
    nobodys="It is what is half done in other collections, for moments.",
    shared=True,
    books=True,
)

SCHEMA = Collection(
    name="schema",
    store=Store.RECORDS,
    purpose="Where several machines share a store: the number of the layout that it has, so that no older version "
    "writes into it.",
    fields=(Field("id"), _number("version")),
    nobodys="It has a number, and nothing about anybody.",
    shared=True,
    books=True,
)

# ------------------------------------------------------------------ spool

_UNIT_MARKS = ("unit", "fresh", "gone", "next")
"""The group that is at a row; that it brings the row, or takes it away; and what the row will be."""

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
    # The lease says which node has it under way, and until when.
    marks=(*_UNIT_MARKS, "lease"),
)

CONTENT = Collection(
    name="content",
    store=Store.SPOOL,
    purpose="The octets of each message under way, encrypted; erased with its last delivery.",
    fields=(Field("message_id"), _number("part"), _sealed("octets", kind=Kind.OCTETS)),
    key=("message_id", "part"),
    sealed_under="spool",
    # The group that brought it, by whose name a node's can be found when it is gone.
    marks=("origin", "since"),
)

OUTBOX = Collection(
    name="outbox",
    store=Store.SPOOL,
    purpose="Events on their way from the spool to the delivery log; moved within moments.",
    fields=_EVENT_FIELDS,
    sealed_under="log",
    sealed_as="events",
    # The node that brings it to the log.
    marks=(*_UNIT_MARKS, "node"),
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
    indexes=(("created_at",),),
    sealed_under="spool",
    retention=(Retention("21d", since="created_at"),),
)

HOLDS = Collection(
    name="holds",
    store=Store.SPOOL,
    purpose="Which mail an operator, or an account its own, keeps back: by domain, destination or sender; erased when "
    "the hold is lifted.",
    fields=(
        Field("id"),
        _number("created_at"),
        Field("by_account", Kind.BOOLEAN, optional=True),
        _sealed("domain", optional=True),
        _sealed("destination", optional=True),
        _sealed("sender", optional=True),
    ),
    sealed_under="spool",
    marks=_UNIT_MARKS,
)

ALIAS_USES = Collection(
    name="alias_uses",
    store=Store.SPOOL,
    purpose="How many messages an alias has taken that was made for so many: a number, without a name or an address; "
    "erased when the alias is, or gets another limit.",
    fields=(Field("id"), _number("uses")),
    # What groups count that are not decided yet.
    marks=("pending",),
)

CLOCKS = Collection(
    name="clocks",
    store=Store.SPOOL,
    purpose="For how long the appliance has run, so that a wall clock that jumps neither bounces nor delays mail.",
    fields=(Field("id"), _number("value")),
)

NODES = Collection(
    name="nodes",
    store=Store.SPOOL,
    purpose="Which machines of the operator share the mail under way: since when, when each was last seen, by how much "
    "its clock differs, its version, and how far it has come; erased an hour after it was last seen, once another has "
    "its work.",
    fields=(
        Field("id"),
        # The same at each start of a node; the id is another one.
        Field("name"),
        Field("hostname"),
        Field("version"),
        _number("started_at"),
        _number("seen_at"),
        # The numbers of its last group, and of the last one that counts.
        _number("turn"),
        _number("decided"),
        _number("clock_ahead_ms", optional=True),
        Field("gone", Kind.BOOLEAN, optional=True),
    ),
    shared=True,
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

SESSIONS = Collection(
    name="sessions",
    store=Store.EPHEMERAL,
    purpose="Who is signed in: under a hash of the cookie the account, since when, when last seen, and what the "
    "browser calls itself.",
    fields=(
        _keyed("cookie"),
        _keyed("account"),
        _number("remembered_at"),
        _sealed("id"),
        _sealed("account_id"),
        _sealed("created_at"),
        _sealed("last_seen_at"),
        _sealed("user_agent"),
        _sealed("password_changed_at"),
    ),
    key=("cookie_key",),
    group="account_key",
    belongs_to=BelongsTo("accounts", by="account_id"),
    # Whoever has not been seen for a week signs in again.
    retention=(Retention("7d", since="remembered_at"),),
    at_most=100_000,
)

FAILED_SIGN_INS = Collection(
    name="failed_sign_ins",
    store=Store.EPHEMERAL,
    purpose="How many attempts to sign in have failed lately: by account, by the client's network, by both together, "
    "and in all (MACs of them), so that nobody can try passwords by the thousand.",
    fields=(_keyed("who"), _number("remembered_at"), _number("count")),
    key=("who_key",),
    retention=(Retention("15m", since="remembered_at"),),
    # Each attempt counts under six keys at most and costs a password hash, of which there are two at a time: within 15
    # minutes nobody gets so far.
    at_most=300_000,
)

LETTERS_ASKED_FOR = Collection(
    name="letters_asked_for",
    store=Store.EPHEMERAL,
    purpose="How many letters with a link have been asked for lately: by recipient, by the client's network and in all "
    "(MACs of them), so that nobody is pestered.",
    fields=(_keyed("who"), _number("remembered_at"), _number("count")),
    key=("who_key",),
    retention=(Retention("1h", since="remembered_at"),),
    at_most=100_000,
)

COLLECTIONS: tuple[Collection, ...] = (
    ACCOUNTS,
    DOMAINS,
    ALIASES,
    DESTINATIONS,
    CONFIRMATIONS,
    ASKED_MAILBOXES,
    NEVER_ASKED,
    GENERATIONS,
    ROUTING_CHANGES,
    EVENTS,
    LATE_EVENTS,
    LOG_HORIZONS,
    MAILED_TOKENS,
    API_TOKENS,
    TWO_FACTORS,
    RECOVERY_CODES,
    HELP_REPLIES,
    LOG_ACCESSES,
    HELP_REQUESTS,
    BLOCKS,
    CANARIES,
    HTTP_REQUESTS,
    RECEIVED_TODAY,
    CLUSTER_KEYS,
    CHORES,
    INTENTS,
    SCHEMA,
    DELIVERIES,
    CONTENT,
    OUTBOX,
    RETURN_PATHS,
    HOLDS,
    ALIAS_USES,
    CLOCKS,
    NODES,
    TRANSIT_DELIVERED,
    TRANSIT_REFUSED,
    TRANSIT_RETURN_PATHS,
    SESSIONS,
    FAILED_SIGN_INS,
    LETTERS_ASKED_FOR,
)


def collections_of(store: Store, *, shared: bool = False) -> tuple[Collection, ...]:
    """Every declared class of data that rooms can have this store hold: on one node alone, or `shared` by several."""
    return tuple(each for each in COLLECTIONS if each.store is store and (shared or not each.shared) and not each.books)
