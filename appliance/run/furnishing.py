"""The rooms of the control process: what the API calls, over the stores and keys that it may have.

A new room is made here, and gets its field in `control_api.rooms`.
"""

import os

import trio
from argon2 import PasswordHasher
from control_api.rooms import Engine, Rooms

from appliance.access.entrance import entrance
from appliance.access.errands import Errands
from appliance.accounts.accounts import Accounts
from appliance.accounts.aliases import Aliases
from appliance.accounts.blocks import Blocks
from appliance.accounts.consent import Consent
from appliance.accounts.domains import Domains
from appliance.accounts.help import Help
from appliance.accounts.ownership import Ownership
from appliance.accounts.reach import Reach
from appliance.configuration import Configuration
from appliance.logbook.feed import Feed
from appliance.logbook.sources import EngineEvents, SharedLog, Source
from appliance.model.letter import Post, links
from appliance.model.time import Clock, wall_clock
from appliance.privacy.canary import Canaries
from appliance.privacy.sealing import KEY_OCTETS, Sealer
from appliance.run.account_rooms import deletion, export, let_go
from appliance.run.dns_questions import DnsQuestions
from appliance.run.explanation import Explainer
from appliance.run.stores import is_shared, keyring
from appliance.storage.ephemeral import EphemeralStore
from appliance.storage.records import RecordStore

ACCOUNTS_KEY = "accounts"
"""The key of what is remembered of people for as long as they have an account. It stays, in backups too."""


def furnish(
    config: Configuration,
    records: RecordStore,
    ephemeral: EphemeralStore,
    engine: Engine,
    post: Post,
    errands: Errands,
    clock: Clock = wall_clock,
    hasher: PasswordHasher | None = None,
    ephemeral_key: Sealer | None = None,
    server_clock: Clock | None = None,
) -> Rooms:
    """Every room of the API. Takes as long as one password hash. Raises SecretRefused or OSError.

    `server_clock` is that of the store, where several nodes share it.
    `ephemeral_key` is that of an ephemeral store which outlives the process; without it one is drawn for the process.
    `hasher` hashes passwords otherwise than `appliance.access.passwords` would.
    """
    own_names = {config.hostname, config.forwarding.srs_domain}
    accounts_key = keyring(config, [ACCOUNTS_KEY])[ACCOUNTS_KEY]
    consent = Consent(records, links(config.http.public_url), accounts_key, clock)
    way_in = entrance(
        records,
        ephemeral,
        plans=config.plans,
        hostname=config.hostname,
        public_url=config.http.public_url,
        accounts_key=accounts_key,
        ephemeral_key=ephemeral_key or Sealer(os.urandom(KEY_OCTETS)),
        post=post,
        errands=errands,
        clock=clock,
        hasher=hasher,
    )
    help_ = Help(records, clock)
    return Rooms(
        configuration=config,
        plans=config.plans,
        records=records,
        ephemeral=ephemeral,
        clock=clock,
        engine=engine,
        doorkeeper=way_in.doorkeeper,
        entrance=way_in,
        accounts=Accounts(records, config.plans, clock),
        domains=Domains(records, config.plans, own_names, clock),
        reach=Reach(records, help_),
        feed=Feed(_events(config, records, server_clock or clock), records, server_clock or clock),
        # Rooms are called in worker threads of Trio; DNS is asked by Trio itself.
        ownership=Ownership(records, config.hostname, accounts_key, DnsQuestions(config, trio.from_thread.run)),
        explain=Explainer(config, records, trio.from_thread.run, clock),
        aliases=Aliases(records, config.plans, own_names, clock, consent=(consent, post)),
        consent=consent,
        help=help_,
        blocks=Blocks(records, clock),
        deletion=deletion(config, records, engine, way_in.sessions),
        let_go=let_go(engine),
        export=export(records, way_in.sessions),
        canaries=Canaries(records, clock),
    )


def _events(config: Configuration, records: RecordStore, clock: Clock) -> Source:
    return SharedLog(records, clock) if is_shared(config) else EngineEvents(config.engine_socket)
