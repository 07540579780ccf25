"""`graphql/` is a second source root and must never become a package: see graphql/README.md."""

from pathlib import Path

import graphql

ROOT = Path(__file__).resolve().parents[2]


def test_import_graphql_is_graphql_core() -> None:
    assert graphql.__file__ is not None
    assert not Path(graphql.__file__).is_relative_to(ROOT / "graphql")
    assert hasattr(graphql, "build_schema")


def test_the_folder_is_no_package_and_says_why() -> None:
    assert not (ROOT / "graphql/__init__.py").exists()
    assert "`__init__.py`" in (ROOT / "graphql/README.md").read_text().splitlines()[0]
