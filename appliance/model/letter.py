"""Mail of the appliance's own, to people: a letter, and who carries it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Link = Callable[[str, str], str]
"""Makes the address of the page of this name for this token."""


def links(public_url: str) -> Link:
    """The links of letters, to the page that the appliance serves at its public URL."""
    base = public_url.rstrip("/")
    # Behind the #, no server on the way sees the token, and no scanner of mail that opens links uses it up.
    return lambda page, token: f"{base}/#/{page}?token={token}"


@dataclass(frozen=True, slots=True)
class Letter:
    """One letter of the appliance to one person. It may have a link in it that is a secret: it is never logged."""

    recipient: str
    """One address, in its one spelling."""
    subject: str
    text: str
    """Plain: paragraphs with an empty line between them. Where their lines end is up to whoever sends it; a link is a
    paragraph of its own, and stays whole."""


class NotPosted(Exception):
    """A letter can't be handed over at this moment; later it may."""


class LetterRefused(NotPosted):
    """A letter for which there is no way: to try again would not help."""


class Post(Protocol):
    """Carries letters. In the running appliance: its queue, as with all mail, or a provider."""

    def send(self, letter: Letter) -> None:
        """Take a letter over. May block for some seconds; raises NotPosted, and then nothing of it is left behind."""
