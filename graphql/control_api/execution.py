"""Executes an operation as graphql-core does, within a budget, and what is below its root fields in one go.

graphql-core describes each field of each object of a page anew, and Strawberry takes that apart again, mostly to read
an attribute: for a page of rows that is nearly all of the time. Which fields are asked for, with which arguments, is
the same for every object in the same place of a document. So what completes the values of a place is put together
once for an execution (`_Completed`), of plain functions, and called for each of them.

Such functions tell no error its place. Where one of them raises anything, what they have made is thrown away, and
graphql-core goes the whole way itself: it knows what is null then, and where the error stands. Below the root fields
there are only queries, which can be asked twice. Nothing is ever awaited.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter
from typing import Any, Final, TypeVar, cast

from graphql import (
    GraphQLError,
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
from graphql.execution.values import get_argument_values
from graphql.pyutils import Path
from strawberry.schema.schema_converter import GraphQLCoreConverter
from strawberry.types.field import StrawberryField

from control_api.context import Context, Info
from control_api.errors import ApiError
from control_api.fields import ALIKE

_TYPE: Final = "__type"
_TYPENAME: Final = "__typename"

Position = TypeVar("Position")

_Complete = Callable[[Any], Any]
"""Makes of a value what the answer has of it. Raises whatever a resolver raises, and TypeError where nothing is and
something has to be."""


_AS_IT_IS: Final = frozenset({"String", "ID", "Boolean"})
"""What is in the answer as it is in Python: that an attribute is of its kind is for mypy to see."""


class _NotPlain(Exception):
    """Something is asked for that graphql-core has to see to, such as what is of one type or another."""


@dataclass(frozen=True, slots=True)
class _Plain:
    """A field that is read of an object, without arguments."""

    read: Callable[..., Any]
    takes_info: Callable[[GraphQLResolveInfo[Context]], Info] | None = None
    """Where the method asks who is there: what makes its `info`."""
    take: _Complete | None = None
    """What reads and completes it in one, where it is a single value in memory. The same for everybody and always."""


_plain_fields: Final[dict[tuple[str, str], _Plain | None]] = {}
"""What is known of each field that was asked for, by type and name: as many as the schema has, and no more."""


class BoundedExecutor(Executor[Position]):
    """Executes one operation, or one event of a subscription."""

    @cached_property
    def _completed(self) -> dict[tuple[int, int], tuple[FieldDetailsList, _Complete | None]]:
        """What completes the values of a place; None where graphql-core does. By the `id` of graphql-core's own forms
        of the type and of what is asked for; the latter is kept beside it, so that its `id` is not given to another.
        """
        return {}

    _went_wrong = False
    """Something has raised. What is left is graphql-core's, so that nothing is waited for again and again."""

    def execute_fields(
        self,
        parent_type: GraphQLObjectType,
        source_value: Any,
        path: Path | None,
        grouped_field_set: GroupedFieldSet,
        position_context: Position | None,
    ) -> Any:
        """What is asked for of one object."""
        self._context.budget.spend(len(grouped_field_set))
        return super().execute_fields(parent_type, source_value, path, grouped_field_set, position_context)

    def execute_field(
        self,
        parent_type: GraphQLObjectType,
        source: Any,
        field_details_list: FieldDetailsList,
        path: Path,
        position_context: Position | None,
    ) -> Any:
        """The value of a field, for the answer."""
        name = field_details_list[0].node.name.value
        if name == _TYPE and not self._context.caller.is_signed_in:
            # To a stranger there is no type of any name; that is not worth an error.
            return None
        try:
            # It may ask a store, the engine or the DNS; twenty that each wait for long are not waited for one by one.
            self._context.budget.look_at_the_clock()
        except ApiError as error:
            field = self.schema.get_field(parent_type, name)
            assert field is not None, "the document is valid"
            self.handle_field_error(error, field.type, field_details_list, path)
            return None
        return super().execute_field(parent_type, source, field_details_list, path, position_context)

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
        if not self._went_wrong:
            complete = self._complete_for(return_type, field_details_list)
            if complete is not None:
                try:
                    return complete(result)
                except Exception:  # noqa: BLE001 - graphql-core meets it again, and tells of it in its place
                    self._went_wrong = True
        return super().complete_value(return_type, field_details_list, info, path, result, position_context)

    @property
    def _context(self) -> Context:
        return cast(Context, self.context_value)

    def _complete_for(self, type_: GraphQLOutputType, asked: FieldDetailsList) -> _Complete | None:
        key = (id(type_), id(asked))
        known = self._completed.get(key)
        if known is None:
            try:
                known = asked, self._completes(type_, asked)
            except (_NotPlain, GraphQLError):
                # An argument that can't be used, say: that is the error of a field, and graphql-core knows which.
                known = asked, None
            self._completed[key] = known
        return known[1]

    # ------------------------------------------------------------------ putting together what completes a place

    def _completes(self, type_: GraphQLOutputType, asked: FieldDetailsList) -> _Complete:
        """What completes values of this type, of which this is asked. Raises _NotPlain."""
        if isinstance(type_, GraphQLNonNull):
            return self._completes_something(type_.of_type, asked)
        complete = self._completes_something(type_, asked)
        return lambda value: None if value is None else complete(value)

    def _completes_something(self, type_: GraphQLOutputType, asked: FieldDetailsList) -> _Complete:
        """The same of what is not null: each of these raises TypeError, or the like, where it is."""
        if is_leaf_type(type_):
            return _something(type_.coerce_output_value)
        if isinstance(type_, GraphQLList):
            complete = self._completes(type_.of_type, asked)
            return lambda values: [complete(value) for value in values]
        if isinstance(type_, GraphQLObjectType):
            return self._completes_object(type_, asked)
        raise _NotPlain

    def _completes_object(self, type_: GraphQLObjectType, asked: FieldDetailsList) -> _Complete:
        grouped = self.collect_subfields(type_, asked).grouped_field_set
        fields = [(name, self._takes(type_, below)) for name, below in grouped.items()]
        needed = [name for name, below in grouped.items() if self._may_not_be_null(type_, below)]
        context, count = self._context, len(fields)

        def complete(source: Any) -> dict[str, Any]:
            if source is None:
                raise TypeError(f"there is no {type_.name} where one has to be")
            context.budget.spend(count)
            answer = {name: take(source) for name, take in fields}
            if None in answer.values() and any(answer[name] is None for name in needed):
                raise TypeError(f"a field of {type_.name} is missing")
            return answer

        return complete

    def _may_not_be_null(self, type_: GraphQLObjectType, asked: FieldDetailsList) -> bool:
        field = self.schema.get_field(type_, asked[0].node.name.value)
        return field is not None and isinstance(field.type, GraphQLNonNull)

    def _takes(self, type_: GraphQLObjectType, asked: FieldDetailsList) -> _Complete:
        """What takes the value of a field from an object, and completes it."""
        name = asked[0].node.name.value
        if name == _TYPENAME:
            return lambda _: type_.name
        field = self.schema.get_field(type_, name)
        definition = _definition(field)
        if field is None or definition is None:
            raise _NotPlain
        plain = _known_as_plain(self.schema, type_, name)
        if plain is not None and plain.take is not None:
            return plain.take
        complete = self._completes(field.type, asked)
        if plain is not None and plain.takes_info is None:
            read = plain.read
            return lambda source: complete(read(source))
        # The path of the info is that of the first one in this place: no resolver asks for it.
        info = self.build_resolve_info(field, [one.node for one in asked], type_, Path(None, name, type_.name))
        if plain is not None and plain.takes_info is not None:
            ask: Callable[..., Any] = partial(plain.read, info=plain.takes_info(info))
        else:
            arguments = get_argument_values(
                field, asked[0].node, self.variable_values, asked[0].fragment_variable_values, self.hide_suggestions
            )
            assert field.resolve is not None, "Strawberry gives one to each field"
            resolve = field.resolve
            ask = lambda source: resolve(source, info, **arguments)  # noqa: E731 - as the other is
        context = self._context

        def take(source: Any) -> Any:
            context.budget.look_at_the_clock()
            return complete(ask(source))

        return take


