"""Executed in one go or field by field as graphql-core does it: the answer is the same, errors and their places too."""

from collections.abc import Mapping
from enum import Enum
from typing import Any, cast

import pytest
import strawberry
from control_api.callers import Caller, CallerKind
from control_api.context import Context, Info
from control_api.execution import BoundedExecutor
from control_api.limits import Budget
from control_api.rooms import Rooms
from graphql import ExecutionResult, GraphQLSchema, execute_sync, parse
from hypothesis import given
from hypothesis import strategies as st

ROWS = 4


class Fault(Enum):
    """What goes wrong with a row."""

    NONE = "none"
    RAISES = "raises"
    """A field that may be null."""
    RAISES_WHERE_NOTHING_MAY_BE_MISSING = "raises where nothing may be missing"
    IS_MISSING = "is missing"
    """Where something has to be."""
    IS_OF_ANOTHER_KIND = "is of another kind"


@strawberry.enum
class Colour(Enum):
    """Shown by its name."""

    RED = "red"


@strawberry.type
class Leaf:
    """The innermost."""

    fault: strawberry.Private[Fault]
    name: str
    colour: Colour | None
    count: int

    @strawberry.field
    def size(self, info: Info, times: int = 2, unit: str | None = None) -> int | None:
        """Takes arguments and may fail."""
        if self.fault is Fault.RAISES:
            raise ValueError("no size")
        size: int = info.context.memory["size"]
        return times * size + len(unit or "")


@strawberry.type
class Row:
    """One of a list."""

    fault: strawberry.Private[Fault]
    title: str | None

    @strawberry.field
    def leaves(self, info: Info) -> list[Leaf]:
        """Two."""
        if self.fault is Fault.RAISES_WHERE_NOTHING_MAY_BE_MISSING:
            raise ValueError("no leaves")
        name: Any = None if self.fault is Fault.IS_MISSING else "leaf"
        count: Any = "many" if self.fault is Fault.IS_OF_ANOTHER_KIND else 7
        sound = Leaf(fault=Fault.NONE, name="a", colour=Colour.RED, count=1)
        return [sound, Leaf(fault=self.fault, name=name, colour=None, count=count)]

    @strawberry.field
    def first_leaf(self) -> Leaf | None:
        """Perhaps none."""
        return None if self.title is None else Leaf(fault=self.fault, name="b", colour=Colour.RED, count=2)


@strawberry.type
class Query:
    """The root."""

    @strawberry.field
    def rows(self, info: Info) -> list[Row | None]:
        """Each with its fault."""
        faults: list[Fault] = info.context.memory["faults"]
        info.context.memory["asked"] += 1
        return [Row(fault=fault, title=None if number % 2 else "title") for number, fault in enumerate(faults)]


SCHEMA: GraphQLSchema = strawberry.Schema(Query)._schema
DOCUMENTS = (
    "{ rows { title } }",
    "{ rows { __typename title leaves { name count } } }",
    "{ rows { leaves { name colour count size } } }",
    "query($t: Int!, $u: String) { rows { one: firstLeaf { size(times: $t, unit: $u) two: size } leaves { colour } } }",
    "query($no: Boolean = false) { rows { ...F title @include(if: $no) } } fragment F on Row { leaves { name size } }",
    "{ __schema { queryType { name } } rows { title } }",
)


VARIABLES = {"t": 5, "u": "kg"}


def executed(
    document: str, faults: list[Fault], executor: Any, variables: Mapping[str, Any] = VARIABLES
) -> tuple[ExecutionResult, Context]:
    """With one of the two."""
    context = Context(Caller(CallerKind.LOCAL), cast(Rooms, None), budget=Budget())
    context.memory.update(faults=faults, size=3, asked=0)
    result = execute_sync(
        SCHEMA,
        parse(document),
        context_value=context,
        variable_values=dict(variables) if "$t" in document else {},
        executor_class=executor,
    )
    return result, context


def shown(result: ExecutionResult) -> tuple[Any, Any]:
    """With the order of fields, and of errors."""
    errors = sorted((str(error.path), error.message) for error in result.errors or ())
    return str(result.data), errors


@pytest.mark.parametrize("document", DOCUMENTS)
@given(faults=st.lists(st.sampled_from(Fault), min_size=ROWS, max_size=ROWS))
def test_the_answer_is_that_of_graphql_core(document: str, faults: list[Fault]) -> None:
    ours, context = executed(document, faults, BoundedExecutor)
    assert shown(ours) == shown(executed(document, faults, None)[0])
    assert context.memory["asked"] == 1, "what is at the root may be a change: it is never done twice"


def test_an_argument_that_cannot_be_used_is_the_error_of_its_own_field() -> None:
    # With a default of its own a variable may stand there, and still be given as null.
    document = "query($t: Int = 5) { rows { title one: firstLeaf { colour size(times: $t) } } }"
    ours, context = executed(document, [Fault.NONE] * ROWS, BoundedExecutor, {"t": None})
    assert shown(ours) == shown(executed(document, [Fault.NONE] * ROWS, None, {"t": None})[0])
    assert [error.path for error in ours.errors or ()] == [["rows", 0, "one", "size"], ["rows", 2, "one", "size"]]
    assert context.memory["asked"] == 1


def test_a_budget_that_is_spent_ends_it_in_one_go_as_well() -> None:
    context = Context(Caller(CallerKind.LOCAL), cast(Rooms, None), budget=Budget(fields=10))
    context.memory.update(faults=[Fault.NONE] * 50, size=3, asked=0)
    result = execute_sync(SCHEMA, parse(DOCUMENTS[1]), context_value=context, executor_class=BoundedExecutor)
    assert result.data is None or None in result.data["rows"]
    assert all("more than" in error.message for error in result.errors or ())
    assert result.errors
