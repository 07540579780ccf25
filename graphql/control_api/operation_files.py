"""The operations that are written down: `graphql/operations`, a file for each thing that a person does.

The command line sends these and no others; each of them is executed by a test.
"""

from pathlib import Path

_BESIDE = Path(__file__).with_name("operations")
"""Where an installed package and the binary have them."""
_IN_CHECKOUT = Path(__file__).parents[1] / "operations"


def folder() -> Path:
    """Where the files are."""
    return _BESIDE if _BESIDE.is_dir() else _IN_CHECKOUT


def operation(name: str) -> str:
    """The document of this name, such as `list_queue`. Raises FileNotFoundError."""
    return (folder() / f"{name}.graphql").read_text(encoding="utf-8")
