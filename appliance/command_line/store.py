"""`onward store`: where the appliance keeps what it has."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from appliance.command_line.invocation import Group, Invocation, json_option, pass_invocation
from appliance.command_line.output import counted, print_json, print_table, say

if TYPE_CHECKING:
    from appliance.privacy.declarations import Collection

PROGRESS_S = 2.0
"""How often a long copy says how far it is."""


class _Url(click.ParamType[str]):
    name = "url"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from appliance.configuration.mongo_urls import sqlite_or_mongodb

        try:
            return sqlite_or_mongodb(value)
        except ValueError as error:
            # What was written is not repeated: there may be a password in it.
            self.fail(f"this {error}", param, ctx)


@click.group(cls=Group)
def store() -> None:
    """Move the appliance from one store to another."""


@store.command("copy")
@click.argument("source", metavar="FROM", type=_Url())
@click.argument("target", metavar="TO", type=_Url())
@json_option
@pass_invocation
def copy(invocation: Invocation, source: str, target: str, as_json: bool) -> None:
    """Copy all records from one store to another: accounts, domains, aliases, the log, and the keys of all that.

    FROM and TO are what `store.url` may be: "sqlite:" for the files in data_dir, or the URL of a MongoDB. Stop every
    appliance on either first. A copy that was broken off is finished by the same command. At the end both sides are
    read and compared; then write TO into the configuration. Mail that is under way is not copied: run the appliance on
    FROM until its queue is empty, or again later for what is left.
    """
    from appliance.run.store_copying import copy_store

    said_at = time.monotonic()

    def progress(collection: Collection, seen: int, brought: int) -> None:
        nonlocal said_at
        if time.monotonic() - said_at >= PROGRESS_S:
            said_at = time.monotonic()
            say(f"{collection.name}: {seen} looked at, {brought} copied")

    copied = copy_store(invocation.configuration, source, target, progress)
    if as_json:
        collections = {
            name: {"rows": each.rows, "sha256": each.digest} for name, each in sorted(copied.contents.items())
        }
        print_json({"collections": collections, "keys": sorted(copied.keys), "waiting": copied.waiting})
    else:
        rows = [(name, str(each.rows), each.digest[:16]) for name, each in copied.contents.items() if each.rows]
        print_table(("COLLECTION", "ROWS", "SHA-256 OF BOTH"), rows)
        total = sum(each.rows for each in copied.contents.values())
        say(
            f"Both stores have the same {counted(total, 'row')} now. Write TO into the configuration as store.url. "
            "What was copied is still at FROM as well: erase it there once everything works."
        )
    if copied.waiting:
        say(
            f"{counted(copied.waiting, 'delivery is', 'deliveries are')} still under way at FROM, and not copied. Run "
            "the appliance on FROM until its queue is empty."
        )
