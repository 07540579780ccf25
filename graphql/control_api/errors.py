"""What goes wrong with a request, in the words of the API: GraphQL errors with a code, and errors of input.

Three kinds. An `ApiError` is raised by a resolver and told as it is. An exception of the rooms below becomes one here,
by `as_told`, the only place where errors are turned into what a client reads. And `Refused`, a rule that a person can
put right, is no GraphQL error at all: mutations answer it in their payload, as a `UserError`.

Whatever is not foreseen is INTERNAL: its type and place go to the log, and nothing of it to the client.
"""

import logging
from enum import Enum
from typing import Any, Self

import strawberry
from graphql import GraphQLError

from appliance.model.refused import Refused, TooMany
from appliance.storage.records import StoreUnavailable
from appliance.wire import NotRunning, WireError

_logger = logging.getLogger(__name__)


class Code(Enum):
    """What stands in `extensions.code`."""

    UNAUTHENTICATED = "UNAUTHENTICATED"
    """Nobody is signed in, or the credential is no good."""
    FORBIDDEN = "FORBIDDEN"
    """Whoever is signed in may not do this."""
    NOT_FOUND = "NOT_FOUND"
    """There is none, or none that the caller may know of."""
    BAD_USER_INPUT = "BAD_USER_INPUT"
    RATE_LIMITED = "RATE_LIMITED"
    """Too many of these: later."""
    TOO_COMPLEX = "TOO_COMPLEX"
    """More than one request may ask for."""
    UNAVAILABLE = "UNAVAILABLE"
    """A store or the engine does not answer: later."""
    INTERNAL = "INTERNAL"
    """A defect of ours; the log has more."""


class ApiError(Exception):
    """What a resolver raises to have a GraphQL error told: its code, and a sentence for whoever asked."""

    def __init__(self, code: Code, message: str, **more: object) -> None:
        """`more` stands beside the code in the error's extensions."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.extensions: dict[str, object] = {"code": code.value, **more}


def unauthenticated(message: str = "Sign in first.") -> ApiError:
    """Nobody is signed in."""
    return ApiError(Code.UNAUTHENTICATED, message)


def forbidden(message: str = "You may not do this.") -> ApiError:
    """The caller is known, and may not."""
    return ApiError(Code.FORBIDDEN, message)


def not_found(what: str) -> ApiError:
    """There is no such thing, or none that the caller may know of: `not_found("domain")`."""
    return ApiError(Code.NOT_FOUND, f"There is no such {what}.")


def bad_input(message: str) -> ApiError:
    """An argument is impossible."""
    return ApiError(Code.BAD_USER_INPUT, message)


def rate_limited(message: str, retry_after_s: int) -> ApiError:
    """Too many; it may be tried again after so many seconds."""
    return ApiError(Code.RATE_LIMITED, message, retryAfterSeconds=retry_after_s)


def too_complex(message: str) -> ApiError:
    """More than one request may ask for."""
    return ApiError(Code.TOO_COMPLEX, message)


def unavailable(message: str = "The appliance can't answer this now. Try again later.") -> ApiError:
    """A store or the engine does not answer."""
    return ApiError(Code.UNAVAILABLE, message)


def told(error: GraphQLError) -> dict[str, Any]:
    """An error of an execution as the client reads it (GraphQL specification §7.1.2)."""
    cause = cause_of(error)
    if isinstance(cause, GraphQLError) or (error.path is None and not isinstance(cause, ApiError)):
        # Without a path nothing was executed: the document or its variables are wrong, and graphql-core says where.
        shown = bad_input(error.message)
    else:
        shown = as_told(cause)
    answer: dict[str, Any] = {"message": shown.message}
    if error.locations:
        answer["locations"] = [location.formatted for location in error.locations]
    if error.path is not None:
        answer["path"] = error.path
    return {**answer, "extensions": shown.extensions}


def as_told(cause: Exception) -> ApiError:
    """What a client is told of an exception. One that is not foreseen goes to the log, and nothing of it further."""
    match cause:
        case ApiError():
            return cause
        case TooMany():
            return rate_limited(cause.reason, cause.retry_after_s)
        case StoreUnavailable() | NotRunning() | WireError():
            # Its text may name files and hosts of ours, which concern nobody else.
            _logger.warning("a request could not be answered", exc_info=cause)
            return unavailable()
        case _:
            _logger.error("a resolver met a defect", exc_info=cause)
            return ApiError(Code.INTERNAL, "The appliance met a defect of its own; its log says more.")


def cause_of(error: GraphQLError) -> Exception:
    """What was raised at the bottom of it."""
    cause: Exception = error
    while isinstance(cause, GraphQLError) and isinstance(cause.original_error, Exception):
        cause = cause.original_error
    return cause


@strawberry.type(
    description="What a person can put right. Not signed in, not allowed and too many requests are GraphQL errors with "
    "`extensions.code`."
)
class UserError:
    """A broken rule, as mutations answer it."""

    code: str = strawberry.field(description="A stable word for programs.")
    message: str = strawberry.field(description="A sentence that says what would be right.")
    field: list[str] | None = strawberry.field(default=None, description="Which argument is meant; null where none is.")

    @classmethod
    def of(cls, refusal: Refused) -> Self:
        """From what a room has refused."""
        field = None if refusal.field is None else [refusal.field]
        return cls(code=refusal.code, message=refusal.reason, field=field)


@strawberry.type
class Payload:
    """What a mutation answers; its own fields are null where there are errors."""

    errors: list[UserError] = strawberry.field(default_factory=list, description="Empty where it was done.")
