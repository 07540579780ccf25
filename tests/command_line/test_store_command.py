"""`onward store copy`, as far as it is refused before anything is opened."""

import pytest
from command_line_desk import Desk


@pytest.mark.parametrize("target", ["postgres://host/x", "mongodb://user:hunter2@host/onward", "sqlite:/tmp/x"])
def test_what_is_no_store_is_refused_without_a_password_being_repeated(desk: Desk, target: str) -> None:
    refused = desk.type("store", "copy", "sqlite:", target)
    assert refused.exit_code == 2
    assert "hunter2" not in refused.output
    assert "sqlite:" in refused.output or "password" in refused.output


def test_a_store_is_not_copied_into_itself(desk: Desk) -> None:
    refused = desk.type("store", "copy", "sqlite:", "sqlite:")
    assert refused.exit_code == 1
    assert "one and the same" in refused.output
