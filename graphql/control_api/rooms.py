"""The rooms that resolvers may call. `appliance.run.control` furnishes them; a resolver finds them in its context."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from appliance.access.entrance import Entrance
from appliance.accounts.accounts import Accounts
from appliance.accounts.aliases import Aliases
from appliance.accounts.blocks import Blocks
from appliance.accounts.consent import Consent
from appliance.accounts.deletion import Deletion, LetGo
from appliance.accounts.domains import Domains
from appliance.accounts.export import Export
from appliance.accounts.help import Help
from appliance.accounts.ownership import Ownership
from appliance.accounts.reach import Reach
from appliance.configuration import Configuration
from appliance.logbook.feed import Feed
from appliance.model.account import Plan
from appliance.model.time import Clock
from appliance.privacy.canary import Canaries
from appliance.routing.explained import Explanation
from appliance.storage.ephemeral import EphemeralStore
from appliance.storage.records import RecordStore
from control_api.callers import Doorkeeper
from smtp.address import Address


class Explain(Protocol):
    """Decides about one recipient as RCPT would, for worker threads of Trio: it asks the DNS."""

    def __call__(self, recipient: Address, sender: Address | None, reader: str | None, client: str) -> Explanation:
        """What would become of a message, for the eyes of this account, or of who may know all.

        `sender` of None is the null reverse-path; `client` is the address of who brings it, or empty. Raises
        StoreUnavailable.
        """


class Engine(Protocol):
    """Asks the engine over its socket (`appliance.wire.call`). For worker threads: it blocks."""

    def __call__(self, verb: str, **arguments: object) -> Iterator[Any]:
        """The results, one by one. Raises NotRunning, or WireError with the engine's words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """Every room of the control process. Each may be called by any thread."""

    configuration: Configuration
    plans: Mapping[str, Plan]
    records: RecordStore
    ephemeral: EphemeralStore
    clock: Clock
    engine: Engine
    doorkeeper: Doorkeeper
    entrance: Entrance
    accounts: Accounts
    reach: Reach
    feed: Feed
    domains: Domains
    ownership: Ownership
    explain: Explain
    aliases: Aliases
    consent: Consent
    help: Help
    blocks: Blocks
    deletion: Deletion
    let_go: LetGo
    export: Export
    canaries: Canaries