def is_plain(schema: GraphQLSchema, type_: GraphQLObjectType, name: str) -> bool:
    """Whether a field shows a single value that each object of the type has in memory, to everybody alike."""
    plain = _known_as_plain(schema, type_, name)
    return name == _TYPENAME or (plain is not None and plain.take is not None)


def is_alike(schema: GraphQLSchema, type_: GraphQLObjectType, name: str) -> bool:
    """Whether a field of one object is the same for everybody who sees the object."""
    plain = _known_as_plain(schema, type_, name)
    if name == _TYPENAME or (plain is not None and plain.takes_info is None):
        return True
    definition = _definition(schema.get_field(type_, name))
    return definition is not None and ALIKE in definition.metadata


def _something(complete: _Complete) -> _Complete:
    def completed(value: Any) -> Any:
        if value is None:
            raise TypeError("there is nothing where something has to be")
        return complete(value)

    return completed


def _known_as_plain(schema: GraphQLSchema, type_: GraphQLObjectType, name: str) -> _Plain | None:
    key = (type_.name, name)
    if key in _plain_fields:
        return _plain_fields[key]
    return _plain_fields.setdefault(key, _plain(schema.get_field(type_, name)))


def _plain(field: GraphQLField | None) -> _Plain | None:
    definition = _definition(field)
    if field is None or definition is None:
        return None
    resolver = definition.base_resolver
    if definition.is_basic_field:
        read = attrgetter(definition.python_name)
        return _Plain(read, take=_takes_leaf(field.type, read))
    if resolver is None or definition.extensions:
        return None
    call = cast(Callable[..., Any], resolver.wrapped_func)
    takes = list(resolver.signature.parameters)[1:]
    if takes == ["info"]:
        return _Plain(call, takes_info=partial(_info, definition))
    return None if takes else _Plain(call, take=_takes_leaf(field.type, call))


def _takes_leaf(type_: GraphQLOutputType, read: _Complete) -> _Complete | None:
    """What reads and completes a single value; None where it is none."""
    named = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
    if not is_leaf_type(named):
        return None
    if named.name in _AS_IT_IS:
        return read
    coerce = _something(named.coerce_output_value)
    if named is type_:
        return lambda source: None if (value := read(source)) is None else coerce(value)
    return lambda source: coerce(read(source))


def _info(field: StrawberryField, info: GraphQLResolveInfo[Context]) -> Info:
    return Info(_raw_info=info, _field=field)


def _definition(field: GraphQLField | None) -> StrawberryField | None:
    definition = field.extensions.get(GraphQLCoreConverter.DEFINITION_BACKREF) if field else None
    return definition if isinstance(definition, StrawberryField) else None
