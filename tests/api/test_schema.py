"""The schema as a whole: it is written down, and each of its fields says who may ask."""

import inspect
from pathlib import Path
from typing import Any

import pytest
from control_api.callers import Access
from control_api.errors import Payload
from control_api.fields import ACCESS, SCOPE, query
from control_api.nouns.node import Node
from control_api.schema import SCHEMA
from graphql import GraphQLList, GraphQLNonNull, GraphQLObjectType, build_schema

from appliance.model.access import Scope

WRITTEN = Path(__file__).resolve().parents[2] / "graphql" / "schema.graphql"
BUILT = build_schema(SCHEMA.as_str())


def fields_of(root: str) -> list[Any]:
    """The fields of a root type, as Strawberry has them."""
    definition: Any = SCHEMA.get_type_by_name(root)
    return list(definition.fields)


def roots() -> list[tuple[str, Any]]:
    return [(root, field) for root in ("Query", "Mutation", "Subscription") for field in fields_of(root)]


def test_the_written_schema_is_that_of_the_code() -> None:
    assert WRITTEN.read_text("utf-8") == SCHEMA.as_str() + "\n", (
        "print it anew: python -m control_api.schema > graphql/schema.graphql"
    )


@pytest.mark.parametrize(("root", "field"), roots(), ids=lambda value: getattr(value, "python_name", value))
def test_each_field_of_a_root_says_who_may_ask(root: str, field: Any) -> None:
    assert isinstance(field.metadata.get(ACCESS), Access), (
        "make it by query, mutation or subscription of control_api.fields"
    )
    scope = field.metadata[SCOPE]
    assert scope is None or isinstance(scope, Scope)
    if root == "Mutation":
        assert scope is not None or field.metadata[ACCESS] in (Access.ANYONE, Access.IN_PERSON), "a token needs a scope"


def test_a_field_that_cannot_know_who_asks_is_not_made() -> None:
    with pytest.raises(TypeError, match="takes no info"):

        @query(Access.OPERATOR)
        def everything(self: object) -> str:
            return "all"


def test_each_field_and_type_is_described() -> None:
    for root, field in roots():
        assert field.description, f"{root}.{field.python_name} has no docstring"


def test_each_mutation_answers_with_errors() -> None:
    mutation = BUILT.mutation_type
    assert mutation is not None
    for name, field in mutation.fields.items():
        assert isinstance(field.type, GraphQLNonNull), name
        payload = field.type.of_type
        assert isinstance(payload, GraphQLObjectType)
        errors = payload.fields["errors"].type
        assert isinstance(errors, GraphQLNonNull), name
        assert isinstance(errors.of_type, GraphQLList), name


def test_each_node_says_how_it_is_found() -> None:
    for kind in Node.__subclasses__():
        assert "found" in vars(kind), f"{kind.__name__} does not say how it is found by its id"
        assert inspect.signature(kind.found).parameters.keys() == {"info", "stored_id"}


def test_payloads_are_payloads() -> None:
    named = {name for name in BUILT.type_map if name.endswith("Payload")}
    assert named == {kind.__name__ for kind in Payload.__subclasses__() if kind.__name__ in BUILT.type_map}
