"""Executes an operation as graphql-core does, within a budget, and without a detour for what is there already.

Most fields of an answer are attributes of an object that a resolver has returned, or methods of it that take nothing:
a text, a number, an id. graphql-core describes the field anew for each, and Strawberry takes that apart again, only to
read an attribute, and for a page of rows that is most of the time. Such a field is read here directly, and completed as
any other; a method that takes `info` alone is called directly, too. What takes arguments goes the usual way. Nothing is
ever awaited.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter
from typing import Any, Final, TypeVar, cast

from graphql import (
    GraphQLField,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    GraphQLOutputType,
    GraphQLResolveInfo,
    GraphQLSchema,
    is_leaf_type,
)
from graphql.execution import Executor
from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet
from graphql.pyutils import Path, Undefined
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.field import StrawberryField

from control_api.context import Context, Info
from control_api.errors import ApiError
from control_api.fields import ALIKE

_TYPE: Final = "__type"

Position = TypeVar("Position")


@dataclass(frozen=True, slots=True)
class _Plain:
    """A field that only has to be read."""

    name: str
    field: GraphQLField
    read: Callable[..., Any]
    takes_info: Callable[[GraphQLResolveInfo[Context]], Info] | None
    """Where the method asks who is there: what makes its `info`."""
    shown: Callable[[Any], Any] | None
    """What makes a value of JSON of one that is in memory; None for an object, a list, and what takes `info`."""
    nullable: bool

    def value_of(self, source: Any) -> Any:
        """The single value, for the answer. Raises TypeError where there is none and has to be one."""
        assert self.shown is not None, "it is a single value in memory"
        value = self.read(source)
        if value is not None:
            return self.shown(value)
        if self.nullable:
            return None
        raise TypeError(f"Cannot return null for non-nullable field {self.name}.")


_plain_fields: Final[dict[tuple[str, str], _Plain | None]] = {}
"""What is known of each field that was asked for, by type and name: as many as the schema has, and no more."""

_Selected = tuple[str, FieldDetailsList, _Plain | None]
"""A field as it is asked for: under which name, where in the document, and what is known of it."""


class BoundedExecutor(Executor[Position]):
    """Executes one operation, or one event of a subscription."""

    @cached_property
    def _selections(self) -> dict[int, tuple[GroupedFieldSet, list[_Selected]]]:
        """What is asked for of an object of a page is the same for all. By `id` of graphql-core's own form of it."""
        return {}

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: Position | None,
    ) -> dict[str, Any]:
        """What is asked for of one object."""
        known = self._selections.get(id(grouped_field_set))
        selected = known[1] if known is not None else self._selected(parent_type, grouped_field_set)
        context: Context = self.context_value
        context.budget.spend(len(selected))
        answer: dict[str, Any] = {}
        for name, asked, plain in selected:
            if plain is None or plain.shown is None:
                below = Path(path, name, parent_type.name)
                value = self.execute_field(parent_type, source_value, asked, below, position_context)
                if value is not Undefined:
                    answer[name] = value
                continue
            try:
                answer[name] = plain.value_of(source_value)
            except Exception as error:  # noqa: BLE001 - it is told in its place, as that of any field
                self.handle_field_error(error, plain.field.type, asked, Path(path, name, parent_type.name))
                answer[name] = None
        return answer

    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,
        field_details_list: FieldDetailsList,
        path: Path,
        position_context: Position | None,
    ) -> Any:
        """The value of a field, for the answer."""
        context: Context = self.context_value
        name = field_details_list[0].node.name.value
        if name == _TYPE and not context.caller.is_signed_in:
            # To a stranger there is no type of any name; that is not worth an error.
            return None
        try:
            # It may ask a store, the engine or the DNS; twenty that each wait for long are not waited for one by one.
            context.budget.look_at_the_clock()
        except ApiError as error:
            field = self.schema.get_field(parent_type, name)
            assert field is not None, "the document is valid"
            self.handle_field_error(error, field.type, field_details_list, path)
            return None
        plain = _known_as_plain(self.schema, parent_type, name)
        if plain is None:
            return super().execute_field(parent_type, source, field_details_list, path, position_context)
        nodes = [one.node for one in field_details_list]
        info = self.build_resolve_info(plain.field, nodes, parent_type, path)
        try:
            value = plain.read(source, info=plain.takes_info(info)) if plain.takes_info else plain.read(source)
            return self.complete_value(plain.field.type, field_details_list, info, path, value, position_context)
        except Exception as error:  # noqa: BLE001 - it is told in its place, as that of any field
            self.handle_field_error(error, plain.field.type, field_details_list, path)
            return None

    def complete_value(
        self,
        return_type: GraphQLOutputType,
        field_details_list: FieldDetailsList,
        info: GraphQLResolveInfo[Context],
        path: Path,
        result: Any,
        position_context: Position | None,
    ) -> Any:
        """What a field has come to, as the answer has it."""
        type_ = return_type.of_type if isinstance(return_type, GraphQLNonNull) else return_type
        if result is not None and not isinstance(result, Exception):
            # That a resolver returns what its field says is for mypy to see, and not for each object of a page.
            if isinstance(type_, GraphQLObjectType):
                wanted = self.collect_subfields(type_, field_details_list).grouped_field_set
                return self.execute_fields(type_, result, path, wanted, None)
            if isinstance(type_, GraphQLList):
                completed: list[Any] = []
                for number, item in enumerate(result):
                    below = path.add_key(number, None)
                    self.complete_list_item_value(
                        item, completed, type_.of_type, field_details_list, info, below, position_context
                    )
                return completed
        return super().complete_value(return_type, field_details_list, info, path, result, position_context)

    def _selected(self, type_: GraphQLObjectType, grouped_field_set: GroupedFieldSet) -> list[_Selected]:
        selected = [
            (name, asked, _known_as_plain(self.schema, type_, asked[0].node.name.value))
            for name, asked in grouped_field_set.items()
        ]
        # With what it is known by beside it, whose `id` is not given to another then.
        self._selections[id(grouped_field_set)] = grouped_field_set, selected
        return selected


