"""Which keys the documents of a store on MongoDB are sealed under."""

from collections.abc import Iterable
from typing import Protocol

from appliance.privacy.declarations import Collection
from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_documents import Document

SAMPLE = 5
"""Documents of a collection that are tried from either end: one may be damaged, and the oldest of a key before."""


class Sealed(Protocol):
    """How the rows of one collection are documents."""

    @property
    def collection(self) -> Collection:
        """The declaration."""

    def opens(self, document: Document) -> bool:
        """Whether the key that is held opens it."""


def keys_in_use(database: MongoDatabase, sealed: Iterable[Sealed]) -> dict[str, bool]:
    """Their names, and whether any of what is sealed under each opens. Needs no key; raises StoreUnavailable."""
    found: dict[str, bool] = {}
    for rows in sealed:
        name = rows.collection.sealed_under
        if not name or found.get(name):
            continue
        sample: list[Document] = []
        for direction in (1, -1):
            with database.translated():
                stored = database[rows.collection.name].find().sort("_id", direction)
                sample += list(stored.limit(SAMPLE))
        if sample:
            found[name] = any(rows.opens(document) for document in sample)
    return found
