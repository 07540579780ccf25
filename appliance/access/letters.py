"""The letters of this room: what they say, and how many there are, for nobody is pestered through us.

A letter is in plain words, names the appliance, and says what to do where somebody else has asked for it: nothing.
"""

from dataclasses import dataclass

from appliance.access.clients import WIDER, networks
from appliance.model.letter import Letter, Link
from appliance.model.refused import TooMany
from appliance.model.time import SECOND_MS
from appliance.privacy.declarations import LETTERS_ASKED_FOR
from appliance.privacy.sealing import Sealer
from appliance.storage.ephemeral import EphemeralStore, lifetime_ms

PER_RECIPIENT = 3
"""Letters with a link to one address within an hour. The links of the last hour are all still good
(`mailed_tokens.py`), so that who has used the three up for somebody else has taken nothing away."""

PER_NETWORK = 20
"""Requests from one network within an hour: an office whose people all sign up on one morning gets by."""

IN_ALL = 500
"""Requests within an hour. Beyond it somebody uses us, from many networks, to write to strangers. To refuse everybody
then would do that somebody's work: instead each network has one request, which is what a newcomer needs."""

PER_NETWORK_THEN = 1


class Rationing:
    """How many letters may be asked for. Thread-safe. Every method may raise StoreUnavailable."""

    def __init__(self, store: EphemeralStore, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    def admit(self, address: str) -> None:
        """Let a client ask for a letter, or raise TooMany: whoever the letter is for, known or not."""
        of_network = PER_NETWORK_THEN if self._count("all") > IN_ALL else PER_NETWORK
        own, *wider = networks(address)
        # The widest first: whoever is refused there leaves no counters of networks in it, of which there are many.
        for network, most in (*((each, of_network * WIDER) for each in reversed(wider)), (own, of_network)):
            if self._count("network", network) > most:
                raise TooMany(
                    "Too many letters have been asked for from here. Try again later.",
                    lifetime_ms(LETTERS_ASKED_FOR) // SECOND_MS,
                )

    def may_write_to(self, email: str) -> bool:
        """Whether one more letter may go to this address. Nobody is told which: they have letters enough to read."""
        return self._count("recipient", email) <= PER_RECIPIENT

    def _count(self, *who: str) -> int:
        return self._store.count(LETTERS_ASKED_FOR, self._sealer.mac("\0".join(who), LETTERS_ASKED_FOR.name))


@dataclass(frozen=True, slots=True)
class LetterWriter:
    """Writes them."""

    hostname: str
    link: Link

    def verify_email(self, email: str, token: str) -> Letter:
        """To whoever has signed up."""
        return self._letter(
            email,
            "Verify your address",
            f"Somebody, hopefully you, has signed up at {self.hostname} with this address.\n\n"
            f"To verify it, open this within seven days:\n\n{self.link('verify-email', token)}\n\n"
            "If it was not you, do nothing: without this link nobody can sign in with your address, and it is erased.",
        )

    def already_here(self, email: str, token: str) -> Letter:
        """To whoever has an account and signs up once more."""
        return self._letter(
            email,
            "You have an account already",
            f"Somebody, hopefully you, has tried to sign up at {self.hostname} with this address. It has an account "
            "already, so nothing has been changed: sign in with the password that you have.\n\n"
            "If you have forgotten it, set a new one. This is good for two hours:\n\n"
            f"{self.link('reset-password', token)}\n\n"
            "If it was not you, do nothing: whoever it was has not been told that you have an account.",
        )

    def reset_password(self, email: str, token: str) -> Letter:
        """To whoever has forgotten the password."""
        return self._letter(
            email,
            "Set a new password",
            f"Somebody, hopefully you, has asked for a new password at {self.hostname}.\n\n"
            f"To set one, open this within two hours:\n\n{self.link('reset-password', token)}\n\n"
            "If it was not you, do nothing: your password stays as it is.",
        )

    def password_changed(self, email: str, tokens: int) -> Letter:
        """To the owner, after the fact."""
        programs = (
            f"\n\nPrograms still come in with the API tokens of your account, of which there are {tokens}. Revoke "
            "those that you do not know."
            if tokens
            else ""
        )
        return self._letter(
            email,
            "Your password has been changed",
            f"The password of your account at {self.hostname} has been changed, and whoever was signed in elsewhere "
            f"has been signed out.{programs}\n\n"
            "If it was not you, somebody reads your mail or knows your password: ask for a new password at once.",
        )

    def wrong_codes(self, email: str) -> Letter:
        """To the owner whose password somebody else seems to know."""
        return self._letter(
            email,
            "Somebody may know your password",
            f"At {self.hostname}, somebody has signed in to your account with the right password and then typed "
            "several wrong one-time codes. They have not come in.\n\n"
            "If it was not you, set a new password: yours is known to somebody.",
        )

    def _letter(self, email: str, subject: str, text: str) -> Letter:
        return Letter(email, f"{subject} ({self.hostname})", f"{text}\n")