def is_plain(schema: GraphQLSchema, type_: GraphQLObjectType, name: str) -> bool:
    """Whether a field shows a single value that each object of the type has in memory, to everybody alike."""
    plain = _known_as_plain(schema, type_, name)
    return name == "__typename" or (plain is not None and plain.shown is not None)


def is_alike(schema: GraphQLSchema, type_: GraphQLObjectType, name: str) -> bool:
    """Whether a field of one object is the same for everybody who sees the object."""
    plain = _known_as_plain(schema, type_, name)
    if name == "__typename" or (plain is not None and plain.takes_info is None):
        return True
    definition = _definition(schema.get_field(type_, name))
    return definition is not None and ALIKE in definition.metadata


def _known_as_plain(schema: GraphQLSchema, type_: GraphQLObjectType, name: str) -> _Plain | None:
    key = (type_.name, name)
    if key in _plain_fields:
        return _plain_fields[key]
    return _plain_fields.setdefault(key, _plain(".".join(key), schema.get_field(type_, name)))


def _plain(name: str, field: GraphQLField | None) -> _Plain | None:
    definition = _definition(field)
    if field is None or definition is None:
        return None
    resolver, nullable = definition.base_resolver, not isinstance(field.type, GraphQLNonNull)
    if definition.is_basic_field:
        read: Callable[..., Any] = attrgetter(definition.python_name)
        takes: list[str] = []
    elif resolver is not None and not definition.extensions:
        read = cast(Callable[..., Any], resolver.wrapped_func)
        _, *takes = resolver.signature.parameters
    else:
        return None
    if takes == ["info"]:
        return _Plain(name, field, read, partial(_info, definition), None, nullable)
    if takes:
        return None
    named = field.type.of_type if isinstance(field.type, GraphQLNonNull) else field.type
    return _Plain(name, field, read, None, named.coerce_output_value if is_leaf_type(named) else None, nullable)


def _info(field: StrawberryField, info: GraphQLResolveInfo[Context]) -> Info:
    return Info(_raw_info=info, _field=field)


def _definition(field: GraphQLField | None) -> StrawberryField | None:
    definition = field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF) if field else None
    return definition if isinstance(definition, StrawberryField) else None
