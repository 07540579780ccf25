"""Subscriptions: a source of events, and what each event comes to for whoever follows, as JSON.

Many follow the same with the same words: a program has one way to ask for a log. What an event comes to in those
words is mostly the same for all who may know of it (`fields.shown_alike`), so it is made once. An event has its own
fields in memory; where more is asked for, a resolver may ask a store and wait: in a worker thread then.
"""

import inspect
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import trio
from graphql import (
    ExecutionResult,
    FieldNode,
    GraphQLObjectType,
    GraphQLSchema,
    OperationDefinitionNode,
    SelectionSetNode,
    get_named_type,
    is_object_type,
)
from graphql.execution import create_source_event_stream, execute_root_selection_set

from control_api import errors, limits, operations
from control_api.context import Context
from control_api.execution import BoundedExecutor, is_alike, is_plain
from control_api.nouns.node import Node

SHARED = 512
"""Answers that are kept for others who follow: those of the last moments, in which all are told."""


@dataclass(slots=True)
class _Shared:
    """One answer for all who follow in the same words."""

    operation: OperationDefinitionNode
    """Kept, so that its `id` is not given to another as long as it means something."""
    made: trio.Event = field(default_factory=trio.Event)
    answer: bytes | None = None
    """None until it is made, and where whoever set about it was called away."""


_shared: Final[OrderedDict[tuple[int, str], _Shared]] = OrderedDict()
"""By the operation, which is one object for all who ask in the same words, and the event. Of one Trio run."""


async def subscribe(known: operations.Read, request: operations.Request, context: Context) -> AsyncGenerator[bytes]:
    """The answers of a subscription, one for each event, until its source ends or the generator is closed.

    Raises Refusal where it does not begin.
    """
    executor: Any = BoundedExecutor.build(
        operations.SCHEMA_OF_CORE,
        known.document,
        context_value=context,
        raw_variable_values=dict(request.variables or {}),
        operation_name=request.operation_name,
        hide_suggestions=not context.caller.is_signed_in,
    )
    if isinstance(executor, list):
        raise operations.Refusal([errors.told(error) for error in executor])
    source: Any = create_source_event_stream(executor)
    if inspect.isawaitable(source):
        source = await source
    if isinstance(source, ExecutionResult):
        raise operations.Refusal([errors.told(error) for error in source.errors or ()])
    return _answers(executor, source, known.operation(request.operation_name))


async def _answers(
    executor: Any, source: AsyncIterable[Any], operation: OperationDefinitionNode
) -> AsyncGenerator[bytes]:
    alike, in_memory = (_asks_only_for(operation, what) for what in (is_alike, is_plain))
    async with aclosing(aiter(source)) as events:  # type: ignore[type-var]  # it is an asynchronous generator
        async for event in events:
            if alike and isinstance(event, Node):
                yield await _shared_answer(executor, operation, event, in_memory)
            else:
                yield (await _made(executor, event, in_memory))[0]


async def _shared_answer(executor: Any, operation: OperationDefinitionNode, event: Node, in_memory: bool) -> bytes:
    key = (id(operation), event.stored_id)
    while True:
        shared = _shared.get(key)
        if shared is None:
            shared = _shared[key] = _Shared(operation)
            if len(_shared) > SHARED:
                _shared.popitem(last=False)
            went_well = False
            try:
                shared.answer, went_well = await _made(executor, event, in_memory)
            finally:
                shared.made.set()
                # A store that was away for those who waited may be back for the next.
                if not went_well and _shared.get(key) is shared:
                    del _shared[key]
        elif shared.answer is None:
            await shared.made.wait()
        if shared.answer is not None:
            return shared.answer


async def _made(executor: Any, event: object, in_memory: bool) -> tuple[bytes, bool]:
    own = executor.build_per_event_executor(event)
    return _answer(own) if in_memory else await trio.to_thread.run_sync(_answer, own, limiter=operations.threads)


def _answer(executor: Any) -> tuple[bytes, bool]:
    """The answer, and whether it is without errors."""
    executor.context_value.budget = limits.Budget()
    result = execute_root_selection_set(executor)
    assert isinstance(result, ExecutionResult), "resolvers are plain"
    return msgspec.json.encode(operations.response(result)), not result.errors


def _asks_only_for(
    operation: OperationDefinitionNode, what: Callable[[GraphQLSchema, GraphQLObjectType, str], bool]
) -> bool:
    """Whether there are only such fields of an event, of all that is asked for, without arguments and conditions."""
    (root,) = operation.selection_set.selections
    subscription = operations.SCHEMA_OF_CORE.subscription_type
    assert subscription is not None, "the document is valid"

    def holds(type_: object, selections: SelectionSetNode) -> bool:
        return is_object_type(type_) and all(
            isinstance(one, FieldNode)
            and not one.directives
            and not one.arguments
            and what(operations.SCHEMA_OF_CORE, type_, one.name.value)
            and (one.selection_set is None or holds(_type_of(type_, one), one.selection_set))
            for one in selections.selections
        )

    if not isinstance(root, FieldNode) or root.directives or root.selection_set is None:
        return False
    return holds(_type_of(subscription, root), root.selection_set)


def _type_of(type_: GraphQLObjectType, node: FieldNode) -> object:
    return get_named_type(type_.fields[node.name.value].type)
