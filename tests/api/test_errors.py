"""What goes wrong in resolvers, as clients are told, and as the log is."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from control_api import operations
from control_api.callers import Caller, CallerKind
from control_api.context import Context
from control_api.errors import bad_input, forbidden, not_found, rate_limited
from served_api import ServedApi

from appliance.model.refused import TooMany
from appliance.storage.records import StoreUnavailable
from appliance.wire import NotRunning, WireError

HEALTH = "{ status { healthy } }"


def answered(api: ServedApi, cause: Exception) -> Any:
    """The answer to a query whose room raises this."""

    def raising(verb: str, **arguments: object) -> Any:
        raise cause

    context = Context(Caller(CallerKind.LOCAL), replace(api.rooms, engine=raising))
    asked = operations.Request("{ queue { totalCount } }")
    return operations.execute(operations.read(asked.query, signed_in=True), asked, context)


@pytest.mark.parametrize(
    ("cause", "code"),
    [
        (StoreUnavailable("/var/lib/onward/records.sqlite is broken"), "UNAVAILABLE"),
        (NotRunning("no appliance answers on /var/lib/onward/engine.sock"), "UNAVAILABLE"),
        (WireError("/var/lib/onward is full"), "UNAVAILABLE"),
        (TooMany("Too many letters.", 60), "RATE_LIMITED"),
        (not_found("domain"), "NOT_FOUND"),
        (forbidden(), "FORBIDDEN"),
        (bad_input("first is between 0 and 100."), "BAD_USER_INPUT"),
        (rate_limited("Too many.", 5), "RATE_LIMITED"),
        (KeyError("/var/lib/onward"), "INTERNAL"),
        (ZeroDivisionError(), "INTERNAL"),
        (RecursionError(), "INTERNAL"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else value,
)
def test_each_cause_has_its_code_and_no_secret_is_told(api: ServedApi, cause: Exception, code: str) -> None:
    (error,) = answered(api, cause)["errors"]
    assert error["extensions"]["code"] == code
    assert "/var/lib" not in str(error)
    assert "Traceback" not in str(error)


def test_a_defect_is_in_the_log_with_its_type(api: ServedApi, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR):
        answered(api, KeyError("what a client sent"))
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is KeyError
    assert "what a client sent" not in record.getMessage()


def test_when_to_come_back_is_said(api: ServedApi) -> None:
    (error,) = answered(api, TooMany("Too many letters.", 60))["errors"]
    assert error["extensions"]["retryAfterSeconds"] == 60
    assert error["message"] == "Too many letters."


@pytest.mark.parametrize("document", [HEALTH, "{ nothing }"])
def test_what_has_been_read_once_is_remembered(document: str) -> None:
    read: Callable[..., Any] = operations._remembered
    before = read.cache_info()  # type: ignore[attr-defined]
    for _ in range(3):
        try:
            operations.read(document, signed_in=True)
        except operations.Refusal:
            pass
    assert read.cache_info().hits >= before.hits + 2  # type: ignore[attr-defined]


def test_what_exists_is_hinted_at_only_to_who_is_signed_in() -> None:
    for signed_in in (True, False):
        with pytest.raises(operations.Refusal) as refusal:
            operations.read("{ status { versio } }", signed_in=signed_in)
        assert ("Did you mean" in refusal.value.errors[0]["message"]) is signed_in
