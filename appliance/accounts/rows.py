"""What this room asks of the record store: one value, every value, and the change that stores one."""

from collections.abc import Iterator
from typing import Any, TypeVar

from appliance.model.account import Account
from appliance.model.block import Block
from appliance.model.domain import Alias, Destination, Domain
from appliance.model.help import HelpReply, HelpRequest, LogAccess
from appliance.privacy.declarations import (
    ACCOUNTS,
    ALIASES,
    BLOCKS,
    DESTINATIONS,
    DOMAINS,
    HELP_REPLIES,
    HELP_REQUESTS,
    LOG_ACCESSES,
    Collection,
)
from appliance.storage.record_rows import (
    Value,
    row_to_account,
    row_to_alias,
    row_to_block,
    row_to_destination,
    row_to_domain,
    row_to_help_reply,
    row_to_help_request,
    row_to_log_access,
    to_row,
)
from appliance.storage.records import Insert, Page, RecordStore, Where

V = TypeVar("V", Account, Domain, Alias, Destination, HelpRequest, HelpReply, LogAccess, Block)

_KINDS: dict[type[Value], tuple[Collection, Any]] = {
    Account: (ACCOUNTS, row_to_account),
    Domain: (DOMAINS, row_to_domain),
    Alias: (ALIASES, row_to_alias),
    Destination: (DESTINATIONS, row_to_destination),
    HelpRequest: (HELP_REQUESTS, row_to_help_request),
    HelpReply: (HELP_REPLIES, row_to_help_reply),
    LogAccess: (LOG_ACCESSES, row_to_log_access),
    Block: (BLOCKS, row_to_block),
}


def insert(value: Value) -> Insert:
    """The change that stores this value."""
    collection, _ = _KINDS[type(value)]
    return Insert(collection, to_row(value))


def get(records: RecordStore, kind: type[V], where: Where) -> V | None:
    """The one value that meets the conditions, or None."""
    collection, read = _KINDS[kind]
    row = records.get(collection, where)
    return None if row is None else read(row)


def some(records: RecordStore, kind: type[V], where: Where, page: Page) -> list[V]:
    """One page of the values that meet the conditions."""
    collection, read = _KINDS[kind]
    return [read(row) for row in records.find(collection, where, page)]


def every(records: RecordStore, kind: type[V], where: Where) -> Iterator[V]:
    """All values that meet the conditions, in the order in which they were made, read page by page."""
    collection, read = _KINDS[kind]
    page = Page()
    while rows := records.find(collection, where, page):
        for row in rows:
            yield read(row)
        if len(rows) < page.limit:
            return
        page = Page(after=str(rows[-1]["id"]))
