"""One operation: its document read within limits and remembered, and its execution, in one go, by plain resolvers.

The steps are graphql-core's own, taken one by one, so that a document which has been read and validated once is not
read again, and so that a caller can tell what was wrong before anything was executed from what went wrong in execution:
for HTTP these are different statuses.

Queries and mutations are executed here, in worker threads; subscriptions in `subscriptions.py`.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import trio
from graphql import (
    DocumentNode,
    ExecutionResult,
    GraphQLError,
    GraphQLSyntaxError,
    MaxIntrospectionDepthRule,
    OperationDefinitionNode,
    execute_sync,
    parse,
    validate,
)

from appliance.access.clients import networks
from control_api import errors, limits
from control_api.context import Context
from control_api.exchange import Noted
from control_api.execution import BoundedExecutor
from control_api.schema import SCHEMA

Result = TypeVar("Result")

REMEMBERED = 128
"""Documents that are kept as they were read. `graphql/operations` has some sixty."""
REMEMBERED_OCTETS = 4096
"""Of a document that is kept. Longer ones are read anew, so that nobody fills the memory with them."""
ERRORS = 10
"""Of a document that are told at once."""
THREADS = 8
"""In which operations are executed. They wait for stores and the engine; these keep two processors busy."""

SCHEMA_OF_CORE: Final = SCHEMA._schema
"""graphql-core's side of the schema. Strawberry shows it to its own views and by this name only."""

SHARE = 5
"""Of these, for operations of one client (IPv6 by /64). Some wait for the DNS or the engine, and whoever asks for many
of them at once keeps nobody else from an answer."""

threads: Final = trio.CapacityLimiter(THREADS)
"""One for the process. Whoever waits for a place here waits outside of the store."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks for, whichever way it came."""

    query: str
    variables: Mapping[str, Any] | None = None
    operation_name: str | None = None


@dataclass(slots=True)
class _Share:
    """The threads of one client."""

    free: trio.Semaphore
    users: int = 0
    """Who has one of them, or waits for it."""


_shares: Final[dict[str, _Share]] = {}
"""By client: of those whose operations are under way now."""


async def in_thread(address: str, work: Callable[..., Result], *arguments: object) -> Result:
    """Do this for a client with this address, in a worker thread; empty: for the operator of the machine.

    It can be cancelled while it waits for a thread. Once a thread has begun it is waited for: it may be a change.
    """
    if not address:
        return await trio.to_thread.run_sync(work, *arguments, limiter=threads)
    client = networks(address)[0]
    share = _shares.setdefault(client, _Share(trio.Semaphore(SHARE)))
    share.users += 1
    try:
        async with share.free:
            return await trio.to_thread.run_sync(work, *arguments, limiter=threads)
    finally:
        share.users -= 1
        if not share.users:
            del _shares[client]


class Refusal(Exception):
    """Nothing was executed: the document, its choice of operation or its variables are no good."""

    def __init__(self, errors: list[dict[str, Any]]) -> None:
        super().__init__("nothing was executed")
        self.errors = errors


@dataclass(frozen=True, slots=True)
class Read:
    """A document that may be executed, as far as that can be known without its variables and the caller."""

    document: DocumentNode
    introspects: bool

    def operation(self, name: str | None, noted: Noted | None = None) -> OperationDefinitionNode:
        """The one that is meant, and noted with its kind and its own name. Raises Refusal."""
        meant = self._meant(name)
        if noted is not None:
            noted.kind = meant.operation.value
            noted.name = meant.name.value if meant.name is not None else None
        return meant

    def _meant(self, name: str | None) -> OperationDefinitionNode:
        operations = [one for one in self.document.definitions if isinstance(one, OperationDefinitionNode)]
        if name is None and len(operations) == 1:
            return operations[0]
        for one in operations:
            if name is not None and one.name is not None and one.name.value == name:
                return one
        raise refused(errors.bad_input("Name the operation that is meant." if name is None else "No such operation."))


def read(query: str, *, signed_in: bool) -> Read:
    """The document, read, held against the limits, and valid. Raises Refusal.

    What does not exist is hinted at only to who is signed in, and so is the schema shown.
    """
    known = _remembered(query) if len(query) <= REMEMBERED_OCTETS else _read(query)
    if isinstance(known, Read):
        if known.introspects and not signed_in:
            raise refused(errors.unauthenticated("Sign in to read the schema."))
        return known
    found = validate(SCHEMA_OF_CORE, known, max_errors=ERRORS, hide_suggestions=not signed_in)
    raise Refusal([errors.told(error) for error in found])


def execute(known: Read, request: Request, context: Context) -> dict[str, Any]:
    """Execute a query or a mutation to its end, in this thread: `data`, and `errors` where there are some.

    Raises Refusal where nothing was executed.
    """
    result = execute_sync(
        SCHEMA_OF_CORE,
        known.document,
        context_value=context,
        variable_values=dict(request.variables or {}),
        operation_name=request.operation_name,
        executor_class=BoundedExecutor,
        hide_suggestions=not context.caller.is_signed_in,
    )
    if result.data is None and result.errors and all(error.path is None for error in result.errors):
        raise Refusal([errors.told(error) for error in result.errors])
    return response(result)


def response(result: ExecutionResult) -> dict[str, Any]:
    """What an execution has come to, as a client reads it (GraphQL specification §7.1)."""
    answer: dict[str, Any] = {"errors": [errors.told(error) for error in result.errors]} if result.errors else {}
    return {**answer, "data": result.data}


def refused(error: errors.ApiError) -> Refusal:
    """A refusal for this one reason."""
    return Refusal([{"message": error.message, "extensions": error.extensions}])


def _read(query: str) -> Read | DocumentNode:
    """Read and validate: where it is not valid, the document itself. Raises Refusal where it is none, or too much."""
    try:
        document = parse(query, max_lexical_tokens=limits.TOKENS, max_comments=limits.COMMENTS)
        introspects = limits.asks_for_the_schema(document)
    except GraphQLSyntaxError as error:
        if "Parsing aborted" in error.description:
            said = f"A document has at most {limits.TOKENS} tokens, and is not nested deeply."
            raise refused(errors.too_complex(said)) from None
        raise Refusal([errors.told(error)]) from None
    except errors.ApiError as error:
        raise refused(error) from None
    except (GraphQLError, RecursionError):
        raise refused(errors.too_complex("This is nested too deeply.")) from None
    if validate(SCHEMA_OF_CORE, document, [MaxIntrospectionDepthRule], max_errors=1):
        raise refused(errors.too_complex("This looks too deep into the schema at once."))
    return document if validate(SCHEMA_OF_CORE, document, max_errors=1) else Read(document, introspects)


_remembered = functools.lru_cache(REMEMBERED)(_read)
