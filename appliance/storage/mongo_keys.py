"""Which keys the documents of a spool on MongoDB are sealed under."""

from collections.abc import Iterable

from appliance.storage.mongo_database import MongoDatabase
from appliance.storage.mongo_documents import Document
from appliance.storage.mongo_spool_rows import Rows

SAMPLE = 5
"""Documents of a collection that are tried from either end: one may be damaged, and the oldest of a key before."""


def keys_in_use(database: MongoDatabase, sealed: Iterable[Rows]) -> dict[str, bool]:
    """Their names, and whether any of what is sealed under each opens. Needs no key; raises StoreUnavailable."""
    found: dict[str, bool] = {}
    for rows in sealed:
        name = rows.collection.sealed_under
        if found.get(name):
            continue
        sample: list[Document] = []
        for direction in (1, -1):
            with database.translated():
                stored = database[rows.collection.name].find().sort("_id", direction)
                sample += list(stored.limit(SAMPLE))
        if sample:
            found[name] = any(rows.opens(document) for document in sample)
    return found
