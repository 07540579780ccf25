"""A line of the log is one line, whatever is in it, and never the text of an error that may be made of mail."""

import logging

import pytest

from appliance.run.log import OneLine, escaped, places, words


def _line(message: str, error: BaseException | None = None) -> str:
    exc_info = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord("x", logging.WARNING, "x.py", 1, message, (), exc_info)
    record.created = 1_790_000_000.25
    return OneLine("engine").format(record)


def _raised(error: Exception) -> Exception:
    with pytest.raises(type(error)) as caught:
        raise error
    return caught.value


def test_a_line_has_time_level_and_process() -> None:
    line = _line(words("a child died", name="engine", how="status 3", lived_s=1.23456))
    assert line == '2026-09-21T14:13:20.250Z warning engine: a child died name=engine how="status 3" lived_s=1.23'


@pytest.mark.parametrize(
    ("value", "field"),
    [
        ("", '""'),
        ('say "hi"', '"say \\"hi\\""'),
        ("a=b", '"a=b"'),
        ("a\nb", "a\\nb"),
        ("\x1b[2J", "\\x1b[2J"),
        (7, "7"),
    ],
)
def test_a_field_is_quoted_where_it_could_be_misread(value: object, field: str) -> None:
    assert words("w", key=value) == f"w key={field}"


def test_nothing_begins_a_line_of_its_own_or_steers_a_terminal() -> None:
    hostile = "a\r\nb\x1b[31m\x00\x85\u2028\u202e"
    assert escaped(hostile).isprintable()
    assert _line(hostile).isprintable()


def test_an_error_is_told_by_type_and_place() -> None:
    line = _line("it went wrong", _raised(ValueError("somebody@example.org")))
    assert "somebody" not in line
    assert 'because of error="ValueError at test_log.py:' in line


def test_a_group_of_errors_is_told_one_by_one() -> None:
    group = ExceptionGroup("both", [ValueError("a@example.org"), ExceptionGroup("inner", [OSError("b@example.org")])])
    assert places(group) == "ValueError; OSError"
