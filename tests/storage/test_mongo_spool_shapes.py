"""What the spool keeps in MongoDB is what is declared: fields, and the marks by which nodes share it."""

import pytest
from mongod import Mongod
from storage_backends import MongoBackend
from stored_values import NOON, a_delivery, an_event, an_id

from appliance.model.delivery import DeliveryState
from appliance.model.hold import Hold
from appliance.privacy.declarations import Protection, Store, collections_of
from appliance.storage.mongo_documents import Shape, shape_of
from appliance.storage.mongo_spool_rows import SHAPES
from appliance.storage.spool import Accept, AddHold, AddPart, CountUse, ReturnPath


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_beside_its_fields_a_document_has_the_marks_that_are_declared(shape: Shape) -> None:
    (collection,) = (each for each in collections_of(Store.SPOOL, shared=True) if each.name == shape.name)
    assert shape.fields.keys() - shape_of(collection).fields.keys() == set(collection.marks)
    assert shape.required == shape_of(collection).required
    # A mark never has the name of a field: none could be taken for the other.
    assert not set(collection.marks) & {field.name for field in collection.fields}


def test_every_class_of_data_that_nodes_share_has_its_shape() -> None:
    assert [shape.name for shape in SHAPES] == [each.name for each in collections_of(Store.SPOOL, shared=True)]
    # What is only there where nodes share a store is about the nodes, and sealed by nobody: nothing personal is in it.
    (nodes,) = set(collections_of(Store.SPOOL, shared=True)) - set(collections_of(Store.SPOOL))
    assert nodes.protected(Protection.SEALED) == ()


def test_no_document_says_in_the_clear_what_is_personal(mongod: Mongod) -> None:
    house = MongoBackend(mongod)
    spool = house.spool()
    delivery = a_delivery(1, state=DeliveryState.UNDER_WAY)
    path = ReturnPath("token", delivery.sender, "abcdef", NOON)
    hold = Hold(an_id(1), NOON, destination="mailbox.example", sender=delivery.sender)
    spool.apply([AddPart(an_id(1), 0, b"a secret"), Accept([delivery], [an_event()], [path]), CountUse("c", 0)])
    spool.apply([AddHold(hold)])
    with mongod.client() as client:
        database = client[house.database]
        everything = [document for name in database.list_collection_names() for document in database[name].find()]
    assert len(everything) >= 7
    for personal in ("stranger", "hidden.person", "mailbox.example", "hosted.example", "192.0.2.17", "a secret"):
        assert personal not in str(everything)
    house.close()
