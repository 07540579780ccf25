"""Every class of data says whose it is, or why it is nobody's, so that deletion can't forget one."""

import pytest

from appliance.privacy.declarations import (
    ACCOUNTS,
    COLLECTIONS,
    BelongsTo,
    Collection,
    Field,
    Kind,
    Protection,
    Store,
    collections_of,
)
from appliance.privacy.owners import owned

RECORDS = collections_of(Store.RECORDS)


@pytest.mark.parametrize("collection", RECORDS, ids=lambda each: each.name)
def test_every_collection_of_the_record_store_is_somebodys_or_says_why_not(collection: Collection) -> None:
    assert (collection.belongs_to is None) is bool(collection.nobodys), (
        f"{collection.name}: say in appliance/privacy/declarations.py to which account its rows belong (belongs_to), "
        "or why to none (nobodys)"
    )


@pytest.mark.parametrize("collection", owned(), ids=lambda each: each.name)
def test_whose_a_row_is_can_be_asked_of_the_store(collection: Collection) -> None:
    belongs_to = collection.belongs_to
    assert belongs_to is not None
    field = collection.field(belongs_to.by)
    assert (field.kind, field.protection) == (Kind.TEXT, Protection.CLEAR)
    assert len(collection.key) == 1, "rows are read page by page, which takes a key of one field"
    # Deleting an account must not read whole tables.
    first_fields = [names[0] for names in (collection.key, *collection.unique, *collection.indexes)]
    assert belongs_to.by in first_fields


def test_all_that_belongs_to_somebody_belongs_to_an_account_in_the_end() -> None:
    ordered = owned()
    assert ordered[0] is ACCOUNTS
    assert {each.name for each in ordered} == {each.name for each in RECORDS if each.belongs_to is not None}
    for place, collection in enumerate(ordered[1:], start=1):
        assert collection.belongs_to is not None
        assert collection.belongs_to.owner in {each.name for each in ordered[:place]}


def test_an_owner_that_there_is_not_is_found_before_anything_is_deleted() -> None:
    lost = Collection(
        name="lost",
        store=Store.RECORDS,
        purpose="Belongs to nothing that there is.",
        fields=(Field("id"), Field("thing_id")),
        belongs_to=BelongsTo("things", by="thing_id"),
    )
    with pytest.raises(ValueError, match="lost belongs to nothing"):
        owned((*COLLECTIONS, lost))


def test_hashes_and_secrets_are_declared_as_such() -> None:
    proofs = {
        f"{collection.name}.{field.name}": field.secret
        for collection in RECORDS
        for field in collection.fields
        if field.name.endswith(("_hash", "secret"))
    }
    assert "accounts.password_hash" in proofs
    assert [name for name, secret in proofs.items() if not secret] == []
