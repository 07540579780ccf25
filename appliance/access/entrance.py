"""The room put together: what callers use of it, over the stores and keys that they hand in."""

from collections.abc import Mapping
from dataclasses import dataclass

from argon2 import PasswordHasher

from appliance.access.api_tokens import ApiTokens
from appliance.access.attempts import Attempts, Limits
from appliance.access.devices import Devices
from appliance.access.doorkeeper import Doorkeeper
from appliance.access.errands import Errands
from appliance.access.letters import LetterWriter, Rationing
from appliance.access.mailed_tokens import MailedTokens
from appliance.access.passwords import Passwords
from appliance.access.postbox import Postbox
from appliance.access.sessions import Sessions
from appliance.access.sign_ins import SignIns
from appliance.access.sign_ups import SignUps
from appliance.access.two_factor import TwoFactors
from appliance.model.account import Plan
from appliance.model.ids import IdSource, id_source
from appliance.model.letter import Post, links
from appliance.model.time import Clock, wall_clock
from appliance.privacy.sealing import Sealer
from appliance.storage.ephemeral import EphemeralStore
from appliance.storage.records import RecordStore


@dataclass(frozen=True, slots=True)
class Entrance:
    """Whoever comes in comes in here."""

    sign_ups: SignUps
    sign_ins: SignIns
    sessions: Sessions
    api_tokens: ApiTokens
    two_factors: TwoFactors
    doorkeeper: Doorkeeper


def entrance(
    records: RecordStore,
    ephemeral: EphemeralStore,
    *,
    plans: Mapping[str, Plan],
    hostname: str,
    public_url: str,
    accounts_key: Sealer,
    ephemeral_key: Sealer,
    post: Post,
    errands: Errands,
    clock: Clock = wall_clock,
    ids: IdSource | None = None,
    limits: Limits | None = None,
    hasher: PasswordHasher | None = None,
) -> Entrance:
    """Put the room together. Takes as long as one password hash.

    `accounts_key` has the key `accounts`, `ephemeral_key` one that lives as long as the ephemeral store remembers.
    """
    ids = ids or id_source(clock)
    passwords = Passwords(hasher=hasher) if hasher else Passwords()
    attempts = Attempts(ephemeral, ephemeral_key, limits)
    sessions = Sessions(ephemeral, ephemeral_key, clock, ids)
    api_tokens = ApiTokens(records, clock, ids)
    two_factors = TwoFactors(records, clock, hostname)
    writer = LetterWriter(hostname, links(public_url))
    postbox = Postbox(post, errands)
    sign_ups = SignUps(
        records=records,
        plans=plans,
        passwords=passwords,
        tokens=MailedTokens(records, clock),
        sessions=sessions,
        api_tokens=api_tokens,
        attempts=attempts,
        rationing=Rationing(ephemeral, ephemeral_key),
        writer=writer,
        postbox=postbox,
        clock=clock,
        ids=ids,
    )
    sign_ins = SignIns(
        records=records,
        passwords=passwords,
        attempts=attempts,
        devices=Devices(accounts_key),
        sessions=sessions,
        two_factors=two_factors,
        api_tokens=api_tokens,
        writer=writer,
        postbox=postbox,
        clock=clock,
    )
    return Entrance(sign_ups, sign_ins, sessions, api_tokens, two_factors, Doorkeeper(records, sessions, api_tokens))
