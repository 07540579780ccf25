"""Sessions: who is signed in, for how long, and how that ends.

A session is known by a secret that only the browser has; the ephemeral store has a MAC of it. It ends when it has not
been seen for a week, when it is a month old, when somebody ends it, and when the password changes: each session
remembers since when the password stood, and one from before is none, even where it was made at the same instant.
"""

from contextlib import suppress
from dataclasses import replace

from appliance.access.drawn import draw
from appliance.model.access import Session
from appliance.model.account import Account
from appliance.model.ids import IdSource
from appliance.model.time import DAY_MS, MINUTE_MS, SECOND_MS, Clock
from appliance.privacy.declarations import SESSIONS
from appliance.privacy.sealing import Sealer, Unsealable
from appliance.storage.ephemeral import EphemeralStore, packed, unpacked
from appliance.storage.records import StoreUnavailable

LIFETIME_MS = 30 * DAY_MS
"""However often it is seen, a session is over after so long. (Unseen it is over sooner: the store forgets it.)"""

LIFETIME_S = LIFETIME_MS // SECOND_MS
"""The same for the cookie."""

SEEN_EVERY_MS = MINUTE_MS
"""How exactly it is known when a session was last seen: a write for each request would be too dear."""

MOST_OF_ONE = 50
"""Sessions of one account. One more ends the one not seen for longest."""

MAX_USER_AGENT = 200
"""Characters: enough to tell two browsers apart."""


class Sessions:
    """The sessions of the ephemeral store. Thread-safe. Every method but `end_all` may raise StoreUnavailable."""

    def __init__(self, store: EphemeralStore, sealer: Sealer, clock: Clock, ids: IdSource) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._ids = ids

    def begin(self, account: Account, user_agent: str) -> tuple[str, Session]:
        """Begin a session; returns the secret for its cookie, too."""
        group = self._group(account.id)
        for key in list(self._store.recall_group(SESSIONS, group))[: -MOST_OF_ONE + 1]:
            self._store.forget(SESSIONS, key)
        now = self._clock()
        secret = draw()
        session = Session(
            id=self._ids(),
            account_id=account.id,
            created_at=now,
            last_seen_at=now,
            user_agent=_printable(user_agent),
            password_changed_at=account.password_changed_at,
        )
        key = self._key(secret)
        self._store.remember(SESSIONS, key, self._sealed(key, session), group)
        return secret, session

    def find(self, secret: str) -> Session | None:
        """The session with this secret, which is thereby seen; None where there is none, or no more."""
        key = self._key(secret)
        session = self._opened(key, self._store.recall(SESSIONS, key))
        if session is None:
            return None
        now = self._clock()
        if now - session.last_seen_at >= SEEN_EVERY_MS:
            session = replace(session, last_seen_at=now)
            # A store that is full or is read only for the moment signs nobody out.
            with suppress(StoreUnavailable):
                self._store.renew(SESSIONS, key, self._sealed(key, session))
        return session

    def of(self, account: Account) -> list[Session]:
        """The sessions of an account, the one seen last at first."""
        sessions = [session for _, session in self._kept(account.id) if session.is_of(account)]
        return sorted(sessions, key=lambda session: (session.last_seen_at, session.id), reverse=True)

    def end(self, account_id: str, session_id: str) -> bool:
        """End one session. Returns whether there was one."""
        for key, session in self._kept(account_id):
            if session.id == session_id:
                return self._store.forget(SESSIONS, key) is not None
        return False

    def erase(self, account_id: str) -> int:
        """Erase whatever there is of an account that is going. Returns how many sessions that were."""
        return sum(
            self._store.forget(SESSIONS, key) is not None
            for key in self._store.recall_group(SESSIONS, self._group(account_id))
        )

    def end_all(self, account: Account, but: str = "") -> None:
        """End all sessions of an account but the one of this id, which holds on under the account's new password.

        They are over with the old password, whether or not they can be erased: where the store is away, all are, this
        one too.
        """
        with suppress(StoreUnavailable):
            self._erase_all(account, but)

    def _erase_all(self, account: Account, but: str) -> None:
        for key, session in self._kept(account.id):
            if session.id == but:
                changed = replace(session, password_changed_at=account.password_changed_at)
                self._store.renew(SESSIONS, key, self._sealed(key, changed))
            else:
                self._store.forget(SESSIONS, key)

    def _kept(self, account_id: str) -> list[tuple[bytes, Session]]:
        found = self._store.recall_group(SESSIONS, self._group(account_id))
        opened = [(key, self._opened(key, value)) for key, value in found.items()]
        return [(key, session) for key, session in opened if session is not None]

    def _key(self, secret: str) -> bytes:
        # Of whatever a stranger's cookie holds, only text that has octets is worth a look.
        return self._sealer.mac(secret.encode("utf-8", "replace").decode(), "sessions/cookie_key")

    def _group(self, account_id: str) -> bytes:
        return self._sealer.mac(account_id, "sessions/account_key")

    def _sealed(self, key: bytes, session: Session) -> bytes:
        changed_at = session.password_changed_at
        row = {
            "id": session.id,
            "account_id": session.account_id,
            "created_at": str(session.created_at),
            "last_seen_at": str(session.last_seen_at),
            "user_agent": session.user_agent,
            "password_changed_at": "" if changed_at is None else str(changed_at),
        }
        return self._sealer.seal(packed(SESSIONS, row), key)

    def _opened(self, key: bytes, sealed: bytes | None) -> Session | None:
        if sealed is None:
            return None
        try:
            row = unpacked(SESSIONS, self._sealer.open(sealed, key))
        except Unsealable:
            return None  # Of another run, whose key is gone: as good as over.
        session = Session(
            id=row["id"],
            account_id=row["account_id"],
            created_at=int(row["created_at"]),
            last_seen_at=int(row["last_seen_at"]),
            user_agent=row["user_agent"],
            password_changed_at=int(row["password_changed_at"]) if row["password_changed_at"] else None,
        )
        return None if self._clock() - session.created_at >= LIFETIME_MS else session


def _printable(user_agent: str) -> str:
    return "".join(letter for letter in user_agent if letter.isprintable())[:MAX_USER_AGENT]
