"""What a database really has is held against what the policy tells: its collections, and their fields."""

from mongod import Mongod
from storage_backends import MongoBackend

from appliance.privacy.declarations import COLLECTIONS, Collection
from appliance.privacy.policy import policy
from appliance.storage.codec import SEALED_COLUMN
from appliance.storage.mongo_documents import date_of, dated

DECLARED = {each.name: each for each in COLLECTIONS}


def may_have(collection: Collection) -> set[str]:
    """The names of everything that a row of this class of data may have on the disk."""
    return {
        *(field.name for field in collection.fields),
        *collection.marks,
        *(date_of(name) for name in dated(collection)),
        SEALED_COLUMN,
        "_id",
        "batch",
    }


def test_a_database_has_nothing_that_is_not_declared(mongod: Mongod) -> None:
    place = MongoBackend(mongod)
    place.records()
    place.spool()
    with mongod.client() as client:
        found = {entry["name"]: entry["options"] for entry in client[place.database].list_collections()}
    place.close()
    assert {"intents", "schema", "nodes", "chores"} <= found.keys()
    for name, options in found.items():
        assert set(options["validator"]["$jsonSchema"]["properties"]) <= may_have(DECLARED[name]), name
    text = policy(lambda setting: 1).text
    assert [name for name in found if f"### {name}\n" not in text] == []
