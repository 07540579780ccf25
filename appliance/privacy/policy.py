"""The privacy policy: what this appliance stores, why, where and for how long, made from what makes the tables.

There is no text of it anywhere. The declarations say what can be stored, the configuration says for how long, and both
together are put into words here; so the policy cannot promise what the appliance does not keep to.
"""

import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from appliance.model.time import format_duration, parse_duration
from appliance.privacy.canonical import canonical
from appliance.privacy.declarations import COLLECTIONS, Collection, Field, Kind, Protection, Retention, Store
from appliance.storage.records import Page, RecordStore

RetentionMs = Callable[[str], int]
"""How long a retention's setting is in the running configuration. Raises KeyError where there is none of this name."""

_STORES = {
    Store.RECORDS: ("Records", "They stay on the disk. Backups have them, but for the log."),
    Store.SPOOL: (
        "Spool",
        "Mail under way: on the disk, in no backup, and erased when it is delivered or has bounced.",
    ),
    Store.EPHEMERAL: ("Ephemeral", "What may be lost at any time, and is forgotten by itself."),
}
"""The name and the nature of each store, for people."""

_PROTECTIONS = {
    Protection.SEALED: "encrypted",
    Protection.KEYED: "only as a keyed hash",
}

_BORN = ("created_at", "at", "asked_at", "published_at")
"""The fields that say since when a row is there, by whichever of these names."""


@dataclass(frozen=True, slots=True)
class StoredData:
    """One class of stored data, as the policy tells of it."""

    collection: Collection
    retention_ms: int | None
    """The longest that a row is kept; None: until its owner deletes it, or its work is done."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The policy of one configuration."""

    text: str
    """In Markdown."""
    digest: str
    """SHA-256 of the canonical policy, in hexadecimal digits: two appliances that promise the same have the same."""
    stored: tuple[StoredData, ...]


@dataclass(frozen=True, slots=True)
class Holdings:
    """How much of one class of data there is."""

    count: int
    oldest: int | None
    """Since when the oldest is there; None where there is none, or it is not known."""


def policy(retention_ms: RetentionMs, collections: Iterable[Collection] = COLLECTIONS) -> Policy:
    """The policy as these settings make it. Raises KeyError for a setting that there is not."""
    stored = tuple(StoredData(each, _longest(each, retention_ms)) for each in collections)
    facts = canonical({"collections": [_facts(each.collection, retention_ms) for each in stored]})
    digest = hashlib.sha256(facts.encode()).hexdigest()
    return Policy(_text(stored, retention_ms, digest), digest, stored)


def holdings(records: RecordStore, collection: Collection) -> Holdings | None:
    """How much of it is stored now; None for what is in another store than that of records, and for what only nodes
    that share one have. Raises StoreUnavailable."""
    if collection.store is not Store.RECORDS or collection.shared:
        return None
    count = records.count(collection, {})
    born = next((field.name for field in collection.fields if field.name in _BORN), None)
    oldest = None
    # Ids sort by the time when they were made; other keys say nothing about it.
    if count and born is not None and collection.key == ("id",):
        rows = records.find(collection, {}, Page(limit=1))
        oldest = int(str(rows[0][born])) if rows else None
    return Holdings(count, oldest)


def _span_ms(retention: Retention, retention_ms: RetentionMs) -> int:
    # A configuration key has a section and a dot; a span has none.
    return retention_ms(retention.setting) if "." in retention.setting else parse_duration(retention.setting)


def _longest(collection: Collection, retention_ms: RetentionMs) -> int | None:
    """The longest that any row is kept; None where some have no end."""
    told: dict[str, set[object]] = {}
    for each in collection.retention:
        name, values = each.where or ("", ())
        told.setdefault(name, set()).update(values)
    # Of a truth value both have to be named; of words, the declaration names all that there are.
    if "" not in told and any(
        collection.field(name).kind is Kind.BOOLEAN and values != {True, False} for name, values in told.items()
    ):
        return None
    return max((_span_ms(each, retention_ms) for each in collection.retention), default=None)


def _facts(collection: Collection, retention_ms: RetentionMs) -> dict[str, object]:
    """Everything that is promised about a class of data, down to the wording of its purpose."""
    return {
        "name": collection.name,
        "store": collection.store.value,
        "purpose": collection.purpose,
        "fields": [{"name": field.name, "protection": field.protection.value} for field in collection.fields],
        "retention": [
            {
                "milliseconds": _span_ms(each, retention_ms),
                "since": each.since,
                "where": None if each.where is None else {each.where[0]: list(each.where[1])},
            }
            for each in collection.retention
        ],
    }


# ------------------------------------------------------------------ in words


def _text(stored: Iterable[StoredData], retention_ms: RetentionMs, digest: str) -> str:
    stored = list(stored)
    parts = [
        "# What this appliance stores",
        "This page is made from the declarations that the appliance makes its tables from, and from its running "
        "configuration. What is not listed here can't be written. The content of a message is stored only while it is "
        "under way, and for domains in transit mode not at all.",
    ]
    for store, (name, nature) in _STORES.items():
        parts += [f"## {name}", nature]
        parts += [_section(each, retention_ms) for each in stored if each.collection.store is store]
    parts.append(f"Digest of this policy (SHA-256): `{digest}`")
    return "\n\n".join(parts) + "\n"


def _section(stored: StoredData, retention_ms: RetentionMs) -> str:
    collection = stored.collection
    lines = [f"### {collection.name}", "", collection.purpose, ""]
    lines += [f"- Kept {_kept(each, retention_ms)}" for each in collection.retention]
    if stored.retention_ms is None:
        lines.append(f"- {'Else kept' if collection.retention else 'Kept'} {_kept_without_end(collection)}")
    lines.append(f"- Fields: {', '.join(map(_field, collection.fields))}")
    return "\n".join(lines)


def _kept(retention: Retention, retention_ms: RetentionMs) -> str:
    which = f" where {retention.where[0]} is {', '.join(map(_word, retention.where[1]))}" if retention.where else ""
    return f"for {format_duration(_span_ms(retention, retention_ms))} from {retention.since}{which}"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _kept_without_end(collection: Collection) -> str:
    if collection.belongs_to is not None:
        return "until its owner deletes it, and never longer than the account"
    return "until its work is done"


def _field(field: Field) -> str:
    protection = _PROTECTIONS.get(field.protection)
    return f"{field.name} ({protection})" if protection else field.name
