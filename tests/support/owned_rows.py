"""Rows of every class of data that belongs to accounts, by what is declared: one of each for an account of a number."""

from stored_values import a_row, an_id

from appliance.privacy.owners import owned
from appliance.storage.records import Insert, RecordStore

_REAL: dict[str, object] = {
    "role": "member",
    "delivery_mode": "spool",
    "log_level": "events",
    "quarantine_action": "forward",
    "verified": True,
    "action": "forward",
    "type": "RECEIVED",
}
"""What rooms read back as one of several words."""


def store_one_of_each(records: RecordStore, number: int) -> str:
    """Insert a row of every collection that belongs to accounts, all of them of one account. Returns its id."""
    for collection in owned():
        belongs_to = collection.belongs_to
        assert belongs_to is not None
        row = a_row(collection, number)
        row |= {name: value for name, value in _REAL.items() if name in row}
        # Every row of this number has the same id, so that this is the id of its owner, whatever that is.
        row[belongs_to.by] = an_id(number)
        records.apply([Insert(collection, row)])
    return an_id(number)
