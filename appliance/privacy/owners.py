"""Whose the rows of each collection are, from the account down: the order in which deletion and the broom go."""

from collections.abc import Iterable

from appliance.privacy.declarations import ACCOUNTS, COLLECTIONS, Collection, Store


def owned(collections: Iterable[Collection] = COLLECTIONS) -> list[Collection]:
    """The collections of the record store whose rows belong to accounts; each behind the one that its owners are in.

    Raises ValueError where a declaration names an owner that there is not.
    """
    left = [each for each in collections if each.store is Store.RECORDS and each.belongs_to is not None]
    ordered: list[Collection] = []
    found = {ACCOUNTS.name}
    while left:
        ready = [each for each in left if each.belongs_to is not None and each.belongs_to.owner in found]
        if not ready:
            raise ValueError(f"{left[0].name} belongs to nothing that belongs to an account")
        ordered += ready
        found |= {each.name for each in ready}
        left = [each for each in left if each not in ready]
    return ordered


def owned_elsewhere() -> frozenset[str]:
    """The names of the collections of other stores whose rows belong to accounts."""
    elsewhere = (each for each in COLLECTIONS if each.store is not Store.RECORDS)
    return frozenset(each.name for each in elsewhere if each.belongs_to is not None)
